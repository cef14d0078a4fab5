//! Round after round, each program on each packet.

use std::error::Error as _;
use std::path::Path as Folder;

use conntrack_agent::kernel::{Build, Instance};
use conntrack_tests::bench::interval::Median;
use fastrand::Rng;

use crate::loaded::{FTP_MARK, Program, TFTP_MARK, instance, on_xdp, open};
use crate::packets::{FTP, Path, TFTP, WAYS, Way};
use crate::runs::Ready;

/// Where a program and its maps come to lie in memory changes what it costs. So
/// there are several of each, and the rounds take turns.
pub(crate) const COPIES: usize = 4;
/// What runs on a packet, in turns.
const EMPTY: usize = 0;
const EMPTY_AGAIN: usize = 1;
const OURS: usize = 2;
const OTHERS: usize = 3;

/// What one path costs, in nanoseconds a packet.
pub(crate) struct Cost {
    /// The run itself, with an empty program.
    pub(crate) empty: Median,
    /// A second empty program over the first: what is noise.
    pub(crate) noise: Median,
    /// Our program over the first empty one.
    pub(crate) ours: Median,
    /// Each of the other objects' over the first empty one too, and ours over it.
    pub(crate) others: Vec<(Median, Median)>,
}

/// A path, and its cost or why the kernel makes no such packet.
pub(crate) struct Row {
    pub(crate) path: Path,
    pub(crate) cost: Result<Cost, String>,
}

/// All programs of one copy: for each way, those that are compared.
struct Copy {
    programs: [Vec<Program>; WAYS.len()],
    /// Our instances, to read what they have counted.
    counting: Vec<Instance>,
}

impl Copy {
    fn new(folder: &Folder, copy: usize, others: &[Build]) -> Self {
        let built_in = Build::built_in();
        let mut counting = Vec::new();
        let programs = WAYS.map(|way| {
            let editions = std::iter::once(&built_in).chain(others).enumerate();
            let ours: Vec<_> = editions
                .map(|(number, build)| {
                    let own = format!("instance-{copy}-{}-{number}", counting.len());
                    let (own, shared) = (folder.join(own), folder.join(format!("shared-{number}")));
                    let instance = instance(build, way.carrier(), &own, &shared);
                    if number == 0 {
                        counting.push(open(&own));
                    }
                    match way {
                        Way::Tc | Way::TcAnew(_) => Program::Instance(Box::new(instance)),
                        Way::Xdp => on_xdp(build, &own),
                    }
                })
                .collect();
            let empty = [Program::empty(way), Program::empty(way)];
            let all = empty.into_iter().chain(ours);
            match way {
                Way::Tc => all.collect(),
                Way::TcAnew(_) | Way::Xdp => all.map(|program| program.anew(way)).collect(),
            }
        });
        Self { programs, counting }
    }

    fn programs(&mut self, way: Way) -> &mut [Program] {
        let at = WAYS.iter().position(|known| *known == way);
        &mut self.programs[at.expect("one of the ways")]
    }

    /// Packets that its instances have counted.
    fn counted(&self) -> u64 {
        let all = self.counting.iter().flat_map(|instance| {
            [FTP, TFTP].map(|rule| instance.counters(rule).expect("its maps"))
        });
        all.map(|counters| counters.expect("a rule").packets).sum()
    }
}

/// The times of one path, program by program.
struct Times {
    path: Path,
    /// Why the kernel makes no such packet.
    refused: Option<String>,
    nanoseconds: Vec<Vec<f64>>,
}

/// Measures all paths, so many rounds of each.
pub(crate) fn measure(
    paths: Vec<Path>,
    folder: &Folder,
    others: &[Build],
    rounds: usize,
) -> (Vec<Row>, Instance) {
    let mut copies: Vec<_> = (0..COPIES)
        .map(|copy| Copy::new(folder, copy, others))
        .collect();
    let contenders = OTHERS + others.len();
    let mut all: Vec<_> = paths
        .into_iter()
        .map(|path| Times {
            refused: check(&path, &mut copies),
            path,
            nanoseconds: vec![Vec::with_capacity(rounds); contenders],
        })
        .collect();

    let mut rng = Rng::new();
    let mut turns: Vec<_> = (0..all.len()).collect();
    turns.retain(|turn| all[*turn].refused.is_none());
    let before: u64 = copies.iter().map(Copy::counted).sum();
    for round in 0..rounds {
        let copy = &mut copies[round % COPIES];
        rng.shuffle(&mut turns);
        for turn in &turns {
            let times = &mut all[*turn];
            let way = times.path.way;
            if !way.is_in(round) {
                continue;
            }
            let ready = Ready::new(&times.path);
            let mut order: Vec<_> = (0..contenders).collect();
            rng.shuffle(&mut order);
            for contender in order {
                let program = &mut copy.programs(way)[contender];
                times.nanoseconds[contender].push(ready.time(program, &mut rng));
            }
        }
    }
    let after: u64 = copies.iter().map(Copy::counted).sum();
    // What XDP finds, the tc program counts.
    let counting = all.iter().filter(|times| {
        let path = &times.path;
        path.rule.is_some() && path.way != Way::Xdp
    });
    let expected: u64 = counting
        .map(|times| times.nanoseconds[OURS].len() as u64 * u64::from(times.path.way.times()))
        .sum();
    assert_eq!(after - before, expected, "packets that hit a rule");
    let rows = all.into_iter().map(Times::row).collect();
    (rows, copies.swap_remove(0).counting.swap_remove(0))
}

/// Why the kernel makes no such packet, if it doesn't; panics if a program does
/// not find in it what it should.
fn check(path: &Path, copies: &mut [Copy]) -> Option<String> {
    let ready = Ready::new(path);
    let mark = path
        .rule
        .map_or(0, |rule| if rule == FTP { FTP_MARK } else { TFTP_MARK });
    for copy in copies {
        for program in &mut copy.programs(path.way)[OURS..] {
            if let Err(error) = ready.check(program, mark) {
                // Only of a packet that isn't linear; any other has to be possible.
                assert!(path.linear.is_some(), "{}: {error}", path.what);
                let because = error
                    .source()
                    .map_or_else(String::new, |it| format!(": {it}"));
                return Some(format!("{error}{because}"));
            }
        }
    }
    None
}

impl Times {
    fn row(self) -> Row {
        let over = |one: usize, other: usize| {
            let pairs = self.nanoseconds[one].iter().zip(&self.nanoseconds[other]);
            Median::of(pairs.map(|(one, other)| one - other).collect()).expect("rounds")
        };
        let cost = match self.refused {
            Some(refused) => Err(refused),
            None => Ok(Cost {
                empty: Median::of(self.nanoseconds[EMPTY].clone()).expect("rounds"),
                noise: over(EMPTY_AGAIN, EMPTY),
                ours: over(OURS, EMPTY),
                others: (OTHERS..self.nanoseconds.len())
                    .map(|other| (over(other, EMPTY), over(OURS, other)))
                    .collect(),
            }),
        };
        Row {
            path: self.path,
            cost,
        }
    }
}
