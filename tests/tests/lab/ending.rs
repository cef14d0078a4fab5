//! What stays when the agent is told to end, and who may run beside whom.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Deref;

use conntrack_tests::agent::{Agent, Config, run_to_exit};
use conntrack_tests::durable::{BareRouter, stored};
use conntrack_tests::helpers::Rule;
use conntrack_tests::lab::Lab;
use conntrack_tests::router_lab::RouterLab;
use conntrack_tests::snapshot::{Snapshot, assert_same};
use conntrack_tests::wait;

struct Fixture {
    router: BareRouter,
    router_lab: RouterLab,
}

impl Deref for Fixture {
    type Target = RouterLab;

    fn deref(&self) -> &RouterLab {
        &self.router_lab
    }
}

impl Fixture {
    fn new() -> Self {
        let lab = Lab::new();
        let router = BareRouter::new(&lab);
        let router_lab = RouterLab::of(&lab, router.id(), router.netns(), &[Rule::ftp(21)]);
        Self { router, router_lab }
    }

    fn on_stop(&self, word: &str) -> Config {
        self.config().with("on_stop", format!("{word:?}"))
    }

    fn is_empty(&self) -> bool {
        self.router.in_kernel().is(&BTreeMap::new())
    }

    /// The kernel lets go of links when it gets round to it.
    fn assert_becomes_empty(&self) {
        let empty = || self.is_empty().then_some(());
        wait::until(wait::patience(), empty).expect("nothing is left");
    }

    fn assert_in_force(&self) {
        assert!(!self.is_empty());
        let mapping = stored(self.lab.dir()).expect("the store");
        self.router.assert_has(&mapping);
    }
}

#[test]
fn on_stop_cleanup_removes_the_datapath_and_the_next_start_makes_it_again() {
    let fixture = Fixture::new();
    let config = fixture.on_stop("cleanup");
    let state = fixture.lab.dir().state_dir();
    let agent = fixture.start_with(&config);
    fixture.assert_in_force();
    let [store, footprint] = ["mapping.redb", "footprint.json"].map(|name| state.join(name));
    let named = fs::read_to_string(&footprint).expect("the footprint");

    let exit = agent.stop();
    assert_eq!(exit.code, Some(0), "{exit:?}");
    assert!(
        exit.stderr
            .contains("removed 2 links, 1 instances, 1 bindings"),
        "{exit:?}"
    );
    fixture.assert_becomes_empty();
    assert!(store.exists() && state.join("audit.jsonl").exists());
    assert_eq!(
        fs::read_to_string(&footprint).expect("the footprint"),
        named
    );

    // The rules are the store's: no file is given.
    let agent = Agent::spawn(&fixture.lab, &config, None, &[])
        .ready()
        .expect("ready");
    fixture.assert_in_force();
    // Killed, it had no time for anything.
    assert_eq!(agent.kill().code, None);
    fixture.assert_in_force();
}

#[test]
fn on_stop_keep_is_the_default_and_leaves_it() {
    let fixture = Fixture::new();
    for config in [fixture.config(), fixture.on_stop("keep")] {
        let agent = fixture.start_with(&config);
        assert_eq!(agent.stop().code, Some(0));
        fixture.assert_in_force();
    }
    let exit = run_to_exit(&fixture.lab, &fixture.on_stop("sometimes"), "", &[]);
    assert_eq!(exit.code, Some(78), "{exit:?}");
    assert!(exit.stderr.contains("cleanup"), "what is allowed: {exit:?}");
}

#[test]
fn a_datapath_that_cannot_be_removed_is_said_and_cleanup_goes_on_with_it() {
    let fixture = Fixture::new();
    let refuse = fixture.lab.dir().path().join("refuse");
    let script = format!(
        "if [ -e {} ]; then echo 'Error: refused' >&2; exit 1; fi",
        refuse.display()
    );
    let config = fixture.on_stop("cleanup").with_nft(&fixture.lab, &script);
    let agent = fixture.start_with(&config);
    fs::write(&refuse, "").expect("a file");
    let exit = agent.stop();
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert!(
        exit.stderr.contains("the datapath is not removed"),
        "{exit:?}"
    );
    fs::remove_file(&refuse).expect("the file");
    fixture.assert_cleans_up();
    fixture.assert_becomes_empty();
}

#[test]
fn one_state_folder_is_one_agents_whatever_else_is_the_others() {
    let fixture = Fixture::new();
    let mut agent = fixture.start();
    let before = Snapshot::take(&fixture.lab, &[]);
    let elsewhere = |name: &str| {
        format!(
            "{:?}",
            fixture.lab.dir().path().join(name).to_string_lossy()
        )
    };
    let second = fixture.config().with("runtime_dir", elsewhere("other-run"));
    let exit = fixture.run_to_exit(&second);
    assert_eq!(exit.code, Some(1), "{exit:?}");
    let pid = agent.process().pid().as_raw_nonzero();
    for part in [
        format!("another agent is running (pid {pid}, "),
        "conntrack-agent, since 2".to_owned(),
        "state/lock".to_owned(),
    ] {
        assert!(exit.stderr.contains(&part), "{part:?}: {exit:?}");
    }
    assert_eq!(exit.stderr.lines().count(), 1, "one sentence: {exit:?}");
    assert!(!fixture.lab.dir().path().join("other-run").exists());
    assert_same(&before, &Snapshot::take(&fixture.lab, &[]));
    fixture.assert_in_force();

    // The twin: with a state folder of its own it runs.
    let third = second
        .with("state_dir", elsewhere("other-state"))
        .with("bpffs_dir", elsewhere("bpf/other"));
    let third = Agent::spawn(&fixture.lab, &third, None, &[])
        .ready()
        .expect("ready");
    assert_eq!(third.stop().code, Some(0));
    assert_eq!(agent.stop().code, Some(0));
}
