//! The store, damaged, lost, or on a full disk: said, and the rules in force stay.

mod damaged;
mod full_disk;

use std::fs;
use std::path::{Path, PathBuf};

use conntrack_agent::engine::Mapping;
use conntrack_agent::store::NAME;
use conntrack_tests::agent::{Agent, Config, Exit, Reload};
use conntrack_tests::durable::{BareRouter, InKernel, Rules, rules_file, said, stored};
use conntrack_tests::lab::Lab;
use fastrand::Rng;

use crate::crash::{any_rule, seed};

const PAGE: usize = 4096;

/// A lab with routers that have rules, and the store in which these are.
struct Fixture {
    routers: [BareRouter; 2],
    lab: Lab,
    rules: Rules,
}

/// How an agent ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Stop,
    Kill,
}

impl End {
    fn of(self, agent: Agent) {
        let code = match self {
            Self::Stop => agent.stop().code,
            Self::Kill => agent.kill().code,
        };
        assert_eq!(code, matches!(self, Self::Stop).then_some(0));
    }
}

impl Fixture {
    fn new() -> Self {
        let lab = Lab::new();
        let routers = [(); 2].map(|()| BareRouter::new(&lab));
        Self {
            routers,
            lab,
            rules: Rules::new(),
        }
    }

    /// With rules in force, and a lost store.
    fn lost() -> Self {
        let mut fixture = Self::new();
        fixture.use_store(&mut Rng::with_seed(seed()), End::Stop);
        fs::remove_file(fixture.store()).expect("a store to lose");
        fixture
    }

    /// Other rules, several times, by an agent that is ended then.
    fn use_store(&mut self, rng: &mut Rng, end: End) {
        let mut agent = Agent::start(&self.lab, &rules_file(&self.rules));
        for count in [30, 9, 12] {
            self.rules = self.some_rules(rng, count);
            assert_eq!(agent.reload(&rules_file(&self.rules)), Reload::Done);
        }
        end.of(agent);
    }

    fn some_rules(&self, rng: &mut Rng, count: usize) -> Rules {
        let rules = self.routers.iter().flat_map(|router| {
            let rules = (0..count).map(|_| any_rule(rng, router.id()));
            rules.collect::<Vec<_>>()
        });
        rules.collect()
    }

    fn store(&self) -> PathBuf {
        self.lab.dir().state_dir().join(NAME)
    }

    fn mapping(&self) -> Mapping {
        stored(self.lab.dir()).expect("a good store")
    }

    fn in_kernel(&self) -> Vec<InKernel> {
        self.routers.iter().map(BareRouter::in_kernel).collect()
    }

    /// What of the store was set aside.
    fn set_aside(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(self.lab.dir().state_dir()).expect("the state folder");
        let paths = files.map(|file| file.expect("a file").path());
        paths
            .filter(|path| path.to_string_lossy().contains("damaged"))
            .collect()
    }

    fn spawn(&self, rules: Option<&Rules>, arguments: &[&str]) -> Result<Agent, Exit> {
        let rules = rules.map(rules_file);
        let config = Config::of(&self.lab);
        Agent::spawn(&self.lab, &config, rules.as_deref(), arguments).ready()
    }

    /// Runs an agent, which is killed as soon as it is ready.
    fn run(&self, rules: Option<&Rules>, arguments: &[&str]) {
        let agent = self.spawn(rules, arguments);
        End::Kill.of(agent.unwrap_or_else(|exit| panic!("{arguments:?}: {exit:?}")));
    }

    /// Asserts that the store has these rules, and the kernel what it says.
    #[track_caller]
    fn assert_has(&self, rules: &Rules) {
        let mapping = self.mapping();
        assert_eq!(said(&mapping), *rules);
        for router in &self.routers {
            router.assert_has(&mapping);
        }
    }

    /// The agent must not start, and say why in one sentence with these words;
    /// the kernel stays as it is.
    fn assert_refused(&self, rules: Option<&Rules>, arguments: &[&str], words: &[&str]) {
        let before = self.in_kernel();
        let Err(exit) = self.spawn(rules, arguments) else {
            panic!("{arguments:?}: it started");
        };
        assert_refusal(&exit, words);
        assert_eq!(self.in_kernel(), before);
    }
}

fn assert_refusal(exit: &Exit, words: &[&str]) {
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert!(!exit.stderr.contains("panicked"), "{exit:?}");
    let lines = exit.stderr.lines();
    let said: Vec<_> = lines
        .filter(|line| line.starts_with("conntrack-agent:"))
        .collect();
    let [sentence] = said[..] else {
        panic!("one sentence: {exit:?}");
    };
    for word in words {
        assert!(sentence.contains(word), "it names {word:?}: {sentence}");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of the lab")
}

#[test]
fn a_lost_store_is_missed_and_rebuilt_on_request() {
    let mut rng = Rng::with_seed(seed());
    let mut fixture = Fixture::new();
    fixture.use_store(&mut rng, End::Stop);
    let store = fixture.store();
    let before = fixture.in_kernel();
    let rules = fixture.rules.clone();

    // There is nothing to rebuild yet.
    for from in ["pins", "rules"] {
        let words = [text(&store), "is good", "nothing to rebuild"];
        fixture.assert_refused(Some(&rules), &["--rebuild", from], &words);
        assert_eq!(said(&fixture.mapping()), rules);
    }

    let lose = || fs::remove_file(&store).expect("a store to lose");
    lose();
    for rules in [Some(&rules), None] {
        fixture.assert_refused(rules, &[], &[text(&store), "missing", "--rebuild"]);
        assert!(!store.exists());
    }

    // From the pins, with and without the file that once asked for them.
    for file in [None, Some(&rules)] {
        fixture.run(file, &["--rebuild", "pins"]);
        assert_eq!(fixture.in_kernel(), before, "the rules in force stay");
        let agent = fixture.spawn(None, &[]).expect("a start on the new store");
        End::Stop.of(agent);
        assert_eq!(fixture.in_kernel(), before, "and go on staying");
        lose();
    }

    // Without having been told first: it is set aside all the same.
    fs::write(&store, "damaged").expect("a damaged store");
    fixture.run(None, &["--rebuild", "pins"]);
    assert_eq!(fixture.in_kernel(), before);
    let aside = fixture.set_aside();
    let kept: Vec<_> = aside.iter().map(|path| fs::read(path).ok()).collect();
    assert_eq!(kept, [Some(b"damaged".to_vec())]);
    lose();

    // From another file: its rules, and no other.
    let other = fixture.some_rules(&mut rng, 5);
    fixture.run(Some(&other), &["--rebuild", "rules"]);
    fixture.assert_has(&other);
    assert_eq!(fixture.set_aside(), aside);
}

/// It has no store then, or one with the rules in force; with an empty one the
/// next start would take them all away.
#[test]
fn a_rebuild_that_fails_loses_no_rules() {
    let fixture = Fixture::lost();
    let before = fixture.in_kernel();
    let start = |rules: Option<&Rules>, arguments: &[&str]| {
        let limited = Config::of(&fixture.lab).with("limits", "{ rules_per_router = 3 }");
        let rules = rules.map(rules_file);
        Agent::spawn(&fixture.lab, &limited, rules.as_deref(), arguments).ready()
    };
    let Err(exit) = start(Some(&fixture.rules), &["--rebuild", "rules"]) else {
        panic!("more rules than are allowed");
    };
    assert!(exit.stderr.contains("3 are allowed"), "{exit:?}");
    assert_eq!(fixture.in_kernel(), before);
    drop(start(None, &[]));
    assert_eq!(fixture.in_kernel(), before);
}

/// No file is not an empty file.
#[test]
fn a_rebuild_from_rules_needs_a_rules_file() {
    let fixture = Fixture::lost();
    let before = fixture.in_kernel();
    drop(fixture.spawn(None, &["--rebuild", "rules"]));
    assert_eq!(fixture.in_kernel(), before);
}
