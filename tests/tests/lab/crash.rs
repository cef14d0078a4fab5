//! The agent is killed at any moment: what it has acknowledged is kept, a change
//! in flight has happened or not, and the next start makes the kernel follow.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use conntrack_agent::engine::Mapping;
use conntrack_agent::model::{Helper, Origin, Port, RouterId, RuleTarget};
use conntrack_agent::store::StoreError;
use conntrack_tests::agent::{Agent, Config, Reload};
use conntrack_tests::durable::{BareRouter, Rules, rules_file, said, stored};
use conntrack_tests::lab::Lab;
use fastrand::Rng;

const RUNS: u64 = 300;
const LABS: u64 = 4;
const ROUTERS: usize = 4;
const FIRST_STARTS: u64 = 100;

/// How long it takes from a signal to the change's being on disk, roughly: half
/// of the kills are aimed there.
const COMMITTING: Duration = Duration::from_millis(6);

/// Of what a test does at random. The system's moments are not repeatable; with
/// the same `CONNTRACK_SEED` the changes and the waiting times are.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("CONNTRACK_SEED").ok();
    let seed = given.and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    // Shown when the test fails.
    eprintln!("CONNTRACK_SEED={seed}");
    seed
}

#[test]
fn whenever_it_is_killed_the_store_is_whole_and_the_kernel_follows_it() {
    let seed = seed();
    let tally = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for number in 0..LABS {
            let tally = &tally;
            scope.spawn(move || {
                let mut victim = Victim::new(Rng::with_seed(seed.wrapping_add(number)));
                for run in 0..RUNS / LABS {
                    eprintln!("lab {number}, run {run}");
                    let fate = victim.run();
                    tally.lock().expect("no other panic").push(fate);
                }
                victim.assert_restarts();
            });
        }
    });
    let tally = tally.into_inner().expect("no panic");
    let count = |fate| tally.iter().filter(|of| **of == fate).count() as u64;
    let (done, undone) = (count(Fate::Done), count(Fate::Undone));
    eprintln!("of {RUNS} changes {done} happened and {undone} did not, unanswered");
    assert!(4 * (done + undone) >= RUNS, "in flight: {done} + {undone}");
    assert!(done > 0 && undone > 0, "in flight: {done} + {undone}");
}

/// What became of the last change before a kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It had been acknowledged, or there was none.
    Answered,
    /// It was in flight, and has happened.
    Done,
    /// It was in flight, and has not.
    Undone,
}

/// Its folders may be half made, its store may not be there yet: that is no loss.
#[test]
fn a_first_start_that_is_killed_is_a_first_start_again() {
    let seed = seed();
    let stores = AtomicUsize::new(0);
    thread::scope(|scope| {
        for number in 0..LABS {
            let stores = &stores;
            scope.spawn(move || {
                let mut rng = Rng::with_seed(seed.wrapping_add(number));
                let mut start = Duration::from_millis(60);
                for _ in 0..FIRST_STARTS / LABS {
                    let made = kill_first_starts(&mut rng, &mut start);
                    stores.fetch_add(usize::from(made), Ordering::Relaxed);
                }
            });
        }
    });
    let stores = stores.into_inner();
    eprintln!("{stores} of {FIRST_STARTS} had made a store before they were killed");
    assert!(stores > 0);
}

/// Kills some starts, before each would be ready: by how long the last one took.
/// Returns whether one had made a store.
fn kill_first_starts(rng: &mut Rng, start: &mut Duration) -> bool {
    let lab = Lab::new();
    let router = BareRouter::new(&lab);
    let asked: Rules = (0..9).map(|_| any_rule(rng, router.id())).collect();
    let file = rules_file(&asked);
    let config = Config::of(&lab);
    for _ in 0..rng.usize(1..=3) {
        let agent = Agent::spawn(&lab, &config, Some(&file), &[]);
        thread::sleep(start.mul_f64(rng.f64()));
        let exit = agent.kill();
        assert_eq!(exit.code, None, "a signal ended it: {exit:?}");
    }
    let left = match stored(lab.dir()) {
        Ok(mapping) => Some(said(&mapping)),
        Err(StoreError::Missing { .. }) => None,
        Err(error) => panic!("a kill did this: {error:?}"),
    };
    let left_rules = left.clone().unwrap_or_default();
    assert!(left_rules.is_empty() || left_rules == asked, "{left:?}");

    let (rules, wanted) = if rng.bool() {
        (Some(&*file), asked)
    } else {
        (None, left_rules)
    };
    let begun = Instant::now();
    let agent = Agent::spawn(&lab, &config, rules, &[]).ready();
    let _agent = agent.unwrap_or_else(|exit| panic!("no start after a kill: {exit:?}"));
    *start = begun.elapsed();
    let mapping = stored(lab.dir()).expect("the store of a running agent");
    assert_eq!(said(&mapping), wanted);
    router.assert_has(&mapping);
    left.is_some()
}

/// A lab whose agent is killed again and again.
struct Victim {
    routers: Vec<BareRouter>,
    lab: Lab,
    rng: Rng,
    /// What was acknowledged last.
    acknowledged: Rules,
    /// The store, when it was read last.
    known: Mapping,
    /// What of it has been asked for ever since.
    kept: Rules,
    /// How long it took last from a start to ready, and from a signal to its answer.
    start: Duration,
    reload: Duration,
}

impl Victim {
    fn new(rng: Rng) -> Self {
        let lab = Lab::new();
        let routers: Vec<_> = (0..ROUTERS).map(|_| BareRouter::new(&lab)).collect();
        let begun = Instant::now();
        let agent = Agent::start(&lab, "");
        let start = begun.elapsed();
        assert_eq!(agent.stop().code, Some(0));
        Self {
            routers,
            lab,
            rng,
            acknowledged: Rules::new(),
            known: Mapping::default(),
            kept: Rules::new(),
            start,
            reload: start,
        }
    }

    /// A start, some changes, and the kill.
    fn run(&mut self) -> Fate {
        let mut asked = self.acknowledged.clone();
        if self.rng.bool() {
            asked = self.changed();
        }
        let config = Config::of(&self.lab);
        let begun = Instant::now();
        let agent = Agent::spawn(&self.lab, &config, Some(&rules_file(&asked)), &[]);
        if self.rng.u8(..6) == 0 {
            thread::sleep(self.start.mul_f64(self.rng.f64()));
            return self.kill(agent, &asked, "ready rules=", 1);
        }
        let mut agent = agent
            .ready()
            .unwrap_or_else(|exit| panic!("no start after a kill: {exit:?}"));
        self.start = begun.elapsed();
        self.acknowledge(asked);
        self.assert_kernel_follows();

        let before = self.rng.usize(..3);
        for _ in 0..before {
            let asked = self.changed();
            let begun = Instant::now();
            assert_eq!(agent.reload(&rules_file(&asked)), Reload::Done);
            self.reload = begun.elapsed();
            self.acknowledge(asked);
        }
        let asked = self.changed();
        let moment = self.moment();
        // It may answer before.
        drop(agent.reload_within(moment, &rules_file(&asked)));
        self.kill(agent, &asked, "reloaded rules=", before + 1)
    }

    /// Kills the agent and looks at what it has left; what it was asked last, it
    /// has answered if it has given so many answers.
    fn kill(&mut self, agent: Agent, asked: &Rules, answer: &str, answers: usize) -> Fate {
        let exit = agent.kill();
        assert_eq!(exit.code, None, "a signal ended it: {exit:?}");
        assert!(!exit.stderr.contains("panicked"), "{exit:?}");
        let lines = exit.stderr.lines();
        let answered = lines.filter(|line| line.contains(answer)).count() == answers;
        let has_change = *asked != self.acknowledged;
        if answered {
            self.acknowledge(asked.clone());
        }
        let mapping = stored(self.lab.dir());
        let mapping = mapping.unwrap_or_else(|error| panic!("a kill did this: {error:?}"));
        let there = said(&mapping);
        assert!(
            there == *asked || there == self.acknowledged,
            "a change is there in part:\nbefore: {:?}\nafter: {asked:?}\nthere: {there:?}",
            self.acknowledged
        );
        let fate = match (!answered && has_change, there == *asked) {
            (false, _) => Fate::Answered,
            (true, true) => Fate::Done,
            (true, false) => Fate::Undone,
        };
        self.acknowledge(there);
        self.learn(mapping);
        if self.rng.bool() {
            self.assert_restarts();
        }
        fate
    }

    /// Starts the agent on nothing but its store.
    fn assert_restarts(&mut self) {
        let agent = Agent::spawn(&self.lab, &Config::of(&self.lab), None, &[]);
        let agent = agent
            .ready()
            .unwrap_or_else(|exit| panic!("no start without rules: {exit:?}"));
        let before = self.known.clone();
        self.assert_kernel_follows();
        assert_eq!(self.known, before, "a start without rules changes none");
        if self.rng.bool() {
            assert_eq!(agent.stop().code, Some(0));
        } else {
            assert_eq!(agent.kill().code, None);
        }
    }

    fn assert_kernel_follows(&mut self) {
        let mapping = stored(self.lab.dir()).expect("the store of a running agent");
        assert_eq!(said(&mapping), self.acknowledged);
        for router in &self.routers {
            router.assert_has(&mapping);
        }
        self.learn(mapping);
    }

    fn acknowledge(&mut self, rules: Rules) {
        self.kept.retain(|target| rules.contains(target));
        self.acknowledged = rules;
    }

    /// Reads what is in the store: a rule that was asked for all the time is
    /// still the same rule, with its name and its age.
    fn learn(&mut self, mapping: Mapping) {
        let kept = |mapping: &Mapping| -> BTreeSet<_> {
            let entries = mapping.entries().map(|entry| entry.rule);
            let kept = entries.filter(|rule| self.kept.contains(&rule.target));
            kept.map(|rule| (rule.target, rule.id, mapping.get(rule.id).map(|e| e.age)))
                .collect()
        };
        assert_eq!(kept(&mapping), kept(&self.known));
        assert!(mapping.entries().all(|e| e.rule.origin == Origin::File));
        self.kept = said(&mapping);
        self.known = mapping;
    }

    /// How long after a signal to kill it.
    fn moment(&mut self) -> Duration {
        let until = if self.rng.bool() {
            COMMITTING
        } else {
            self.reload + self.reload / 8
        };
        until.mul_f64(self.rng.f64())
    }

    /// Other rules than those that are acknowledged.
    fn changed(&mut self) -> Rules {
        let mut rules = self.acknowledged.clone();
        while rules == self.acknowledged {
            for _ in 0..self.rng.usize(1..=3) {
                let router = self.rng.usize(..self.routers.len());
                let router = self.routers[router].id();
                change(&mut self.rng, &mut rules, router);
            }
        }
        rules
    }
}

/// Changes the rules of one router: all away, some or many others, or a few more
/// and a few less.
fn change(rng: &mut Rng, rules: &mut Rules, router: RouterId) {
    let own: Vec<_> = rules
        .iter()
        .filter(|target| target.router == router)
        .collect();
    let mut own: Vec<_> = own.into_iter().copied().collect();
    rng.shuffle(&mut own);
    let kind = rng.u8(..20);
    let (stay, come) = match kind {
        0..4 => (0, 0),
        4..8 => (0, rng.usize(1..8)),
        // Outgrows its maps.
        8 => (own.len(), 150),
        _ => (own.len().saturating_sub(rng.usize(..4)), rng.usize(..4)),
    };
    for target in &own[stay..] {
        rules.remove(target);
    }
    for _ in 0..come {
        rules.insert(any_rule(rng, router));
    }
}

/// Few ports, so that rules come again and shadow each other; some of them far
/// apart, so that the table gets pages.
pub(crate) fn any_rule(rng: &mut Rng, router: RouterId) -> RuleTarget {
    let helpers: Vec<_> = ["ftp", "tftp", "sip"]
        .iter()
        .filter_map(|name| Helper::named(name).ok())
        .flatten()
        .collect();
    let port = rng.i64(1..=40) * rng.choice([1, 1, 1, 1000]).unwrap_or(1);
    RuleTarget {
        router,
        port: Port::try_from(port).expect("a port"),
        helper: *rng.choice(&helpers).expect("a helper"),
    }
}
