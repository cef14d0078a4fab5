//! A damaged store: noticed or harmless, set aside, and rebuilt on request.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::thread;

use conntrack_agent::engine::Mapping;
use conntrack_agent::store::{NAME, Store, StoreError};
use conntrack_tests::durable::said;
use fastrand::Rng;

use super::{End, Fixture, PAGE, assert_refusal, text};
use crate::crash::seed;

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
            fixture.run(None, &["--rebuild", "pins"]);
            for (router, there) in fixture.routers.iter().zip(&before) {
                assert!(there.is(&fixture.mapping().winners(router.id())));
            }
        }
        1 => {
            fixture.run(Some(&fixture.rules), &["--rebuild", "rules"]);
            fixture.assert_has(&fixture.rules);
        }
        _ => {}
    }
    fs::write(&store, &good).expect("the good store in its place");
    fs::remove_file(aside).expect("one damaged store less");
    fixture.run(None, &[]);
    assert_eq!(fixture.mapping(), mapping);
    fixture.assert_has(&said(&mapping));
    true
}
