//! The agent and its service manager.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use conntrack_tests::agent::{Agent, Config, Exit};
use conntrack_tests::curl::curl;
use conntrack_tests::durable::BareRouter;
use conntrack_tests::helpers::Rule;
use conntrack_tests::lab::Lab;
use conntrack_tests::manager::Manager;
use conntrack_tests::served::rules_of;
use conntrack_tests::wait;
use rustix::process::Signal;

/// A lab with a manager and a router, and an nft that a test can hold up.
struct Fixture {
    manager: Manager,
    router: BareRouter,
    config: Config,
    lab: Lab,
}

impl Fixture {
    /// `script` runs before each nft, in the lab's directory.
    fn new(script: &str) -> Self {
        let lab = Lab::new();
        let directory = lab.dir().path().display();
        let script = format!("cd {directory}\n{script}");
        Self {
            manager: Manager::new(&lab),
            router: BareRouter::new(&lab),
            config: Config::of(&lab).with_nft(&lab, &script),
            lab,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.lab.dir().path().join(name)
    }

    fn rules(&self, port: u16) -> String {
        self.router.rules_file(&[Rule::ftp(port)])
    }

    /// Rules with a fault: a port that there is not.
    fn faulty(&self) -> String {
        self.rules(21).replace("port = 21", "port = 65536")
    }

    /// Does not wait for it.
    fn launch(&self, variables: &[&str], rules: Option<&str>) -> Agent {
        let launcher = self.manager.launcher(variables);
        let launcher: Vec<_> = launcher.iter().map(String::as_str).collect();
        Agent::launch(&self.lab, &self.config, rules, &launcher)
    }

    /// A change over the API, on its own thread's time.
    fn change(&self, port: u16) -> u16 {
        let path = rules_of(self.router.id());
        let body = format!(
            r#"{{"conntrack_helper": {{"protocol": "tcp", "port": {port}, "helper": "ftp"}}}}"#
        );
        curl(&self.lab.dir().socket(), "POST", &path, &body).status
    }
}

fn assert_success(exit: &Exit) {
    assert_eq!(exit.code, Some(0), "{exit:?}");
}

#[test]
fn the_manager_is_told_of_readiness_reload_and_end() {
    let fixture = Fixture::new("env >> environment");
    let manager = &fixture.manager;
    let mut agent = fixture.launch(&[], Some(&fixture.rules(21)));
    let first = manager.next(wait::patience()).expect("a message");
    assert!(first.has("READY=1"), "nothing comes before it: {first:?}");
    let status = "rules: 1, routers: 1, pending: 0, failed: 0";
    assert_eq!(first.value("STATUS"), status);
    // At that moment all is in force, and requests are answered.
    let socket = fixture.lab.dir().socket();
    assert_eq!(curl(&socket, "GET", "/v1/status", "").status, 200);
    let there = fixture.router.in_kernel();
    assert!(!there.is(&std::collections::BTreeMap::new()), "{there:?}");

    agent.process().signal(Signal::HUP);
    let reloading = manager.wait_for("RELOADING=1");
    let time: u64 = reloading.value("MONOTONIC_USEC").parse().expect("a time");
    assert!(time > 0);
    let done = manager.next(wait::patience()).expect("a message");
    assert!(done.has("READY=1"), "the reload has an end: {done:?}");
    assert_eq!(done.value("STATUS"), status);

    fs::write(fixture.file("rules.toml"), fixture.faulty()).expect("the rules file");
    agent.process().signal(Signal::HUP);
    let _begun = manager.wait_for("RELOADING=1");
    let refused = manager.next(wait::patience()).expect("a message");
    assert!(refused.has("READY=1"), "this one too: {refused:?}");
    let said = refused.value("STATUS");
    assert!(
        said.starts_with("reload refused: ") && said.contains("65536"),
        "{said}"
    );

    // A change is said, once.
    assert_eq!(fixture.change(2121), 201);
    let _said = manager.wait_for("STATUS=rules: 2, routers: 1, pending: 0, failed: 0");
    assert_success(&agent.stop());
    let said: Vec<_> = manager.all(Duration::from_millis(100));
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].has("STOPPING=1"), "{said:?}");
    assert!(
        said[0].value("STATUS").contains("the datapath stays"),
        "{said:?}"
    );

    // nft is none of the manager's.
    let environment = fs::read_to_string(fixture.file("environment")).expect("nft was run");
    assert!(environment.contains("LC_ALL=C"));
    assert!(!environment.contains("NOTIFY_SOCKET"), "{environment}");
}

#[test]
fn a_start_that_fails_is_never_ready_and_says_why() {
    let fixture = Fixture::new("");
    let exit = fixture.launch(&[], Some(&fixture.faulty())).end();
    assert_eq!(exit.code, Some(78), "{exit:?}");
    let said = fixture.manager.all(Duration::from_millis(100));
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(!said[0].has("READY=1"), "{said:?}");
    assert!(said[0].value("STATUS").contains("65536"), "{said:?}");
}

const OWN_PID: [&str; 4] = ["sh", "-c", "WATCHDOG_PID=$$ exec \"$@\"", "sh"];

#[test]
fn the_watchdog_is_told_only_while_the_agents_thread_gets_on() {
    // A change's nft waits while there is a file that says so.
    let fixture = Fixture::new("[ -e hold ] && touch held; while [ -e hold ]; do sleep .05; done");
    let mut variables = vec!["WATCHDOG_USEC=400000"];
    variables.extend(OWN_PID);
    let agent = fixture.launch(&variables, None);
    let manager = &fixture.manager;
    let _ready = manager.wait_for("READY=1");
    for _ in 0..5 {
        // Idle, it lives.
        let _alive = manager.wait_for("WATCHDOG=1");
    }
    fs::write(fixture.file("hold"), "").expect("a file");
    std::thread::scope(|scope| {
        let change = scope.spawn(|| fixture.change(21));
        let held = || fixture.file("held").exists().then_some(());
        wait::until(wait::patience(), held).expect("nft is held up");
        // A slow machine may have taken many ticks to get here.
        manager.forget();
        let while_held = manager.all(Duration::from_secs(3));
        fs::remove_file(fixture.file("hold")).expect("the file");
        let alive = while_held
            .iter()
            .filter(|message| message.has("WATCHDOG=1"));
        let alive = alive.count();
        // Of 15 ticks: one for what it did before.
        assert!(alive <= 1, "{alive} times while it hung");
        assert_eq!(change.join().expect("an answer"), 201);
    });
    let _again = manager.wait_for("WATCHDOG=1");
    let exit = agent.stop();
    assert_success(&exit);
    assert!(exit.stderr.contains("shows no life"), "{exit:?}");
}

#[test]
fn a_long_pass_is_no_hanging() {
    let fixture = Fixture::new("sleep .1");
    let others: Vec<_> = (0..20).map(|_| BareRouter::new(&fixture.lab)).collect();
    let rules = others
        .iter()
        .map(|router| router.rules_file(&[Rule::ftp(21)]));
    let rules: String = rules.collect();
    let mut variables = vec!["WATCHDOG_USEC=2000000"];
    variables.extend(OWN_PID);
    let mut agent = fixture.launch(&variables, Some(""));
    let manager = &fixture.manager;
    let _ready = manager.wait_for("READY=1");
    fs::write(fixture.file("rules.toml"), rules).expect("the rules file");
    agent.process().signal(Signal::HUP);
    let begun = manager.wait_for("RELOADING=1").at;
    let mut alive = 0;
    let ended = loop {
        let message = manager.next(wait::patience()).expect("a message");
        if message.has("READY=1") {
            break message.at;
        }
        alive += usize::from(message.has("WATCHDOG=1"));
    };
    let took = ended - begun;
    println!("a pass of {took:?}: {alive} signs of life");
    assert!(
        took > Duration::from_secs(2),
        "long enough to tell: {took:?}"
    );
    assert!(alive >= 1, "none in {took:?}");
    let exit = agent.stop();
    assert_success(&exit);
    assert!(!exit.stderr.contains("shows no life"), "{exit:?}");
}

#[test]
fn a_watchdog_of_another_process_is_none_of_the_agents() {
    let fixture = Fixture::new("");
    let variables = ["WATCHDOG_USEC=200000", "WATCHDOG_PID=1"];
    let agent = fixture.launch(&variables, None);
    let _ready = fixture.manager.wait_for("READY=1");
    let said = fixture.manager.all(Duration::from_secs(1));
    assert!(said.is_empty(), "{said:?}");
    assert_success(&agent.stop());
}

#[test]
fn a_start_is_left_where_it_is_when_the_agent_is_told_to_end() {
    let fixture = Fixture::new("[ -e hold ] && touch held; while [ -e hold ]; do sleep .05; done");
    // Rules in the store, and nothing in the kernel.
    let cleaned = fixture.config.clone().with("on_stop", "\"cleanup\"");
    let rules = fixture.rules(21);
    let first = Agent::launch(&fixture.lab, &cleaned, Some(&rules), &[]);
    let first = first.ready().expect("ready");
    assert_success(&first.stop());
    let nothing = std::collections::BTreeMap::new();
    assert!(fixture.router.in_kernel().is(&nothing));

    fs::write(fixture.file("hold"), "").expect("a file");
    let mut agent = fixture.launch(&[], None);
    let held = || fixture.file("held").exists().then_some(());
    wait::until(wait::patience(), held).expect("nft is held up");
    // Neither early signal is lost, and the reload doesn't end it.
    agent.process().signal(Signal::HUP);
    agent.process().signal(Signal::TERM);
    fs::remove_file(fixture.file("hold")).expect("the file");
    assert_success(&agent.end());
    assert!(fixture.router.in_kernel().is(&nothing), "nothing was begun");

    // The twin: not told to end, it goes on.
    let agent = fixture.launch(&[], None).ready().expect("ready");
    assert!(!fixture.router.in_kernel().is(&nothing));
    assert_success(&agent.stop());
}
