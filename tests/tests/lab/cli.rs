//! The command line against the running agent: what each command says, how it
//! exits, and what is true afterwards.

mod refused;

use std::fs;
use std::process::Command;

use conntrack_tests::agent::{Config, Exit, binary};
use conntrack_tests::durable::stored;
use conntrack_tests::helpers::Rule;
use conntrack_tests::process;
use conntrack_tests::served::Served;
use conntrack_tests::state::State;
use conntrack_tests::table::Placeholders;
use serde_json::{Value, json};
use uuid::Uuid;

fn run(mut command: Command, line: &str) -> Exit {
    process::run(command.args(line.split_whitespace()))
}

fn json(said: &Exit) -> Value {
    assert_eq!(said.code, Some(0), "{said:?}");
    serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"))
}

/// An agent with a router that is here and one rule of its rules file, and what
/// command lines call them: `$router`, `$create` (a rule of this router, as far
/// as its protocol), `$id` and `$other` (ids that no rule has yet), `$lab` (a
/// folder for files).
struct Fixture {
    served: Served,
    placeholders: Placeholders,
}

impl Fixture {
    fn new() -> Self {
        Self::with(|config| config)
    }

    fn with(change: impl FnOnce(Config) -> Config) -> Self {
        let builder = Served::builder().rules(&[Rule::tftp(69)]);
        let served = builder.config(change).start();
        let lab = served.lab.dir().path().display();
        let placeholders = Placeholders::new()
            .with("$router", &served.router.id())
            .with("$create", "helper create --router $router --protocol")
            .with("$id", &Uuid::new_v4())
            .with("$other", &Uuid::new_v4())
            .with("$lab", &lab);
        Self {
            served,
            placeholders,
        }
    }

    /// A command that asks this agent.
    fn command(&self) -> Command {
        let mut command = Command::new(binary());
        command.arg("--socket").arg(self.served.socket());
        command
    }

    /// Runs the rows of a table: a command line, and words that it says on
    /// stdout, with nothing on stderr. Returns what the last one said.
    #[track_caller]
    fn does(&self, table: &str) -> Exit {
        let mut last = None;
        for row in self.placeholders.rows(table) {
            let said = run(self.command(), &row[0]);
            let end = (said.code, said.stderr.as_str());
            assert_eq!(end, (Some(0), ""), "{row:?}: {said:?}");
            assert_has(&row[0], &said.stdout, &row[1..]);
            last = Some(said);
        }
        last.expect("a command")
    }

    fn state(&self) -> State {
        self.served.state()
    }

    /// That the store and the kernel have the rule of the file and these, by
    /// port and helper.
    #[track_caller]
    fn assert_rules(&self, wanted: &[(u16, &str)]) {
        let mapping = stored(self.served.lab.dir()).expect("a good store");
        let mut wanted = [wanted, &[(69, "tftp")]].concat();
        wanted.sort_unstable();
        let targets = mapping.entries().map(|entry| entry.rule.target);
        let mut there: Vec<_> = targets
            .map(|target| (target.port.get(), target.helper.name()))
            .collect();
        there.sort_unstable();
        assert_eq!(there, wanted, "the store");
        self.served.router.assert_has(&mapping);
    }

    /// Writes a rules file that is `$lab/name` for commands.
    fn file(&self, name: &str, text: &str) {
        let path = self.served.lab.dir().path().join(name);
        fs::write(&path, self.placeholders.fill(text)).expect("a file");
    }
}

#[track_caller]
fn assert_has(line: &str, text: &str, words: &[String]) {
    for word in words {
        assert!(text.contains(word), "{line}: {text:?} lacks {word:?}");
    }
}

#[test]
fn what_a_command_says_is_done() {
    let fixture = Fixture::new();
    fixture.does("$create tcp --port 21 --helper ftp --id $id | $id | $router | tcp | 21 | ftp | api | active");
    fixture.assert_rules(&[(21, "ftp")]);
    let made = json(&fixture.does("-o json $create udp --port 5060 --helper sip"));
    fixture.assert_rules(&[(21, "ftp"), (5060, "sip")]);
    let other = made["id"].as_str().expect("an id");
    let expected = json!({
        "id": other, "router_id": fixture.served.router.id().to_string(),
        "protocol": "udp", "port": 5060, "helper": "sip",
        "origin": "api", "status": "active", "status_reason": null,
    });
    assert_eq!(made, expected);

    let before = fixture.state();
    let shown = format!("helper show {other}");
    let as_json = |line: &str| json(&fixture.does(&format!("{line} -o json")));
    assert_eq!(as_json(&shown), expected);
    fixture.does(&format!("{shown} | {other} | 5060 | sip | active"));
    for line in ["helper list", "helper list --router $router"] {
        let words = "ROUTER | ID | PORT | HELPER | ORIGIN | STATUS \
                     | tcp/21 | udp/5060 | udp/69 | file | api";
        let said = fixture.does(&format!("{line} | {words}"));
        let lines = said.stdout.lines().count();
        assert_eq!(lines, 4, "a head and three rules: {said:?}");
        let listed = as_json(line);
        let rules = listed.as_array().expect("rules").iter();
        let ports: Vec<_> = rules.map(|rule| rule["port"].as_u64()).collect();
        assert_eq!(ports, [21, 69, 5060].map(Some));
    }
    fixture.does(
        "
        router list         | $router | ACTIVE | 3 | qrouter-$router
        router show $router | $router | ACTIVE
        status              | rules: 3 (3 active | routers: 1 (1 active
        ",
    );
    let routers = as_json("router list");
    assert_eq!(routers[0]["id"], expected["router_id"]);
    assert_eq!(routers[0]["rules"], 3);
    assert_eq!(as_json("router show $router"), routers[0]);
    assert_eq!(as_json("status")["rules"]["total"], 3);
    fixture.state().assert_same(&before, "what only asks");
}

#[test]
fn rules_are_changed_and_removed_by_their_ids() {
    let fixture = Fixture::new();
    let [id, other] = ["$id", "$other"].map(|id| fixture.placeholders.fill(id));
    fixture.does(
        "
        $create tcp --port 21 --helper ftp --id $id
        $create udp --port 5060 --helper sip --id $other
        helper set $other --port 5061 | $other | 5061 | sip
        ",
    );
    fixture.assert_rules(&[(21, "ftp"), (5061, "sip")]);
    let line = "helper set $other --protocol tcp --port 2121 --helper ftp -o json";
    let changed = json(&fixture.does(line));
    assert_eq!(changed["id"], other);
    assert_eq!(
        (&changed["protocol"], &changed["port"]),
        (&json!("tcp"), &json!(2121))
    );
    fixture.assert_rules(&[(21, "ftp"), (2121, "ftp")]);

    fixture.does("helper delete $other | $other | is gone | ftp on tcp port 2121");
    fixture.assert_rules(&[(21, "ftp")]);
    let gone = json(&fixture.does("helper delete $id -o json"));
    assert_eq!((&gone["id"], &gone["port"]), (&json!(id), &json!(21)));
    fixture.assert_rules(&[]);

    fixture.does(
        "
        $create tcp --port 21 --helper ftp
        router clear $router | $router | 1 rule is gone
        ",
    );
    fixture.assert_rules(&[]);
    fixture.does(
        "
        router clear $router | had no rules of the API
        $create tcp --port 21 --helper ftp
        $create tcp --port 2121 --helper ftp
        ",
    );
    let gone = json(&fixture.does("router clear $router -o json"));
    assert_eq!(gone.as_array().map(Vec::len), Some(2));
    fixture.assert_rules(&[]);
}

#[test]
fn a_file_is_applied_and_rehearsed_before() {
    let fixture = Fixture::new();
    let router = &fixture.served.router;
    fixture.file("first.toml", &router.rules_file(&[Rule::ftp(21)]));
    fixture.file("second.toml", &router.rules_file(&[Rule::sip(5060)]));
    fixture.file("none.toml", "");

    let before = fixture.state();
    let said = fixture.does("apply $lab/first.toml --dry-run | 1 to add, 0 to remove, 0 unchanged");
    let line = format!("+ router {}: ftp on tcp port 21\n", router.id());
    assert!(said.stdout.contains(&line), "{said:?}");
    fixture.state().assert_same(&before, "a rehearsal");
    fixture.does("apply $lab/first.toml | + router | 1 added, 0 removed, 0 unchanged");
    fixture.assert_rules(&[(21, "ftp")]);
    let before = fixture.state();
    fixture.does("apply $lab/first.toml | 0 added, 0 removed, 1 unchanged");
    fixture.state().assert_same(&before, "what is so already");
    let rehearsed = json(&fixture.does("apply $lab/second.toml --dry-run -o json"));
    fixture.state().assert_same(&before, "a rehearsal");
    let applied = json(&fixture.does("apply $lab/second.toml -o json"));
    fixture.assert_rules(&[(5060, "sip")]);
    for answer in [rehearsed, applied] {
        assert_eq!(answer["added"][0]["port"], 5060, "{answer}");
        assert_eq!(answer["removed"][0]["port"], 21, "{answer}");
        assert_eq!(answer["unchanged"], 0, "{answer}");
    }
    let said = fixture.does("apply $lab/none.toml");
    let line = line
        .replace('+', "-")
        .replace("ftp on tcp port 21", "sip on udp port 5060");
    assert!(said.stdout.contains(&line), "{said:?}");
    fixture.assert_rules(&[]);
}
