//! The command line against the running agent: what each command says, how it
//! exits, and what is true afterwards.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Command;

use conntrack_agent::engine::Mapping;
use conntrack_tests::accounts::{SocketGroup, launcher};
use conntrack_tests::agent::{Agent, Config, binary};
use conntrack_tests::durable::{BareRouter, stored};
use conntrack_tests::lab::Lab;
use conntrack_tests::state::State;
use serde_json::{Value, json};
use uuid::Uuid;

/// How a command ended.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Said {
    fn json(&self) -> Value {
        assert_eq!(self.code, Some(0), "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

fn run(mut command: Command, words: &[&str]) -> Said {
    let output = command.args(words).output().expect("the command");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Said {
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// The command's words, by spaces.
fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// An agent with a router that is here, and one rule of its rules file.
struct Fixture {
    _agent: Agent,
    router: BareRouter,
    lab: Lab,
}

impl Fixture {
    fn with(change: impl FnOnce(Config) -> Config) -> Self {
        let lab = Lab::new();
        let router = BareRouter::new(&lab);
        let rules = format!(
            "[[router]]\nid = \"{}\"\nhelpers = [{{ protocol = \"udp\", port = 69, helper = \"tftp\" }}]\n",
            router.id()
        );
        let agent = Agent::start_with(&lab, &change(Config::of(&lab)), &rules);
        Self {
            _agent: agent,
            router,
            lab,
        }
    }

    fn socket(&self) -> PathBuf {
        self.lab.dir().run_dir().join("agent.sock")
    }

    fn run(&self, line: &str) -> Said {
        let mut command = Command::new(binary());
        command.arg("--socket").arg(self.socket());
        run(command, &words(line))
    }

    /// Runs a command that says this on stdout and nothing on stderr.
    #[track_caller]
    fn does(&self, line: &str, expected: &[&str]) -> Said {
        let said = self.run(line);
        assert_eq!(
            (said.code, said.stderr.as_str()),
            (Some(0), ""),
            "{line}: {said:?}"
        );
        assert_has(line, &said.stdout, expected);
        said
    }

    fn state(&self) -> State {
        State::of(self.lab.dir(), &[&self.router])
    }

    /// That the store and the kernel have the rule of the file and these, by
    /// port and helper.
    #[track_caller]
    fn assert_rules(&self, wanted: &[(u16, &str)]) {
        let mapping = stored(self.lab.dir()).expect("a good store");
        let mut wanted: Vec<_> = wanted
            .iter()
            .chain(&[(69, "tftp")])
            .map(|(port, helper)| (*port, (*helper).to_owned()))
            .collect();
        wanted.sort_unstable();
        assert_eq!(said_by(&mapping), wanted, "the store");
        self.router.assert_has(&mapping);
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.lab.dir().path().join(name);
        fs::write(&path, text).expect("a file");
        path.to_str().expect("text").to_owned()
    }
}

fn said_by(mapping: &Mapping) -> Vec<(u16, String)> {
    let target = mapping.entries().map(|entry| entry.rule.target);
    let mut said: Vec<_> = target
        .map(|target| (target.port.get(), target.helper.name().to_owned()))
        .collect();
    said.sort_unstable();
    said
}

#[track_caller]
fn assert_has(line: &str, text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{line}: {text:?} lacks {word:?}");
    }
}

/// A refusal: its exit code, nothing on stdout, and on stderr who speaks and
/// these words, in one sentence unless it is the parser's, which adds a usage,
/// or lists a file's faults.
#[track_caller]
fn assert_refused(line: &str, said: &Said, code: i32, words: &[&str]) {
    assert_eq!(
        (said.code, said.stdout.as_str()),
        (Some(code), ""),
        "{line}: {said:?}"
    );
    assert_has(line, &said.stderr, words);
    let first = said.stderr.lines().next().unwrap_or_default();
    let (speaks, is_long) = match code {
        2 => (
            first.starts_with("error: ") || first.starts_with("conntrack-agent: "),
            true,
        ),
        78 => (first.starts_with("conntrack-agent: "), true),
        _ => (first.starts_with("conntrack-agent: "), false),
    };
    assert!(speaks, "{line}: {said:?}");
    assert!(
        is_long || said.stderr.lines().count() == 1,
        "{line}: {said:?}"
    );
    assert!(said.stderr.ends_with('\n'), "{line}: {said:?}");
}

#[test]
fn what_a_command_says_is_done() {
    let fixture = Fixture::with(|config| config);
    let router = fixture.router.id().to_string();
    let create = format!("helper create --router {router} --protocol");
    let id = Uuid::new_v4();

    let line = format!("{create} tcp --port 21 --helper ftp --id {id}");
    fixture.does(
        &line,
        &[
            &id.to_string(),
            &router,
            "tcp",
            "21",
            "ftp",
            "api",
            "active",
        ],
    );
    fixture.assert_rules(&[(21, "ftp")]);

    let line = format!("-o json {create} udp --port 5060 --helper sip");
    let made = fixture.does(&line, &[]).json();
    let other = made["id"].as_str().expect("an id").to_owned();
    let expected = json!({
        "id": other, "router_id": router, "protocol": "udp", "port": 5060, "helper": "sip",
        "origin": "api", "status": "active", "status_reason": null,
    });
    assert_eq!(made, expected);
    fixture.assert_rules(&[(21, "ftp"), (5060, "sip")]);

    let shown = fixture.does(&format!("helper show {other} -o json"), &[]);
    assert_eq!(shown.json(), expected);
    fixture.does(
        &format!("helper show {other}"),
        &[&other, "5060", "sip", "active"],
    );
    let before = fixture.state();
    for line in [
        "helper list".to_owned(),
        format!("helper list --router {router}"),
    ] {
        let heads = ["ROUTER", "ID", "PORT", "HELPER", "ORIGIN", "STATUS"];
        let said = fixture.does(&line, &heads);
        assert_has(
            &line,
            &said.stdout,
            &["tcp/21", "udp/5060", "udp/69", "file", "api"],
        );
        assert_eq!(
            said.stdout.lines().count(),
            4,
            "a head and three rules: {said:?}"
        );
        let listed = fixture.does(&format!("{line} -o json"), &[]).json();
        let ports = listed
            .as_array()
            .expect("rules")
            .iter()
            .map(|rule| &rule["port"]);
        let ports: Vec<_> = ports.map(|port| port.as_u64().expect("a port")).collect();
        assert_eq!(ports, [21, 69, 5060]);
    }
    fixture.does(
        "router list",
        &[&router, "ACTIVE", "3", &format!("qrouter-{router}")],
    );
    let routers = fixture.does("router list -o json", &[]).json();
    assert_eq!(routers[0]["id"], router);
    assert_eq!(routers[0]["rules"], 3);
    fixture.does(&format!("router show {router}"), &[&router, "ACTIVE"]);
    let shown = fixture
        .does(&format!("router show {router} -o json"), &[])
        .json();
    assert_eq!(shown, routers[0]);
    fixture.does("status", &["rules: 3 (3 active", "routers: 1 (1 active"]);
    let status = fixture.does("status -o json", &[]).json();
    assert_eq!(status["rules"]["total"], 3);
    fixture.state().assert_same(&before, "what only asks");
}

#[test]
fn rules_are_changed_and_removed_by_their_ids() {
    let fixture = Fixture::with(|config| config);
    let router = fixture.router.id().to_string();
    let create = format!("helper create --router {router} --protocol");
    let (id, other) = (Uuid::new_v4(), Uuid::new_v4());
    fixture.does(
        &format!("{create} tcp --port 21 --helper ftp --id {id}"),
        &[],
    );
    fixture.does(
        &format!("{create} udp --port 5060 --helper sip --id {other}"),
        &[],
    );

    let line = format!("helper set {other} --port 5061");
    fixture.does(&line, &[&other.to_string(), "5061", "sip"]);
    fixture.assert_rules(&[(21, "ftp"), (5061, "sip")]);
    let line = format!("helper set {other} --protocol tcp --port 2121 --helper ftp -o json");
    let changed = fixture.does(&line, &[]).json();
    assert_eq!(
        (&changed["id"], &changed["protocol"], &changed["port"]),
        (&json!(other.to_string()), &json!("tcp"), &json!(2121))
    );
    fixture.assert_rules(&[(21, "ftp"), (2121, "ftp")]);

    fixture.does(
        &format!("helper delete {other}"),
        &[&other.to_string(), "is gone", "ftp on tcp port 2121"],
    );
    fixture.assert_rules(&[(21, "ftp")]);
    let gone = fixture
        .does(&format!("helper delete {id} -o json"), &[])
        .json();
    assert_eq!(
        (&gone["id"], &gone["port"]),
        (&json!(id.to_string()), &json!(21))
    );
    fixture.assert_rules(&[]);

    let clear = format!("router clear {router}");
    fixture.does(&format!("{create} tcp --port 21 --helper ftp"), &[]);
    fixture.does(&clear, &[&router, "1 rule is gone"]);
    fixture.assert_rules(&[]);
    fixture.does(&clear, &["had no rules of the API"]);
    for port in [21, 2121] {
        fixture.does(&format!("{create} tcp --port {port} --helper ftp"), &[]);
    }
    let gone = fixture.does(&format!("{clear} -o json"), &[]).json();
    assert_eq!(gone.as_array().map(Vec::len), Some(2));
    fixture.assert_rules(&[]);
}

#[test]
fn a_file_is_applied_and_rehearsed_before() {
    let fixture = Fixture::with(|config| config);
    let router = fixture.router.id();
    let file = |name: &str, rules: &str| {
        fixture.file(
            name,
            &format!("[[router]]\nid = \"{router}\"\nhelpers = [{rules}]\n"),
        )
    };
    let ftp = "{ protocol = \"tcp\", port = 21, helper = \"ftp\" }";
    let sip = "{ protocol = \"udp\", port = 5060, helper = \"sip\" }";
    let first = file("first.toml", ftp);
    let second = file("second.toml", sip);

    let before = fixture.state();
    fixture.does(
        &format!("apply {first} --dry-run"),
        &[
            &format!("+ router {router}: ftp on tcp port 21\n"),
            "1 to add, 0 to remove, 0 unchanged",
        ],
    );
    fixture.state().assert_same(&before, "a rehearsal");
    fixture.does(
        &format!("apply {first}"),
        &["+ router", "1 added, 0 removed, 0 unchanged"],
    );
    fixture.assert_rules(&[(21, "ftp")]);
    let before = fixture.state();
    fixture.does(
        &format!("apply {first}"),
        &["0 added, 0 removed, 1 unchanged"],
    );
    fixture.state().assert_same(&before, "what is so already");
    let rehearsed = fixture
        .does(&format!("apply {second} --dry-run -o json"), &[])
        .json();
    fixture.state().assert_same(&before, "a rehearsal");
    let applied = fixture.does(&format!("apply {second} -o json"), &[]).json();
    fixture.assert_rules(&[(5060, "sip")]);
    for answer in [rehearsed, applied] {
        assert_eq!(answer["added"][0]["port"], 5060, "{answer}");
        assert_eq!(answer["removed"][0]["port"], 21, "{answer}");
        assert_eq!(answer["unchanged"], 0, "{answer}");
    }
    let none = fixture.file("none.toml", "");
    fixture.does(
        &format!("apply {none}"),
        &[&format!("- router {router}: sip on udp port 5060\n")],
    );
    fixture.assert_rules(&[]);
}

/// A command line, and words of its refusal.
type Row<'a> = (String, Vec<&'a str>);

/// What a table of refusals is about: rules that are there, and an id that no
/// rule and no router has.
struct Refusals {
    fixture: Fixture,
    create: String,
    id: String,
    of_file: String,
    other: String,
}

impl Refusals {
    fn new() -> Self {
        let fixture = Fixture::with(|config| config);
        let create = format!("helper create --router {} --protocol", fixture.router.id());
        let id = Uuid::new_v4().to_string();
        fixture.does(
            &format!("{create} tcp --port 21 --helper ftp --id {id}"),
            &[],
        );
        fixture.does(&format!("{create} tcp --port 22 --helper ftp"), &[]);
        let listed = fixture.does("helper list -o json", &[]).json();
        let mut rules = listed.as_array().expect("rules").iter();
        let of_file = rules.find(|rule| rule["origin"] == "file");
        let of_file = of_file.expect("the file's rule")["id"].as_str();
        Self {
            create,
            id,
            of_file: of_file.expect("an id").to_owned(),
            other: Uuid::new_v4().to_string(),
            fixture,
        }
    }

    /// Each is refused with this exit code, in both forms of the data, and
    /// nothing of it happens.
    fn check(&self, code: i32, rows: &[Row<'_>]) {
        let before = self.fixture.state();
        for (line, words) in rows {
            assert_refused(line, &self.fixture.run(line), code, words);
            let json = format!("{line} -o json");
            if !line.contains("-o ") {
                assert_refused(&json, &self.fixture.run(&json), code, words);
            }
            self.fixture.state().assert_same(&before, line);
        }
    }
}

#[test]

fn a_wrong_command_line_is_refused_with_2_before_anybody_is_asked() {
    let refusals = Refusals::new();
    let Refusals {
        create, id, other, ..
    } = &refusals;
    refusals.check(
        2,
        &[
            (
                format!("{create} tcp --port 0 --helper ftp"),
                vec!["--port", "0", "1 to 65535"],
            ),
            (
                format!("{create} tcp --port 65536 --helper ftp"),
                vec!["65536", "1 to 65535"],
            ),
            (
                format!("{create} tcp --port -1 --helper ftp"),
                vec!["-1", "1 to 65535"],
            ),
            (
                format!("{create} tcp --port ftp --helper ftp"),
                vec!["\"ftp\"", "1 to 65535"],
            ),
            (format!("{create} tcp --helper ftp"), vec!["--port"]),
            (
                format!("{create} sctp --port 21 --helper ftp"),
                vec!["\"sctp\"", "udp"],
            ),
            (
                format!("{create} udp --port 23 --helper ftp"),
                vec!["it is for tcp"],
            ),
            (
                format!("{create} tcp --port 70 --helper gopher"),
                vec!["\"gopher\"", "tftp"],
            ),
            (
                format!("{create} tcp --port 23 --helper ftp --id x"),
                vec!["--id", "UUID"],
            ),
            (
                "helper create --router x --protocol tcp --port 23 --helper ftp".into(),
                vec!["--router", "UUID"],
            ),
            (format!("helper set {id}"), vec!["--port"]),
            (format!("helper set {id} --port 0"), vec!["1 to 65535"]),
            ("helper show x".into(), vec!["UUID"]),
            ("helper delete".into(), vec!["<ID>"]),
            (format!("helper delete {id} {other}"), vec![&other]),
            ("router show x".into(), vec!["UUID"]),
            ("router clear".into(), vec!["UUID"]),
            ("apply".into(), vec!["FILE"]),
            ("helper list -o yaml".into(), vec!["yaml", "json"]),
            ("helper make".into(), vec!["make"]),
            ("status --colour".into(), vec!["--colour"]),
        ],
    );
}

#[test]

fn what_the_agent_refuses_ends_with_1() {
    let refusals = Refusals::new();
    let Refusals {
        create,
        id,
        other,
        of_file,
        ..
    } = &refusals;
    refusals.check(
        1,
        &[
            (
                format!("{create} tcp --port 21 --helper ftp"),
                vec!["already", &id],
            ),
            (
                format!("{create} tcp --port 23 --helper ftp --id {id}"),
                vec!["already", &id],
            ),
            (format!("helper set {id} --port 22"), vec!["already"]),
            (
                format!("helper set {id} --protocol udp"),
                vec!["it is for tcp"],
            ),
            (
                format!("helper set {id} --helper tftp"),
                vec!["it is for udp"],
            ),
            (format!("helper show {other}"), vec!["no rule", &other]),
            (
                format!("helper set {other} --port 1"),
                vec!["no rule", &other],
            ),
            (format!("helper delete {other}"), vec!["no rule", &other]),
            (format!("helper delete {of_file}"), vec!["belongs to file"]),
            (
                format!("helper set {of_file} --port 70"),
                vec!["belongs to file"],
            ),
            (
                format!("helper list --router {other}"),
                vec![&other, "could not be found"],
            ),
            (
                format!("router show {other}"),
                vec![&other, "could not be found"],
            ),
        ],
    );
}

#[test]

fn a_faulty_file_is_refused_with_78_before_anybody_is_asked() {
    let refusals = Refusals::new();
    let fixture = &refusals.fixture;
    let router = fixture.router.id();
    let one = |rule: &str| format!("[[router]]\nid = \"{router}\"\nhelpers = [{rule}]\n");
    let rule = "{ protocol = \"tcp\", port = 5, helper = \"ftp\" }";
    let port_0 = fixture.file("port.toml", &one(&rule.replace('5', "0")));
    let gopher = fixture.file("gopher.toml", &one(&rule.replace("ftp", "gopher")));
    let twice = fixture.file("twice.toml", &one(&format!("{rule}, {rule}")));
    let no_toml = fixture.file("no.toml", "[[router");
    let missing = format!("{no_toml}.missing");
    let folder = fixture.lab.dir().run_dir();
    let folder = folder.to_str().expect("text");
    refusals.check(
        78,
        &[
            (format!("apply {port_0}"), vec![&port_0, "1 to 65535"]),
            (format!("apply {gopher}"), vec![&gopher, "\"gopher\""]),
            (format!("apply {twice} --dry-run"), vec![&twice]),
            (format!("apply {no_toml}"), vec![&no_toml]),
            (format!("apply {missing}"), vec![&missing, "No such file"]),
            (format!("apply {folder}"), vec![folder]),
            (
                format!("apply {port_0} --socket {missing}"),
                vec!["1 to 65535"],
            ),
        ],
    );
    // The rule by itself is fine.
    let good = fixture.file("good.toml", &one(rule));
    fixture.does(
        &format!("apply {good} --dry-run"),
        &["1 to add, 2 to remove"],
    );
    // And where nobody is, it is the daemon that lacks, not the file.
    refusals.check(
        69,
        &[
            (
                format!("apply {good} --socket {missing}"),
                vec!["cannot be reached", &missing],
            ),
            (
                format!("status --socket {good}"),
                vec!["cannot be reached", &good],
            ),
        ],
    );
}

#[test]
fn without_the_agent_every_command_that_asks_exits_with_69() {
    let lab = Lab::without_bpffs();
    let socket = lab.dir().run_dir().join("agent.sock");
    let file = lab.dir().path().join("none.toml");
    fs::write(&file, "").expect("a file");
    let id = Uuid::new_v4();
    let lines = [
        format!("helper create --router {id} --protocol tcp --port 21 --helper ftp"),
        "helper list".to_owned(),
        format!("helper show {id}"),
        format!("helper set {id} --port 21"),
        format!("helper delete {id}"),
        "router list".to_owned(),
        format!("router show {id}"),
        format!("router clear {id}"),
        format!("apply {}", file.display()),
        format!("apply {} --dry-run", file.display()),
        "status".to_owned(),
    ];
    let check = |why: &str| {
        for line in &lines {
            let mut command = Command::new(binary());
            command.arg("--socket").arg(&socket);
            let said = run(command, &words(line));
            let path = socket.to_str().expect("text");
            assert_refused(line, &said, 69, &["cannot be reached", path, why]);
        }
    };
    check("No such file");
    // As a killed agent leaves it.
    drop(UnixListener::bind(&socket).expect("a socket"));
    check("Connection refused");
}

#[test]
fn another_user_is_refused_with_77() {
    const READER: u32 = 61_001;
    const STRANGER: u32 = 61_004;
    let SocketGroup { name, gid } = SocketGroup::any();
    let fixture = Fixture::with(|config| {
        config
            .with("api", format!("{{ socket_group = {name:?} }}"))
            .with(
                "grant",
                format!("[{{ users = [{READER}], role = \"reader\" }}]"),
            )
    });
    // Where the agent was built may be nobody else's to read.
    let program = fixture.lab.dir().folder("bin").join("conntrack-agent");
    fs::copy(binary(), &program).expect("a copy");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("its mode");
    let router = fixture.router.id();
    let id = Uuid::new_v4();
    let file = fixture.file("none.toml", "");
    let by = |uid: u32, groups: &[u32], line: &str| {
        let launcher = launcher(uid, uid, groups);
        let mut command = Command::new(&launcher[0]);
        command.args(&launcher[1..]).arg(&program);
        command.arg("--socket").arg(fixture.socket());
        run(command, &words(line))
    };
    let reads = [
        "helper list".to_owned(),
        format!("helper list --router {router}"),
        "router list".to_owned(),
        format!("router show {router}"),
    ];
    let others = [
        format!("helper create --router {router} --protocol tcp --port 21 --helper ftp --id {id}"),
        format!("router clear {router}"),
        format!("apply {file}"),
        format!("apply {file} --dry-run"),
        "status".to_owned(),
    ];
    let before = fixture.state();
    for line in reads.iter().chain(&others) {
        let said = by(STRANGER, &[], line);
        assert_refused(line, &said, 77, &["may not be used", "Permission denied"]);
        let said = by(STRANGER, &[gid], line);
        assert_refused(
            line,
            &said,
            77,
            &[&format!("no grant names uid {STRANGER}")],
        );
        // What is wrong with the command line is said to anybody.
        let said = by(STRANGER, &[], &format!("{line} --colour"));
        assert_refused(line, &said, 2, &["--colour"]);
    }
    for line in &others {
        let said = by(READER, &[gid], line);
        assert_refused(line, &said, 77, &["grant 1 (role reader)"]);
    }
    for line in &reads {
        let said = by(READER, &[gid], line);
        assert_eq!(
            (said.code, said.stderr.as_str()),
            (Some(0), ""),
            "{line}: {said:?}"
        );
        assert_has(line, &said.stdout, &[&router.to_string()]);
    }
    fixture.state().assert_same(&before, "what is refused");
}
