//! `cargo xtask bench control`: how long a change of the rules takes, our way
//! and Neutron's, one beside the other in the same run.
//!
//! For each number of rules a lab of its own, and rounds in which every side
//! makes its changes, so that what else the machine does meets all of them. No
//! time fails the command; the table says which targets are met.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark whose lab fails ends there, and says with what"
)]

mod api;
mod disk;
mod neutron;
mod ours;
mod report;
mod rules;
mod run;
mod timed;

use std::env::args;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use conntrack_agent::engine::{Mapping, Operation};
use conntrack_agent::model::{Origin, RouterId};
use conntrack_tests::bench::{machine, write};
use conntrack_tests::lab::Lab;
use rustix::mount::{MountFlags, mount};
use tempfile::TempDir;

use crate::disk::{Floor, Stored};
use crate::neutron::{Neutron, Restore, TooSlow};
use crate::ours::{Ours, policy};
use crate::run::Run;

const RULES: [usize; 6] = [1, 10, 100, 1_000, 10_000, 50_000];

/// On a second router, for the same moments' change among few.
const FEW: usize = 10;

/// Where the agent keeps its state by default is below this.
const STATE: &str = "/var/lib";

/// Batches from nothing.
const BATCHES: usize = 7;
/// Rounds, unless they take longer than this; never fewer than that.
const ROUNDS: usize = 15;
const BUDGET: Duration = Duration::from_secs(20);
const LEAST_ROUNDS: usize = 2;
/// In each round.
const OUR_CHANGES: usize = 20;
const OUR_LOOKS: usize = 3;
const ENGINE_CHANGES: usize = 200;
const STORE_CHANGES: usize = 10;
/// Whole restores only in each third round.
const WHOLE_EVERY: usize = 3;

fn main() -> ExitCode {
    let mut arguments: Vec<_> = args().skip(1).collect();
    let by_socket = arguments.first().is_some_and(|first| first == "--api");
    if by_socket {
        arguments.remove(0);
    }
    let Some((json, most)) = options(arguments.into_iter()) else {
        eprintln!("usage: bench_control [--api] [--json FILE] [--up-to RULES]");
        return ExitCode::from(2);
    };
    let state = tempfile::Builder::new()
        .prefix("conntrack-agent-bench-")
        .tempdir_in(STATE)
        .expect("a folder where the agent's state would be");
    let machine = machine::describe(state.path());
    let results = if by_socket {
        let runs = measure_socket(&state);
        api::report(&machine, &runs)
    } else {
        let counts = RULES.into_iter().filter(|count| *count <= most);
        let runs: Vec<_> = counts.map(|count| measure(count, &state)).collect();
        report::print(&machine, &runs);
        report::json(&machine, &runs)
    };
    if let Some(path) = json {
        write(&path, &results);
    }
    ExitCode::SUCCESS
}

fn options(mut given: impl Iterator<Item = String>) -> Option<(Option<PathBuf>, usize)> {
    let (mut json, mut most) = (None, usize::MAX);
    while let Some(option) = given.next() {
        let value = given.next()?;
        match option.as_str() {
            "--json" => json = Some(value.into()),
            "--up-to" => most = value.parse().ok()?,
            _ => return None,
        }
    }
    Some((json, most))
}

fn measure(count: usize, state: &TempDir) -> Run {
    let start = Instant::now();
    let mut run = Run::new(count);
    let lab = Lab::new();
    let on_disk = folder(state.path(), &format!("agent-{count}"));
    let mut ours = Ours::new(&lab, &on_disk);
    ours.fill(count, &mut run);
    for _ in 1..BATCHES {
        ours.clear();
        ours.fill(count, &mut run);
    }
    let mut few = Ours::new(&lab, &folder(state.path(), &format!("few-{count}")));
    few.fill(FEW, &mut Run::new(FEW));
    let neutrons = ["legacy", "nft"].map(|variant| Neutron::new(&lab, variant, ours.router()));
    let mut neutrons: Vec<_> = neutrons
        .into_iter()
        .filter_map(|mut neutron| match neutron.fill(count) {
            Ok(time) => {
                let key = format!("batch.{}", neutron.variant);
                run.series(&key).add(time);
                Some(neutron)
            }
            Err(too_slow) => given_up(&mut run, &too_slow),
        })
        .collect();
    let mut alone = Alone::new(&lab, state.path(), ours.router(), count);

    let end = Instant::now() + BUDGET;
    while run.rounds < ROUNDS && (run.rounds < LEAST_ROUNDS || Instant::now() < end) {
        for _ in 0..OUR_CHANGES {
            ours.change("change.", &mut run);
            few.change("few.", &mut run);
        }
        // Not in between: what is read every time is in the processor's caches.
        for _ in 0..OUR_LOOKS {
            ours.change("cold.", &mut run);
            ours.look(&mut run);
            ours.look_closely(&mut run);
        }
        neutrons.retain(|neutron| {
            theirs(neutron, &mut run).map_or_else(
                |too_slow| given_up::<()>(&mut run, &too_slow).is_some(),
                |()| true,
            )
        });
        alone.round(&mut run);
        run.rounds += 1;
    }
    if run.rounds < ROUNDS {
        run.notes.push(format!(
            "{count} rules: {} rounds in place of {ROUNDS}, as they took over {BUDGET:?}",
            run.rounds
        ));
    }
    let rounds = run.rounds;
    println!(
        "{count} rules: {rounds} rounds, {:.0?} in all",
        start.elapsed()
    );
    run
}

/// Agents with few and with many rules, and Neutron's way with as many, all at
/// once and in turn.
fn measure_socket(state: &TempDir) -> Vec<Run> {
    let mut sides: Vec<_> = api::RULES
        .into_iter()
        .map(|count| {
            let mut run = Run::new(count);
            let state = folder(state.path(), &format!("socket-{count}"));
            let socket = api::Socket::new(&state, count);
            let neutrons = ["legacy", "nft"]
                .map(|variant| Neutron::new(socket.lab(), variant, socket.router()));
            let neutrons =
                neutrons
                    .into_iter()
                    .filter_map(|mut neutron| match neutron.fill(count) {
                        Ok(_) => Some(neutron),
                        Err(too_slow) => given_up(&mut run, &too_slow),
                    });
            let neutrons: Vec<_> = neutrons.collect();
            (run, socket, neutrons)
        })
        .collect();
    let end = Instant::now() + 2 * BUDGET;
    let mut rounds = 0;
    while rounds < ROUNDS && (rounds < LEAST_ROUNDS || Instant::now() < end) {
        for _ in 0..api::CHANGES {
            for (run, socket, _) in &mut sides {
                socket.change(run);
            }
        }
        for (run, _, neutrons) in &mut sides {
            neutrons.retain(|neutron| match neutron.change(Restore::Difference) {
                Ok(times) => {
                    let key = format!("{}.difference", neutron.variant);
                    for time in times {
                        run.series(&key).add(time);
                    }
                    true
                }
                Err(too_slow) => given_up::<()>(run, &too_slow).is_some(),
            });
            run.rounds += 1;
        }
        rounds += 1;
    }
    sides.into_iter().map(|(run, _, _)| run).collect()
}

fn theirs(neutron: &Neutron, run: &mut Run) -> Result<(), TooSlow> {
    let mut ways = vec![("difference", Restore::Difference)];
    if run.rounds.is_multiple_of(WHOLE_EVERY) {
        ways.push(("whole", Restore::Whole));
    }
    for (name, how) in ways {
        for time in neutron.change(how)? {
            run.series(&format!("{}.{name}", neutron.variant)).add(time);
        }
    }
    Ok(())
}

fn given_up<T>(run: &mut Run, TooSlow(why): &TooSlow) -> Option<T> {
    run.notes
        .push(format!("{} rules: skipped: {why}", run.rules));
    None
}

/// Engine and store, each by itself.
struct Alone {
    mapping: Mapping,
    router: RouterId,
    disk: Stored,
    tmpfs: Stored,
    floor: Floor,
}

impl Alone {
    fn new(lab: &Lab, state: &Path, router: RouterId, count: usize) -> Self {
        let mut mapping = Mapping::default();
        let batch = rules::batch(router, count);
        let all = mapping.decide(&policy(), Origin::Api, &batch);
        mapping.commit(&all.expect("rules"));
        let extra = [Operation::Create(rules::nth(router, count))];
        let change = mapping.decide(&policy(), Origin::Api, &extra);
        let change = change.expect("a rule");
        let tmpfs = folder(lab.dir().path(), "tmpfs");
        mount("tmpfs", &tmpfs, "tmpfs", MountFlags::empty(), None).expect("a tmpfs");
        let disk = folder(state, &format!("alone-{count}"));
        Self {
            floor: Floor::new(&disk),
            disk: Stored::new(&disk, mapping.clone(), change.clone()),
            tmpfs: Stored::new(&tmpfs, mapping.clone(), change),
            router,
            mapping,
        }
    }

    fn round(&mut self, run: &mut Run) {
        let policy = policy();
        for _ in 0..ENGINE_CHANGES {
            let rule = rules::nth(self.router, self.mapping.len());
            for operation in [Operation::Create(rule), Operation::Delete(rule.id)] {
                let mapping = &mut self.mapping;
                run.series("engine").time(|| {
                    let change = mapping.decide(&policy, Origin::Api, &[operation]);
                    mapping.commit(&change.expect("a change that may be"));
                });
            }
        }
        for _ in 0..STORE_CHANGES {
            self.disk.change(run.series("disk.store"));
            run.series("disk.once").time(|| self.floor.write(1));
            run.series("disk.twice").time(|| self.floor.write(2));
            self.tmpfs.change(run.series("tmpfs.store"));
        }
    }
}

fn folder(parent: &Path, name: &str) -> PathBuf {
    let path = parent.join(name);
    fs::create_dir(&path).expect("a folder");
    path
}
