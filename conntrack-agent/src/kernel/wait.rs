//! Waits until no CPU runs a program that was replaced.

use std::{thread, time::Duration};

use rustix::thread::{MembarrierCommand, membarrier};
use tracing::debug;

/// The time to wait where the kernel can't be asked. A program runs for less than
/// a microsecond, unless its CPU is taken away, as a virtual machine's can be.
const LONG_ENOUGH: Duration = Duration::from_millis(100);

/// Waits until every run of a program that had already begun has ended.
///
/// A program runs in an RCU read-side section, and `MEMBARRIER_CMD_GLOBAL` waits
/// for a grace period (`kernel/sched/membarrier.c`), some 10 ms. The command is
/// refused on a host with CPUs in `nohz_full` (membarrier(2): EINVAL).
pub(crate) fn wait_for_programs() {
    if let Err(error) = membarrier(MembarrierCommand::Global) {
        debug!(%error, "no membarrier");
        thread::sleep(LONG_ENOUGH);
    }
}
