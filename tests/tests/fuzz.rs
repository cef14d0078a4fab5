//! The API against its own description, as schemathesis has it: requests that
//! the description allows and requests that it doesn't, by the thousand, and each
//! answer has to be one that the description knows.
//!
//! Needs a package index: schemathesis and what it needs are installed, in the
//! versions of `fuzz/requirements.txt`, into a virtual environment that is gone
//! afterwards.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "tests panic, where and with what they found"
)]

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use conntrack_tests::agent::{Agent, Config};
use conntrack_tests::curl::{Answer, curl};
use conntrack_tests::durable::{BareRouter, stored};
use conntrack_tests::lab::Lab;
use conntrack_tests::process::{Process, Stream};
use conntrack_tests::python;
use conntrack_tests::wait;
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

const TOKEN: &str = "b3f0c9e27d5a41688c1e";

/// As it is committed; the agent's own tests compare it with the code.
const COMMITTED: &str = include_str!("../../docs/openapi.json");

#[test]
fn the_agent_answers_as_its_description_says() {
    let schemathesis = Schemathesis::install();
    let fixture = Fixture::new();
    let served = fixture.ask("GET", "/v1/openapi.json", "");
    let committed: Value = serde_json::from_str(COMMITTED).expect("docs/openapi.json");
    assert_eq!(served.status, 200);
    assert!(
        served.body == committed,
        "what the agent serves is not docs/openapi.json"
    );

    // What would be found if it were there: a field that isn't of its type, and
    // a status that the description doesn't have.
    let mut wrong = committed.clone();
    let version = wrong.pointer_mut("/components/schemas/AgentStatus/properties/version/type");
    *version.expect("the type of a field") = json!("integer");
    let status = ["--include-path", "/v1/status"];
    let (code, said) = schemathesis.run(&fixture, &wrong, &status);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("Response violates schema"), "{said}");
    let mut wrong = committed.clone();
    let router = "/v2.0/routers/{router_id}";
    let responses = wrong["paths"][router]["get"]["responses"].as_object_mut();
    responses.expect("responses").remove("404");
    let (code, said) = schemathesis.run(&fixture, &wrong, &["--include-path", router]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("Undocumented status code"), "{said}");

    // Hundreds of requests that wait as long as they may would take hours.
    let mut quick = committed.clone();
    let parameters = quick["paths"]["/v1/events"]["get"]["parameters"].as_array_mut();
    let parameters = parameters.expect("parameters");
    let count = parameters.len();
    parameters.retain(|parameter| parameter["name"] != "wait");
    assert_eq!(parameters.len(), count - 1);
    let (code, said) = schemathesis.run(&fixture, &quick, &[]);
    assert_eq!(code, Some(0), "{said}");
    let operations: usize = committed["paths"]
        .as_object()
        .expect("paths")
        .values()
        .filter_map(|path| path.as_object().map(serde_json::Map::len))
        .sum();
    let tested = format!("Tested: {operations}");
    assert!(said.contains(&tested), "not {operations}: {said}");
    println!("{}", summary(&said));

    fixture.assert_unharmed();
}

/// The counts at the end of a run.
fn summary(said: &str) -> String {
    let counts = said.lines().filter(|line| {
        ["Tested:", "generated", "Stateful", "Fuzzing", "Coverage"]
            .iter()
            .any(|word| line.contains(word))
    });
    counts.map(str::trim).collect::<Vec<_>>().join("; ")
}

/// A lab with a router and rules of both kinds, and an agent that listens on TCP.
struct Fixture {
    agent: Agent,
    router: BareRouter,
    lab: Lab,
    address: SocketAddr,
    /// Ids of rules that are there at first.
    rules: Vec<String>,
    /// A router that isn't on this host.
    elsewhere: Uuid,
}

impl Fixture {
    fn new() -> Self {
        let lab = Lab::new();
        let router = BareRouter::new(&lab);
        let address = free_address();
        let tokens = lab.dir().path().join("tokens");
        fs::write(&tokens, format!("fuzz:{TOKEN}\n")).expect("the token file");
        fs::set_permissions(&tokens, fs::Permissions::from_mode(0o600)).expect("its mode");
        let tcp = format!(
            "{{ listen = \"{address}\", token_file = \"{}\" }}",
            tokens.display()
        );
        let grant = "[{ tokens = [\"fuzz\"], role = \"admin\" }]";
        let config = Config::of(&lab).with("tcp", tcp).with("grant", grant);
        let file = format!(
            "[[router]]\nid = \"{}\"\n\
             helpers = [{{ protocol = \"tcp\", port = 21, helper = \"ftp\" }}]\n",
            router.id()
        );
        let agent = Agent::start_with(&lab, &config, &file);
        let mut fixture = Self {
            agent,
            router,
            lab,
            address,
            rules: Vec::new(),
            elsewhere: Uuid::new_v4(),
        };
        let here = fixture.router.id().to_string();
        let rules = format!("/v2.0/routers/{here}/conntrack_helpers");
        let bulk = json!({ "conntrack_helpers": [
            { "protocol": "udp", "port": 69, "helper": "tftp" },
            { "protocol": "udp", "port": 5060, "helper": "sip" },
            { "protocol": "tcp", "port": 21, "helper": "sane" },
        ] });
        let made = fixture.ask("POST", &rules, &bulk.to_string());
        assert_eq!(made.status, 201, "{made:?}");
        let listed = fixture.ask("GET", &rules, "");
        let listed = listed.body["conntrack_helpers"].as_array().cloned();
        let ids = listed.expect("rules").into_iter();
        fixture.rules = ids
            .filter_map(|rule| rule["id"].as_str().map(str::to_owned))
            .collect();
        assert_eq!(fixture.rules.len(), 4);
        fixture
    }

    /// Over the Unix socket.
    fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        let socket = self.lab.dir().run_dir().join("agent.sock");
        curl(&socket, method, path, body)
    }

    /// That it still does what it is told, ends as it should, never panicked,
    /// and that the kernel has what the store has.
    fn assert_unharmed(self) {
        let none = self.ask("PUT", "/v1/conntrack_helpers", r#"{"routers":[]}"#);
        assert_eq!(none.status, 200, "{none:?}");
        let mapping = stored(self.lab.dir()).expect("a good store");
        assert_eq!(mapping.len(), 1, "the file's rule");
        self.router.assert_has(&mapping);
        let exit = self.agent.stop();
        assert_eq!(exit.code, Some(0), "{exit:?}");
        for trouble in ["panicked", "ERROR"] {
            assert!(!exit.stderr.contains(trouble), "{}", exit.stderr);
        }
    }
}

/// An address that nobody listens on.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("its address")
}

/// A virtual environment with schemathesis in it.
struct Schemathesis {
    folder: TempDir,
    python: python::Environment,
}

impl Schemathesis {
    fn install() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("conntrack-fuzz-")
            .tempdir()
            .expect("a folder");
        let python =
            python::Environment::install(folder.path(), include_str!("fuzz/requirements.txt"));
        Self { folder, python }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Tests the agent against this description; the exit code, and what it said.
    fn run(&self, fixture: &Fixture, description: &Value, only: &[&str]) -> (Option<i32>, String) {
        let (description_path, config) = (self.path("openapi.json"), self.path("config.toml"));
        fs::write(&description_path, description.to_string()).expect("the description");
        fs::write(&config, configuration(fixture)).expect("its configuration");
        let mut command = self.python.command("schemathesis");
        command
            .current_dir(self.folder.path())
            .arg("--config-file")
            .arg(config)
            .arg("run")
            .arg(description_path)
            .args(["--url", &format!("http://{}", fixture.address)])
            .args(["--header", &format!("X-Auth-Token: {TOKEN}")])
            .args(only);
        output(command)
    }
}

/// What is tried, and how hard. The seed makes every run the same.
fn configuration(fixture: &Fixture) -> String {
    let known = [
        &fixture.router.id().to_string(),
        &fixture.elsewhere.to_string(),
    ]
    .map(|id| format!("{id:?}"))
    .join(", ");
    let rules = fixture.rules.iter().map(|id| format!("{id:?}"));
    let rules = rules.collect::<Vec<_>>().join(", ");
    format!(
        r#"
seed = 1
color = false
continue-on-failure = true
request-timeout = 60
[generation]
max-examples = 40
database = "none"
[dictionaries.routers]
values = [{known}]
[dictionaries.rules]
values = [{rules}]
[parameters]
"path.router_id" = {{ dictionary = "routers", probability = 0.8 }}
"path.id" = {{ dictionary = "rules", probability = 0.8 }}
# A description can't say that a rule is there already, that a helper is not for
# a protocol, or that a marker is in no list: 400 is right for these as well.
[checks.positive_data_acceptance]
expected-statuses = ["2xx", 400, 401, 403, 404, 409]
"#
    )
}

fn output(command: Command) -> (Option<i32>, String) {
    let mut process = Process::start(None, command);
    let status = process
        .wait(2 * wait::patience())
        .unwrap_or_else(|error| panic!("{error}"));
    let said = process.text(Stream::Out) + &process.text(Stream::Err);
    (status.code(), said)
}
