//! The store, damaged, lost, or on a full disk: said, and the rules in force stay.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread;

use conntrack_agent::engine::Mapping;
use conntrack_agent::model::{Helper, RuleTarget};
use conntrack_agent::store::{NAME, Store, StoreError};
use conntrack_tests::agent::{Agent, Config, Exit, Reload};
use conntrack_tests::durable::{BareRouter, InKernel, Rules, rules_file, said, stored};
use conntrack_tests::lab::Lab;
use fastrand::Rng;

use crate::crash::{any_rule, seed};

/// What happens to a file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    /// It ends here.
    Truncated(usize),
    /// This bit of this byte is another.
    Flipped(usize, u8),
}

/// redb's header and its two commit slots.
const HEADER: usize = 320;
const PAGE: usize = 4096;

impl Damage {
    /// Somewhere in the file; half of the flipped bits are in pages that are not
    /// empty.
    fn random(rng: &mut Rng, bytes: &[u8]) -> Self {
        let at = rng.usize(..bytes.len());
        if rng.bool() {
            return Self::Truncated(at);
        }
        let used: Vec<_> = (0..bytes.len() / PAGE)
            .filter(|page| bytes[page * PAGE..][..PAGE].iter().any(|byte| *byte != 0))
            .collect();
        let at = match rng.choice(&used) {
            Some(page) if rng.bool() => page * PAGE + rng.usize(..PAGE),
            _ => at,
        };
        Self::Flipped(at, rng.u8(..8))
    }

    fn of(self, bytes: &[u8]) -> Vec<u8> {
        let mut damaged = bytes.to_owned();
        match self {
            Self::Truncated(length) => damaged.truncate(length),
            Self::Flipped(at, bit) => damaged[at] ^= 1 << bit,
        }
        damaged
    }
}

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

/// By the library alone, and so at many places: each bit of the header, and
/// anywhere.
#[test]
fn damage_anywhere_is_harmless_or_noticed() {
    const ANYWHERE: usize = 1000;
    let seed = seed();
    thread::scope(|scope| {
        for end in [End::Stop, End::Kill] {
            scope.spawn(move || {
                let mut rng = Rng::with_seed(seed);
                let mut fixture = Fixture::new();
                fixture.use_store(&mut rng, end);
                let folder = fixture.lab.dir().folder("damaged");
                fixture.lab.dir().mount_tmpfs(&folder, 64 << 20);
                let bytes = fs::read(fixture.store()).expect("the store");
                let mapping = fixture.mapping();
                assert_eq!(said(&mapping), fixture.rules);

                let header = (0..HEADER * 8).map(|bit| {
                    let place = u8::try_from(bit % 8).expect("a bit of a byte");
                    Damage::Flipped(bit / 8, place)
                });
                let anywhere = (0..ANYWHERE).map(|_| Damage::random(&mut rng, &bytes));
                let mut noticed = 0;
                let mut harmless = 0;
                let mut faults = Vec::new();
                for damage in header.chain(anywhere) {
                    // Beside the store lies the count of its changes, undamaged.
                    let count = fixture.store().with_extension("redb-changes");
                    fs::copy(count, folder.join("mapping.redb-changes")).expect("the count");
                    match open_damaged(&folder, &damage.of(&bytes), &mapping) {
                        Ok(Outcome::Noticed) => noticed += 1,
                        Ok(Outcome::Harmless) => harmless += 1,
                        Err(fault) => faults.push(format!("{damage:?}: {fault}\n")),
                    }
                }
                eprintln!("{end:?}: {noticed} noticed, {harmless} harmless");
                assert!(noticed > 0 && harmless > 0, "{noticed}, {harmless}");
                let length = bytes.len();
                let faults = faults.concat();
                assert!(faults.is_empty(), "{end:?}, {length} bytes:\n{faults}");
            });
        }
    });
}

#[derive(Clone, Copy, Debug)]
enum Outcome {
    Harmless,
    Noticed,
}

fn open_damaged(folder: &Path, damaged: &[u8], good: &Mapping) -> Result<Outcome, String> {
    let store = folder.join(NAME);
    fs::write(&store, damaged).expect("a damaged store");
    let opened = catch_unwind(AssertUnwindSafe(|| Store::open(folder)));
    let opened = opened.map_err(|_| "it panicked".to_owned())?;
    match opened {
        Ok((_store, mapping)) if mapping == *good => Ok(Outcome::Harmless),
        Ok((_store, mapping)) => Err(format!(
            "{} rules of {} without a word",
            mapping.len(),
            good.len()
        )),
        Err(StoreError::Damaged { aside, .. }) => {
            if store.exists() {
                return Err("it is not set aside".to_owned());
            }
            let kept = fs::read(&aside).map_err(|error| format!("{}: {error}", text(&aside)))?;
            fs::remove_file(&aside).expect("room for the next");
            if kept == damaged {
                Ok(Outcome::Noticed)
            } else {
                Err("what is set aside is not what was there".to_owned())
            }
        }
        Err(error) => Err(format!("{error:?}")),
    }
}

#[test]
fn an_agent_with_a_damaged_store_says_so_and_touches_nothing() {
    const CASES: usize = 20;
    const LABS: u64 = 2;
    let seed = seed();
    thread::scope(|scope| {
        for number in 0..LABS {
            scope.spawn(move || {
                let mut rng = Rng::with_seed(seed.wrapping_add(number));
                let mut fixture = Fixture::new();
                let refused = (0..CASES).filter(|case| {
                    let end = [End::Stop, End::Kill][case % 2];
                    fixture.use_store(&mut rng, end);
                    start_on_damage(&fixture, &mut rng)
                });
                let refused = refused.count();
                eprintln!("lab {number}: {refused} of {CASES} refused");
                assert!(refused > 0);
            });
        }
    });
}

/// Damages the store, starts the agent, and puts the good store back. Returns
/// whether it was refused.
fn start_on_damage(fixture: &Fixture, rng: &mut Rng) -> bool {
    let store = fixture.store();
    let good = fs::read(&store).expect("the store");
    let mapping = fixture.mapping();
    let before = fixture.in_kernel();
    let damage = Damage::random(rng, &good);
    eprintln!("{damage:?} of {}", good.len());
    let damaged = damage.of(&good);
    fs::write(&store, &damaged).expect("a damaged store");

    let rules = rng.bool().then_some(&fixture.rules);
    let exit = match fixture.spawn(rules, &[]) {
        Ok(agent) => {
            End::Kill.of(agent);
            assert_eq!(fixture.mapping(), mapping, "{damage:?}");
            assert_eq!(fixture.in_kernel(), before, "{damage:?}");
            return false;
        }
        Err(exit) => exit,
    };
    let aside = fixture.set_aside();
    let [aside] = &aside[..] else {
        panic!("one is set aside: {aside:?}");
    };
    assert_refusal(&exit, &[text(&store), text(aside), "--rebuild"]);
    assert!(!store.exists());
    let is_kept = || fs::read(aside).expect("what was set aside") == damaged;
    assert!(is_kept(), "{damage:?}: it is kept as it was");
    assert_eq!(fixture.in_kernel(), before);
    // Nor is it an empty store the second time.
    fixture.assert_refused(rules, &[], &[text(&store), "missing", "--rebuild"]);
    assert!(is_kept() && !store.exists());

    match rng.u8(..3) {
        0 => {
            let agent = fixture
                .spawn(None, &["--rebuild", "pins"])
                .expect("a start");
            End::Kill.of(agent);
            for (router, there) in fixture.routers.iter().zip(&before) {
                assert!(there.is(&fixture.mapping().winners(router.id())));
            }
        }
        1 => {
            let rules = Some(&fixture.rules);
            let agent = fixture.spawn(rules, &["--rebuild", "rules"]);
            End::Kill.of(agent.expect("a start"));
            assert_eq!(said(&fixture.mapping()), fixture.rules);
            for router in &fixture.routers {
                router.assert_has(&fixture.mapping());
            }
        }
        _ => {}
    }
    fs::write(&store, &good).expect("the good store in its place");
    fs::remove_file(aside).expect("one damaged store less");
    let agent = fixture.spawn(None, &[]).expect("a start on the good store");
    End::Kill.of(agent);
    assert_eq!(fixture.mapping(), mapping);
    for router in &fixture.routers {
        router.assert_has(&mapping);
    }
    true
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
        let agent = fixture.spawn(file, &["--rebuild", "pins"]);
        End::Kill.of(agent.expect("a start"));
        assert_eq!(fixture.in_kernel(), before, "the rules in force stay");
        let agent = fixture.spawn(None, &[]).expect("a start on the new store");
        End::Stop.of(agent);
        assert_eq!(fixture.in_kernel(), before, "and go on staying");
        lose();
    }

    // Without having been told first: it is set aside all the same.
    fs::write(&store, "damaged").expect("a damaged store");
    let agent = fixture.spawn(None, &["--rebuild", "pins"]);
    End::Kill.of(agent.expect("a start"));
    assert_eq!(fixture.in_kernel(), before);
    let aside = fixture.set_aside();
    let kept: Vec<_> = aside.iter().map(|path| fs::read(path).ok()).collect();
    assert_eq!(kept, [Some(b"damaged".to_vec())]);
    lose();

    // From another file: its rules, and no other.
    let other = fixture.some_rules(&mut rng, 5);
    let agent = fixture.spawn(Some(&other), &["--rebuild", "rules"]);
    End::Kill.of(agent.expect("a start"));
    let mapping = fixture.mapping();
    assert_eq!(said(&mapping), other);
    for router in &fixture.routers {
        router.assert_has(&mapping);
    }
    assert_eq!(fixture.set_aside(), aside);
}

/// It has no store then, or one with the rules in force; with an empty one the
/// next start would take them all away.
#[test]
fn a_rebuild_that_fails_loses_no_rules() {
    let mut rng = Rng::with_seed(seed());
    let mut fixture = Fixture::new();
    fixture.use_store(&mut rng, End::Stop);
    fs::remove_file(fixture.store()).expect("a store to lose");
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
    let mut rng = Rng::with_seed(seed());
    let mut fixture = Fixture::new();
    fixture.use_store(&mut rng, End::Stop);
    fs::remove_file(fixture.store()).expect("a store to lose");
    let before = fixture.in_kernel();
    drop(fixture.spawn(None, &["--rebuild", "rules"]));
    assert_eq!(fixture.in_kernel(), before);
}

const FULL: &str = "No space left on device";

/// A disk of its own for the store, and what fills it up.
struct Disk {
    filler: PathBuf,
}

impl Disk {
    fn of(fixture: &Fixture) -> Self {
        let folder = fixture.lab.dir().state_dir();
        fixture.lab.dir().mount_tmpfs(&folder, 32 << 20);
        Self {
            filler: folder.join("filler"),
        }
    }

    fn fill(&self) {
        let mut file = File::create(&self.filler).expect("a file to fill the disk");
        let full = loop {
            if let Err(error) = file.write_all(&[0; PAGE]) {
                break error;
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    }

    fn make_room(&self) {
        fs::remove_file(&self.filler).expect("the filler");
    }
}

/// As many rules for each router, so that the store grows.
fn many(fixture: &Fixture, count: u16) -> Rules {
    let ports = move |router: &BareRouter| {
        let id = router.id();
        (1..=count).map(move |port| RuleTarget {
            router: id,
            port: i64::from(port).try_into().expect("a port"),
            helper: Helper::with_mark(1).expect("a helper"),
        })
    };
    fixture.routers.iter().flat_map(ports).collect()
}

#[test]
fn on_a_full_disk_changes_are_refused_until_there_is_room() {
    let fixture = Fixture::new();
    let disk = Disk::of(&fixture);
    let mut rules = many(&fixture, 10);
    let mut agent = fixture.spawn(Some(&rules), &[]).expect("a start");
    for (count, dies) in [
        (100, false),
        (250, true),
        (400, false),
        (600, false),
        (900, true),
    ] {
        let (mapping, before) = (fixture.mapping(), fixture.in_kernel());
        assert_eq!(said(&mapping), rules);
        let more = many(&fixture, count);
        disk.fill();
        let unchanged = || {
            assert_eq!(fixture.mapping(), mapping, "with {count} more");
            assert_eq!(fixture.in_kernel(), before, "with {count} more");
        };
        // The second finds the store as the first had to leave it.
        for _ in 0..2 {
            assert_eq!(agent.reload(&rules_file(&more)), Reload::Refused);
            unchanged();
        }
        if dies {
            assert_disk_was_full(&agent.kill());
            unchanged();
            disk.make_room();
            agent = fixture.spawn(Some(&rules), &[]).expect("a start with room");
            unchanged();
        } else {
            disk.make_room();
        }
        assert_eq!(agent.reload(&rules_file(&more)), Reload::Done);
        let mapping = fixture.mapping();
        assert_eq!(said(&mapping), more);
        for router in &fixture.routers {
            router.assert_has(&mapping);
        }
        rules = more;
    }
    assert!(fixture.set_aside().is_empty());
}

/// Of an agent that refused reloads for that reason and no other.
fn assert_disk_was_full(exit: &Exit) {
    assert!(!exit.stderr.contains("panicked"), "{exit:?}");
    let mut refusals = exit
        .stderr
        .lines()
        .filter(|line| line.contains("reload refused"))
        .peekable();
    assert!(refusals.peek().is_some(), "{exit:?}");
    assert!(refusals.all(|line| line.contains(FULL)), "{exit:?}");
}

/// That a store can't be written at the moment does not make it a damaged one.
#[test]
fn a_start_on_a_full_disk_does_not_give_the_store_up() {
    let fixture = Fixture::new();
    let disk = Disk::of(&fixture);
    let rules = many(&fixture, 100);
    let agent = fixture.spawn(Some(&rules), &[]).expect("a start");
    End::Kill.of(agent);
    let (mapping, before) = (fixture.mapping(), fixture.in_kernel());
    disk.fill();
    for _ in 0..2 {
        match fixture.spawn(Some(&rules), &[]) {
            Ok(agent) => End::Kill.of(agent),
            Err(exit) => assert_refusal(&exit, &[text(&fixture.store()), FULL]),
        }
        assert!(fixture.set_aside().is_empty());
        assert_eq!(fixture.in_kernel(), before);
    }
    disk.make_room();
    let agent = fixture.spawn(None, &[]).expect("a start with room");
    End::Stop.of(agent);
    assert_eq!(fixture.mapping(), mapping);
    assert_eq!(fixture.in_kernel(), before);
}
