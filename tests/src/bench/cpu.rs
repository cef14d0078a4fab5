//! One CPU for the measurement, and the others for everything else.

use std::io;
use std::process::Command;

use rustix::thread::{CpuSet, gettid, sched_getaffinity, sched_setaffinity};

/// The CPU that packets are sent, forwarded and counted on.
#[derive(Clone, Copy)]
pub struct Reserved {
    cpu: usize,
}

impl Reserved {
    /// The last of those that this thread may run on. From now on the thread, and all
    /// that it starts, run on the others, if there are any.
    #[must_use]
    pub fn last() -> Self {
        let mut others = sched_getaffinity(None).expect("the processors");
        let mut cpus = (0..CpuSet::MAX_CPU).rev();
        let cpu = cpus.find(|cpu| others.is_set(*cpu)).expect("a processor");
        if others.count() > 1 {
            others.unset(cpu);
            run_on(&others);
        }
        Self { cpu }
    }

    /// Has this thread run there, and before others.
    pub fn enter(self) {
        let mut one = CpuSet::new();
        one.set(self.cpu);
        run_on(&one);
        // Before all that has no priority of its own (sched(7)). Being nice is not
        // enough: between sessions it doesn't count (autogroups).
        let thread = gettid().as_raw_nonzero().to_string();
        let mut chrt = Command::new("chrt");
        chrt.args(["--fifo", "--pid", "1", &thread]);
        let status = chrt.status().expect("chrt, of util-linux");
        assert!(status.success(), "{chrt:?}: {status}");
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> usize {
        self.cpu
    }
}

fn run_on(cpus: &CpuSet) {
    sched_setaffinity(None, cpus)
        .map_err(io::Error::from)
        .expect("processors of its own");
}
