//! How long the kernel's grace periods are here.
//!
//! Attaching to tcx ends with `synchronize_rcu` (`tcx_inc`'s static branch and
//! `tcx_entry_sync`, `include/net/tcx.h`), and so does `MEMBARRIER_CMD_GLOBAL`
//! (`kernel/sched/membarrier.c`): what the one takes, the other waits for. Taken
//! alone: beside a start each would lengthen the other.

use conntrack_tests::bench::samples::Samples;
use rustix::thread::{MembarrierCommand, membarrier};

const COUNT: usize = 200;

/// One after the other.
pub(crate) fn periods() -> Samples {
    let mut samples = Samples::default();
    for _ in 0..COUNT {
        samples.time(|| membarrier(MembarrierCommand::Global).expect("membarrier(2)"));
    }
    samples
}
