//! The client, and an agent that it asks.

use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError};

use conntrack_agent::model::{Helper, Port, Protocol, RuleTarget};
use conntrack_tests::agent::Exit;
use conntrack_tests::durable::{Rules, said, stored};
use conntrack_tests::python;
use conntrack_tests::served::Served;
use conntrack_tests::wait;
use serde_json::json;
use uuid::Uuid;

/// An operator's.
pub(super) const CI: &str = "c1-0123456789abcdef";
/// A reader's.
pub(super) const LOOK: &str = "look-0123456789abcdef";
/// One that no grant names.
pub(super) const STRAY: &str = "stray-0123456789abcdef";

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
        let remover = Command::new("sh")
            .args(["-c", "read -r _; rm -rf -- \"$1\"", "remover"])
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // What a terminal sends to end the tests is not for it.
            .process_group(0)
            .spawn()
            .expect("sh");
        Self {
            python: python::Environment::install(&folder, include_str!("requirements.txt")),
            folder,
            _remover: Mutex::new(remover),
        }
    }
}

/// A program of the environment, with nothing of this process's own environment and no
/// clouds.yaml of the machine's.
pub(super) fn command(program: &str) -> Command {
    let mut command = ENVIRONMENT.python.command(program);
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("LC_ALL", "C.UTF-8")
        .env("COLUMNS", "200")
        .env("HOME", &ENVIRONMENT.folder)
        .current_dir(&ENVIRONMENT.folder);
    command
}

/// Runs a command to its end.
pub(super) fn run(command: Command) -> Exit {
    Exit::of(command, wait::patience())
}

/// Asserts that a command failed as the client fails, and said this.
#[track_caller]
pub(super) fn assert_refused(ended: &Exit, asked: &str, code: i32, sentence: &str) {
    assert_eq!(ended.code, Some(code), "{asked}: {ended:?}");
    // The client breaks no lines in an error of the API's, argparse may.
    let text = ended
        .stderr
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    assert!(
        text.contains(sentence),
        "{asked}: no {sentence:?} in {ended:?}"
    );
    assert!(!text.contains("Traceback"), "{asked}: {ended:?}");
    assert!(ended.stdout.trim().is_empty(), "{asked}: {ended:?}");
}

/// A lab with one router and an agent that listens on TCP.
pub(super) struct Fixture {
    pub(super) served: Served,
    pub(super) router: String,
    pub(super) endpoint: String,
}

impl Fixture {
    pub(super) fn new() -> Self {
        // Made before the agent, which then has nothing to wait for.
        let tokens = ENVIRONMENT.folder.join(Uuid::new_v4().to_string());
        fs::write(&tokens, format!("ci:{CI}\nlook:{LOOK}\nstray:{STRAY}\n")).expect("the tokens");
        fs::set_permissions(&tokens, Permissions::from_mode(0o600)).expect("their mode");
        let one_at_a_time = PORTS.lock().unwrap_or_else(PoisonError::into_inner);
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = free.local_addr().expect("its address");
        drop(free);
        let tcp = format!(
            "{{ listen = \"{address}\", token_file = \"{}\" }}",
            tokens.display()
        );
        let grants =
            r#"[{ tokens = ["ci"], role = "operator" }, { tokens = ["look"], role = "reader" }]"#;
        let served = Served::with(|config| config.with("tcp", tcp).with("grant", grants));
        drop(one_at_a_time);
        Self {
            router: served.router.id().to_string(),
            endpoint: format!("http://{address}"),
            served,
        }
    }

    pub(super) fn openstack(&self, token: &str, words: &str) -> Exit {
        let mut command = command("openstack");
        command
            .env("OS_AUTH_TYPE", "admin_token")
            .env("OS_ENDPOINT", &self.endpoint)
            .env("OS_TOKEN", token)
            .args(words.split_whitespace());
        run(command)
    }

    /// A command about helper rules, as the operator.
    pub(super) fn helper(&self, words: &str) -> Exit {
        self.helper_as(CI, words)
    }

    pub(super) fn helper_as(&self, token: &str, words: &str) -> Exit {
        self.openstack(token, &format!("network l3 conntrack helper {words}"))
    }

    /// Makes a rule; its id.
    pub(super) fn made(&self, helper: &str, protocol: &str, port: u16) -> String {
        let rule = format!("--helper {helper} --protocol {protocol} --port {port}");
        let words = format!("create {} {rule} -f json", self.router);
        let shown = self.helper(&words).json();
        let id = shown["id"].as_str().expect("an id").to_owned();
        assert!(Uuid::parse_str(&id).is_ok(), "{shown}");
        let expected = json!({
            "helper": helper, "id": id, "name": null, "port": port, "protocol": protocol });
        assert_eq!(shown, expected);
        id
    }

    /// That the store says these, and the kernel has them.
    #[track_caller]
    pub(super) fn assert_settled(&self, rules: &[(&str, Protocol, i64)]) {
        let router = &self.served.router;
        let rules = rules.iter().map(|(helper, protocol, port)| RuleTarget {
            router: router.id(),
            port: Port::try_from(*port).expect("a port"),
            helper: Helper::new(helper, *protocol).expect("a helper"),
        });
        let rules: Rules = rules.collect();
        let mapping = stored(self.served.lab.dir()).expect("a good store");
        assert_eq!(said(&mapping), rules);
        router.assert_has(&mapping);
    }
}
