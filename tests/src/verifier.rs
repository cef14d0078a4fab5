//! What a program costs the kernel's verifier.
//!
//! The kernel tells most of it in its log alone, and aya gives the log of a load
//! that fails. So the load is made to fail as late as it can: for want of a
//! descriptor, when the verifier has said yes (`bpf_prog_load`,
//! kernel/bpf/syscall.c: `bpf_prog_new_fd` comes after `bpf_check`).

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use aya::programs::{Program, ProgramError};
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};
use conntrack_agent::kernel::{Build, load_again};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What one program costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Its size in instructions, as the kernel holds them for its compiler.
    pub size: u64,
    /// Instructions that the verifier went through, on all paths together.
    pub processed: u64,
    /// States that it noted, to know again where it has been.
    pub states: u64,
    /// How many of them it kept to the end.
    pub peak_states: u64,
    /// How many of them are of one instruction, at the most.
    pub states_per_instruction: u64,
    /// What the program takes of its stack, in bytes.
    pub stack: u64,
}

/// One of the kernel's limits, and how much of it a program may take here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limit {
    what: &'static str,
    kernels: u64,
    ours: u64,
}

/// `BPF_COMPLEXITY_LIMIT_INSNS`, include/linux/bpf.h, since Linux 5.2. Far less than
/// a tenth: each takes about a microsecond, and an agent that starts on a host with a
/// thousand routers loads a thousand programs before it is ready.
const PROCESSED: Limit = Limit {
    what: "instructions processed",
    kernels: 1_000_000,
    ours: 10_000,
};

/// `BPF_COMPLEXITY_LIMIT_JMP_SEQ`, kernel/bpf/verifier.c: branches that are not
/// followed yet, each with its state. It is the only limit there is on states:
/// that on those of one instruction (`BPF_COMPLEXITY_LIMIT_STATES`) is for
/// loaders without privileges.
const STATES: Limit = Limit {
    what: "states kept",
    kernels: 8192,
    ours: 819,
};

/// `MAX_BPF_STACK`, include/linux/filter.h, in bytes. Not a tenth: what is told
/// of a connection has 72 bytes alone. And a stack is not searched: a program
/// that grows takes more of it in steps of a few bytes, and no kernel counts
/// otherwise than another.
const STACK: Limit = Limit {
    what: "bytes of stack",
    kernels: 512,
    ours: 256,
};

/// A figure that is too high.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Excess {
    found: u64,
    limit: Limit,
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Limit {
            what,
            kernels,
            ours,
        } = self.limit;
        let found = self.found;
        write!(
            f,
            "{found} {what}; {ours} are allowed here, and {kernels} by the kernel"
        )
    }
}

impl Figures {
    /// What [`Display`](fmt::Display) writes, column by column.
    pub const HEAD: &str =
        "instructions  processed  states  peak states  states/instruction  stack";

    /// Of a program of this size, from the last lines of the verifier's log
    /// (`print_verification_stats`, kernel/bpf/verifier.c); none if they aren't
    /// there.
    ///
    /// ```text
    /// stack depth 248+0
    /// processed 3138 insns (limit 1000000) max_states_per_insn 4 total_states 152 peak_states 146 mark_read 0
    /// ```
    #[must_use]
    pub fn from_log(size: u64, log: &str) -> Option<Self> {
        let after = |name: &str| {
            let mut words = log.split_whitespace();
            words.find(|word| *word == name)?;
            words.next()
        };
        let number = |name| after(name)?.parse().ok();
        // Of the program and of each function that it calls, the deepest way of
        // which is not told: all of them together are at least that.
        let depths = log
            .lines()
            .find_map(|line| line.strip_prefix("stack depth "))?;
        let depths: Result<Vec<u64>, _> = depths.split('+').map(str::parse).collect();
        Some(Self {
            size,
            processed: number("processed")?,
            states: number("total_states")?,
            peak_states: number("peak_states")?,
            states_per_instruction: number("max_states_per_insn")?,
            stack: depths.ok()?.iter().sum(),
        })
    }

    /// What of it is too high.
    pub fn excesses(&self) -> impl Iterator<Item = Excess> {
        let all = [
            (self.processed, PROCESSED),
            (self.peak_states, STATES),
            (self.stack, STACK),
        ];
        let too_high = all.into_iter().filter(|(found, limit)| *found > limit.ours);
        too_high.map(|(found, limit)| Excess { found, limit })
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            size,
            processed,
            states,
            peak_states,
            states_per_instruction,
            stack,
        } = self;
        write!(
            f,
            "{size:>12}  {processed:>9}  {states:>6}  {peak_states:>11}  \
             {states_per_instruction:>18}  {stack:>5}"
        )
    }
}

/// Why there are no figures.
#[derive(Debug)]
pub enum Failure {
    /// The caller may not load programs.
    NotPermitted,
    /// Something was refused, or not as expected.
    Other(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPermitted => {
                f.write_str("the kernel lets only root load programs; run this as root")
            }
            Self::Other(what) => f.write_str(what),
        }
    }
}

/// The figures of each program of an edition, by name.
///
/// For moments, this process can open nothing while it runs.
///
/// # Errors
/// [`Failure`] if the kernel takes a program not, or tells nothing of it.
pub fn measure(build: &Build) -> Result<BTreeMap<String, Figures>, Failure> {
    let mut object = EbpfLoader::new()
        .verifier_log_level(VerifierLogLevel::STATS)
        .load(build.object())
        .map_err(|error| not_permitted_or("the object", &error))?;
    figures(&mut object)
}

fn figures(object: &mut Ebpf) -> Result<BTreeMap<String, Figures>, Failure> {
    let mut all = BTreeMap::new();
    for (name, program) in object.programs_mut() {
        let log = verifier_log(name, program)?;
        // Now to the end: the kernel tells the size of what it has.
        let info = load(program).and_then(|()| program.info());
        let info = info.map_err(|error| not_permitted_or(name, &error))?;
        let bytes = info.size_translated().unwrap_or_default();
        let figures = Figures::from_log(u64::from(bytes) / INSTRUCTION, &log);
        let unexpected = || Failure::Other(format!("{name}: no figures in the log {log:?}"));
        all.insert(name.to_owned(), figures.ok_or_else(unexpected)?);
    }
    Ok(all)
}

/// `sizeof(struct bpf_insn)`, include/uapi/linux/bpf.h.
const INSTRUCTION: u64 = 8;

/// What the verifier says of a program that it takes.
fn verifier_log(name: &str, program: &mut Program) -> Result<String, Failure> {
    let descriptors = getrlimit(Resource::Nofile);
    let none = Rlimit {
        current: Some(0),
        ..descriptors
    };
    let set = |limit| {
        let set = setrlimit(Resource::Nofile, limit);
        set.map_err(|error| Failure::Other(format!("RLIMIT_NOFILE cannot be set: {error}")))
    };
    set(none)?;
    let loaded = load_again(|| load(program));
    set(descriptors)?;
    match loaded {
        Err(ProgramError::LoadError {
            io_error,
            verifier_log,
        }) if Errno::from_io_error(&io_error) == Some(Errno::MFILE) => Ok(verifier_log.to_string()),
        Err(error) => Err(not_permitted_or(name, &error)),
        Ok(()) => Err(Failure::Other(format!("{name} was loaded nowhere"))),
    }
}

fn load(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::SchedClassifier(program) => program.load(),
        Program::Xdp(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

/// What failed, with all its causes; aya repeats the verifier's log, which is
/// what is to be read then.
fn not_permitted_or(what: &str, error: &(dyn std::error::Error + 'static)) -> Failure {
    let causes = std::iter::successors(Some(error), |error| error.source());
    for cause in causes.clone() {
        let error = cause.downcast_ref::<io::Error>();
        // EACCES is the verifier's own word for a program that it refuses.
        if error.and_then(Errno::from_io_error) == Some(Errno::PERM) {
            return Failure::NotPermitted;
        }
    }
    let causes: Vec<_> = causes.map(ToString::to_string).collect();
    Failure::Other(format!("{what} cannot be loaded: {}", causes.join(": ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "verification time 7946 usec\n\
        stack depth 248+8\n\
        processed 3138 insns (limit 1000000) max_states_per_insn 4 total_states 152 \
        peak_states 146 mark_read 0\n";

    #[test]
    fn figures_are_the_logs() {
        let expected = Figures {
            size: 892,
            processed: 3138,
            states: 152,
            peak_states: 146,
            states_per_instruction: 4,
            stack: 256,
        };
        assert_eq!(Figures::from_log(892, LOG), Some(expected));
        for without in [
            "stack depth 248",
            "processed",
            "total_states",
            "peak_states",
        ] {
            assert_eq!(Figures::from_log(892, &LOG.replace(without, "x")), None);
        }
        assert_eq!(Figures::from_log(892, ""), None);
    }

    #[test]
    fn a_figure_at_its_limit_will_do_and_one_above_it_will_not() {
        let at_the_limits = Figures {
            processed: 10_000,
            peak_states: 819,
            stack: 256,
            // Of these there are no limits.
            size: u64::MAX,
            states: u64::MAX,
            states_per_instruction: u64::MAX,
        };
        assert_eq!(at_the_limits.excesses().count(), 0);
        let above = |change: fn(&mut Figures)| {
            let mut figures = at_the_limits;
            change(&mut figures);
            let said: Vec<_> = figures.excesses().map(|e| e.to_string()).collect();
            said.join(", ")
        };
        assert_eq!(
            above(|figures| figures.processed += 1),
            "10001 instructions processed; 10000 are allowed here, and 1000000 by the kernel"
        );
        assert!(above(|figures| figures.peak_states += 1).starts_with("820 states kept;"));
        assert!(above(|figures| figures.stack += 8).starts_with("264 bytes of stack;"));
    }
}
