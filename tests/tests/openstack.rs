//! OpenStack's own command line client against the agent, over TCP with a token.
//!
//! The client comes from `PyPI`, as it is, into a virtual environment that goes
//! with this program. What it can be asked about helper rules is asked; what it
//! says is compared with what the kernel and the store have.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "tests panic, where and with what they found"
)]

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use conntrack_agent::model::{Helper, Port, Protocol, RuleTarget};
use conntrack_tests::agent::{Agent, Config};
use conntrack_tests::durable::{BareRouter, Rules, said, stored};
use conntrack_tests::lab::Lab;
use conntrack_tests::process::{Process, Stream};
use conntrack_tests::python;
use conntrack_tests::wait;
use serde_json::{Value, json};
use uuid::Uuid;

/// An operator's.
const CI: &str = "c1-0123456789abcdef";
/// A reader's.
const LOOK: &str = "look-0123456789abcdef";
/// One that no grant names.
const STRAY: &str = "stray-0123456789abcdef";
/// One that isn't in the file.
const UNKNOWN: &str = "unknown-0123456789abcdef";

const NOWHERE: &str = "11111111-1111-4111-8111-111111111111";

/// The virtual environment, shared by the tests of this program.
struct Environment {
    folder: PathBuf,
    python: python::Environment,
    /// Removes the folder when this program has ended, however it has: then
    /// its standard input ends too. A static is never dropped.
    _remover: Mutex<Child>,
}

/// Held while an agent takes a port: it is free until the agent has it, and two
/// must not be given the same.
static PORTS: Mutex<()> = Mutex::new(());

static ENVIRONMENT: LazyLock<Environment> = LazyLock::new(Environment::new);

impl Environment {
    fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("conntrack-openstack-")
            .tempdir_in("/tmp")
            .expect("a folder for the client")
            .keep();
        let mut remover = Command::new("sh");
        remover
            .args(["-c", "read -r _; rm -rf -- \"$1\"", "remover"])
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // What a terminal sends to end the tests is not for it.
            .process_group(0);
        let remover = remover.spawn().expect("sh");

        let python =
            python::Environment::install(&folder, include_str!("openstack/requirements.txt"));
        Self {
            folder,
            python,
            _remover: Mutex::new(remover),
        }
    }

    /// A program of it, with nothing of this process's own
    /// environment and no clouds.yaml of the machine's.
    fn command(&self, program: &str) -> Command {
        let mut command = self.python.command(program);
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("LC_ALL", "C.UTF-8")
            .env("COLUMNS", "200")
            .env("HOME", &self.folder)
            .current_dir(&self.folder);
        command
    }
}

/// How a command ended.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ended {
    fn of(command: Command, limit: Duration) -> Self {
        let mut process = Process::start(None, command);
        let status = process
            .wait(limit)
            .unwrap_or_else(|error| panic!("{error}: {:?}", process.lines()));
        Self {
            code: status.code(),
            out: process.text(Stream::Out),
            err: process.text(Stream::Err),
        }
    }

    #[track_caller]
    fn good(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }

    #[track_caller]
    fn json(self) -> Value {
        let out = self.good();
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }

    /// That it failed as the client fails, and said this.
    #[track_caller]
    fn refused(&self, asked: &str, code: i32, sentence: &str) {
        assert_eq!(self.code, Some(code), "{asked}: {self:?}");
        // The client breaks no lines in an error of the API's, argparse may.
        let text = self.err.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            text.contains(sentence),
            "{asked}: no {sentence:?} in {self:?}"
        );
        assert!(!text.contains("Traceback"), "{asked}: {self:?}");
        assert!(self.out.trim().is_empty(), "{asked}: {self:?}");
    }
}

/// A lab with one router and an agent that listens on TCP.
struct Fixture {
    agent: Agent,
    router: BareRouter,
    endpoint: String,
    lab: Lab,
}

impl Fixture {
    fn new() -> Self {
        // Made before the agent, which then has nothing to wait for.
        LazyLock::force(&ENVIRONMENT);
        let lab = Lab::new();
        let router = BareRouter::new(&lab);
        let tokens = lab.dir().path().join("tokens");
        fs::write(&tokens, format!("ci:{CI}\nlook:{LOOK}\nstray:{STRAY}\n")).expect("the tokens");
        fs::set_permissions(&tokens, Permissions::from_mode(0o600)).expect("their mode");
        let one_at_a_time = PORTS.lock().unwrap_or_else(PoisonError::into_inner);
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = free.local_addr().expect("its address");
        drop(free);
        let tcp = format!(
            "{{ listen = \"{address}\", token_file = {:?} }}",
            tokens.display().to_string()
        );
        let grants =
            r#"[{ tokens = ["ci"], role = "operator" }, { tokens = ["look"], role = "reader" }]"#;
        let config = Config::of(&lab).with("tcp", tcp).with("grant", grants);
        let agent = Agent::spawn(&lab, &config, None, &[]).ready();
        let agent = agent.unwrap_or_else(|exit| panic!("not ready: {exit:?}"));
        drop(one_at_a_time);
        let endpoint = format!("http://{address}");
        Self {
            agent,
            router,
            endpoint,
            lab,
        }
    }

    fn router(&self) -> String {
        self.router.id().to_string()
    }

    fn openstack(&self, token: &str, words: &str) -> Ended {
        let mut command = ENVIRONMENT.command("openstack");
        command
            .env("OS_AUTH_TYPE", "admin_token")
            .env("OS_ENDPOINT", &self.endpoint)
            .env("OS_TOKEN", token)
            .args(words.split_whitespace());
        Ended::of(command, wait::patience())
    }

    /// A command about helper rules, as the operator.
    fn helper(&self, words: &str) -> Ended {
        self.helper_as(CI, words)
    }

    fn helper_as(&self, token: &str, words: &str) -> Ended {
        self.openstack(token, &format!("network l3 conntrack helper {words}"))
    }

    /// Makes a rule; its id.
    fn made(&self, helper: &str, protocol: &str, port: u16) -> String {
        let router = self.router();
        let shown = self.helper(&format!(
            "create {router} --helper {helper} --protocol {protocol} --port {port} -f json"
        ));
        let shown = shown.json();
        let id = shown["id"].as_str().expect("an id").to_owned();
        assert!(Uuid::parse_str(&id).is_ok(), "{shown}");
        let expected = json!({
            "helper": helper, "id": id, "name": null, "port": port, "protocol": protocol });
        assert_eq!(shown, expected);
        id
    }

    /// That the store says these, and the kernel has them.
    #[track_caller]
    fn assert_settled(&self, rules: &[(&str, Protocol, i64)]) {
        let rules = rules.iter().map(|(helper, protocol, port)| RuleTarget {
            router: self.router.id(),
            port: Port::try_from(*port).expect("a port"),
            helper: Helper::new(helper, *protocol).expect("a helper"),
        });
        let rules: Rules = rules.collect();
        let mapping = stored(self.lab.dir()).expect("a good store");
        assert_eq!(said(&mapping), rules);
        self.router.assert_has(&mapping);
    }
}

#[test]
fn a_rule_is_made_listed_shown_changed_and_removed() {
    let fixture = Fixture::new();
    let router = fixture.router();
    fixture.assert_settled(&[]);
    assert_eq!(
        fixture.helper(&format!("list {router} -f json")).json(),
        json!([])
    );
    let ftp = fixture.made("ftp", "tcp", 21);
    fixture.assert_settled(&[("ftp", Protocol::Tcp, 21)]);
    let tftp = fixture.made("tftp", "udp", 69);
    let both = [("ftp", Protocol::Tcp, 21), ("tftp", Protocol::Udp, 69)];
    fixture.assert_settled(&both);

    let row = |id: &str, helper: &str, protocol: &str, port: u16| json!({ "ID": id, "Router ID": router, "Helper": helper, "Protocol": protocol, "Port": port });
    let rows = |words: &str| -> BTreeSet<String> {
        let listed = fixture.helper(&format!("list {router} {words} -f json"));
        let listed = listed.json();
        let listed = listed.as_array().expect("rules").iter();
        listed.map(Value::to_string).collect()
    };
    let first = row(&ftp, "ftp", "tcp", 21).to_string();
    let second = row(&tftp, "tftp", "udp", 69).to_string();
    let all = BTreeSet::from([first.clone(), second.clone()]);
    assert_eq!(rows(""), all);
    assert_eq!(rows("--helper ftp"), BTreeSet::from([first.clone()]));
    assert_eq!(rows("--protocol udp"), BTreeSet::from([second.clone()]));
    assert_eq!(rows("--protocol udp --helper ftp"), BTreeSet::new());
    // A page has one rule, and the client asks for all of them.
    assert_eq!(rows("--limit 1"), all);
    let (earlier, later) = if ftp < tftp {
        (&ftp, second)
    } else {
        (&tftp, first)
    };
    assert_eq!(
        rows(&format!("--marker {earlier}")),
        BTreeSet::from([later])
    );
    // For people.
    let table = fixture.helper(&format!("list {router}")).good();
    for word in ["| ID ", "| Router ID ", "| Helper ", &ftp, &tftp, &router] {
        assert!(table.contains(word), "no {word:?} in {table}");
    }
    let shown = fixture.helper(&format!("show {router} {tftp} -f value -c helper -c port"));
    assert_eq!(shown.good(), "tftp\n69\n");

    let changed = fixture.helper(&format!("set {router} {ftp} --port 2121"));
    assert_eq!(changed.good(), "");
    fixture.assert_settled(&[("ftp", Protocol::Tcp, 2121), ("tftp", Protocol::Udp, 69)]);
    let changed = fixture.helper(&format!("set {router} {ftp} --helper sip --protocol udp"));
    assert_eq!(changed.good(), "");
    fixture.assert_settled(&[("sip", Protocol::Udp, 2121), ("tftp", Protocol::Udp, 69)]);
    let shown = fixture
        .helper(&format!("show {router} {ftp} -f json"))
        .json();
    let expected =
        json!({ "helper": "sip", "id": ftp, "name": null, "port": 2121, "protocol": "udp" });
    assert_eq!(shown, expected, "it is still the same rule");

    // The good one goes, whatever else the command asks for.
    let removed = fixture.helper(&format!("delete {router} {NOWHERE} {ftp}"));
    let missing = format!("Conntrack helper {NOWHERE} could not be found");
    removed.refused("delete", 1, &missing);
    removed.refused("delete", 1, "1 of 2 L3 conntrack helpers failed to delete");
    fixture.assert_settled(&[("tftp", Protocol::Udp, 69)]);
    let removed = fixture.helper(&format!("delete {router} {tftp}"));
    assert_eq!(removed.good(), "");
    fixture.assert_settled(&[]);
    assert_eq!(rows(""), BTreeSet::new());
}

#[test]
fn what_is_wrong_is_refused_with_a_reason_and_changes_nothing() {
    let fixture = Fixture::new();
    let router = fixture.router();
    let id = fixture.made("ftp", "tcp", 21);
    let create = |router: &str, helper: &str, protocol: &str, port: &str| {
        format!("create {router} --helper {helper} --protocol {protocol} --port {port}")
    };
    let no_router = format!("No Router found for {NOWHERE}");
    let no_rule = format!("Conntrack helper {NOWHERE} could not be found");
    let taken = format!("has ftp on tcp port 21 already, as rule {id}");
    #[rustfmt::skip]
    let rows = [
        // The first five are the client's own words.
        (create(NOWHERE, "ftp", "tcp", "21"), 1, no_router.as_str()),
        (format!("list {NOWHERE}"), 1, &no_router),
        (format!("delete {NOWHERE} {id}"), 1, &no_router),
        (create("nobody", "ftp", "tcp", "21"), 1, "No Router found for nobody"),
        (create(&router, "ftp", "tcp", "abc"), 2, "argument --port: invalid int value: 'abc'"),
        // It leaves out what Python takes for false.
        (create(&router, "ftp", "tcp", "0"), 1, "the body is refused: missing field `port`"),
        (create(&router, "ftp", "tcp", "65536"), 1, "port 65536 is out of range; 1 to 65535 are allowed"),
        (create(&router, "ftp", "tcp", "-1"), 1, "port -1 is out of range; 1 to 65535 are allowed"),
        (create(&router, "gopher", "tcp", "70"), 1, "there is no helper \"gopher\"; ftp, tftp, "),
        (create(&router, "ftp", "udp", "21"), 1, "helper ftp does not exist for udp; it is for tcp"),
        (create(&router, "ftp", "sctp", "21"), 1, "\"sctp\" is no protocol; \"tcp\" and \"udp\" are"),
        (create(&router, "ftp", "tcp", "21"), 1, &taken),
        (format!("show {router} {NOWHERE}"), 1, &no_rule),
        (format!("show {router} x"), 1, "Conntrack helper x could not be found"),
        (format!("set {router} {NOWHERE} --port 22"), 1, &no_rule),
        (format!("delete {router} {NOWHERE}"), 1, &no_rule),
        (format!("set {router} {id} --port 65536"), 1, "port 65536 is out of range; 1 to 65535 are allowed"),
        (format!("set {router} {id} --helper gopher"), 1, "there is no helper \"gopher\""),
        (format!("set {router} {id} --protocol udp"), 1, "helper ftp does not exist for udp; it is for tcp"),
        (format!("list {router} --limit 0"), 1, "limit is \"0\"; a whole number from 1 to 10000 is wanted"),
        (format!("list {router} --marker {NOWHERE}"), 1, "which is the id of no item of this list"),
    ];
    for (words, code, sentence) in rows {
        fixture.helper(&words).refused(&words, code, sentence);
    }
    // Here the client has nothing left to ask for, and doesn't.
    assert_eq!(
        fixture
            .helper(&format!("set {router} {id} --port 0"))
            .good(),
        ""
    );
    fixture.assert_settled(&[("ftp", Protocol::Tcp, 21)]);
}

#[test]
fn a_token_allows_what_its_grant_says() {
    let fixture = Fixture::new();
    let router = fixture.router();
    let id = fixture.made("ftp", "tcp", 21);
    let reader = "grant 2 (role reader) allows no change";
    let changes = [
        format!("create {router} --helper tftp --protocol udp --port 69"),
        format!("set {router} {id} --port 2121"),
        format!("delete {router} {id}"),
    ];
    for words in &changes {
        fixture.helper_as(LOOK, words).refused(words, 1, reader);
    }
    let list = format!("list {router} -f value -c ID");
    let seen = fixture.helper_as(LOOK, &list).good();
    assert_eq!(seen, format!("{id}\n"), "a reader reads");
    for (token, sentence) in [
        (UNKNOWN, "the token is not known"),
        (STRAY, "no grant names token \"stray\""),
        // keystoneauth's own.
        ("", "missing 1 required positional argument: 'token'"),
    ] {
        for words in [&changes[0], &list] {
            let refused = fixture.helper_as(token, words);
            refused.refused(words, 1, sentence);
            assert!(token.is_empty() || !refused.err.contains(token));
        }
    }
    // A client that sends none asks for the versions, and keeps to itself why
    // it didn't get them.
    let without = |words: &str| {
        let mut command = ENVIRONMENT.command("openstack");
        command
            .env("OS_AUTH_TYPE", "none")
            .env("OS_ENDPOINT", &fixture.endpoint)
            .args(["network", "l3", "conntrack", "helper"])
            .args(words.split_whitespace());
        Ended::of(command, wait::patience())
    };
    without(&list).refused(&list, 1, "Unable to find a version discovery document");
    let why = without(&format!("{list} --debug"));
    assert_eq!(why.code, Some(1), "{why:?}");
    assert!(
        why.err
            .contains("a token is wanted, in the header X-Auth-Token"),
        "{why:?}"
    );
    fixture.assert_settled(&[("ftp", Protocol::Tcp, 21)]);

    // Nor does the agent tell anybody.
    let Fixture { agent, .. } = fixture;
    let exit = agent.stop();
    assert_eq!(exit.code, Some(0), "{exit:?}");
    assert!(exit.stderr.contains("ready"), "{exit:?}");
    for token in [CI, LOOK, STRAY, UNKNOWN] {
        assert!(!exit.stderr.contains(token) && !exit.stdout.contains(token));
    }
}

/// What keystoneauth makes of the answers, as clients other than this one do.
const DISCOVER: &str = r"
import json, sys
from keystoneauth1 import discover, session, token_endpoint
auth = token_endpoint.Token(sys.argv[1], sys.argv[2])
client = session.Session(auth=auth)
found = discover.get_discovery(client, sys.argv[1])
endpoint = auth.get_endpoint_data(client, service_type='network')
resources = client.get(endpoint.url).json()['resources']
print(json.dumps({
    'versions': [[one['url'], one['status']] for one in found.version_data()],
    'second': found.url_for('2'),
    'third': found.url_for('3'),
    'endpoint': [endpoint.url, list(endpoint.api_version)],
    'resources': [one['collection'] for one in resources],
}))
";

#[test]
fn the_version_and_routers_are_found() {
    let fixture = Fixture::new();
    let router = fixture.router();
    let mut command = ENVIRONMENT.command("python");
    command.args(["-c", DISCOVER, &fixture.endpoint, CI]);
    let version = format!("{}/v2.0/", fixture.endpoint);
    let expected = json!({
        "versions": [[version, "CURRENT"]],
        "second": version,
        "third": null,
        "endpoint": [version, [2, 0]],
        "resources": ["routers"],
    });
    assert_eq!(Ended::of(command, wait::patience()).json(), expected);

    // The endpoint may name the version, or not. (After "/v2.0/" openstacksdk
    // puts another v2.0, whatever server it is.)
    for end in ["/", "/v2.0"] {
        let mut command = ENVIRONMENT.command("openstack");
        command
            .args(["--os-auth-type", "admin_token", "--os-token", CI])
            .args(["--os-endpoint", &format!("{}{end}", fixture.endpoint)])
            .args(["network", "l3", "conntrack", "helper", "list", &router])
            .args(["-f", "json"]);
        assert_eq!(
            Ended::of(command, wait::patience()).json(),
            json!([]),
            "{end}"
        );
    }

    let named = |name: &str| {
        let words = format!("router list --name {name} -f value -c ID -c Name -c Status");
        fixture.openstack(CI, &words).good()
    };
    assert_eq!(named(&router), format!("{router} {router} ACTIVE\n"));
    assert_eq!(named("nobody").trim(), "");

    // Nothing else is asked for on the way.
    let words = format!("create {router} --helper ftp --protocol tcp --port 21 --debug");
    let said = fixture.helper(&words);
    assert_eq!(said.code, Some(0), "{said:?}");
    let asked = said.err.lines().filter_map(|line| {
        let (_, request) = line.split_once("REQ: curl -g -i -X ")?;
        let mut words = request.split_whitespace();
        Some(format!("{} {}", words.next()?, words.next()?))
    });
    let of_router = format!("{version}routers/{router}");
    assert_eq!(
        asked.collect::<Vec<_>>(),
        [
            format!("GET {of_router}"),
            format!("POST {of_router}/conntrack_helpers")
        ]
    );
    fixture.assert_settled(&[("ftp", Protocol::Tcp, 21)]);
}
