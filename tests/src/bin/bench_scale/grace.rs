//! How long the kernel's grace periods are just then.
//!
//! Attaching to tcx ends with `synchronize_rcu` (`tcx_inc`'s static branch and
//! `tcx_entry_sync`, `include/net/tcx.h`), and so does `MEMBARRIER_CMD_GLOBAL`
//! (`kernel/sched/membarrier.c`): what the one takes, the other waits for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::Duration;

use conntrack_tests::bench::samples::Samples;
use rustix::thread::{MembarrierCommand, membarrier};

/// Between two of them, so that they are a small part of what goes on.
const PAUSE: Duration = Duration::from_millis(50);

/// Does `work`, and takes the time of grace periods meanwhile.
pub(crate) fn beside<T>(work: impl FnOnce() -> T) -> (T, Samples) {
    let over = AtomicBool::new(false);
    scope(|scope| {
        let measuring = scope.spawn(|| {
            let mut samples = Samples::default();
            while !over.load(Ordering::Relaxed) {
                samples.time(|| membarrier(MembarrierCommand::Global).expect("membarrier(2)"));
                sleep(PAUSE);
            }
            samples
        });
        // Over also when `work` panics: the scope waits for its threads.
        let over_at_last = Over(&over);
        let result = work();
        drop(over_at_last);
        (result, measuring.join().expect("the times"))
    })
}

struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
