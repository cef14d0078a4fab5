//! What the agent's process holds.

use std::fmt;
use std::fs;
use std::thread;
use std::time::Duration;

use rustix::process::Pid;

/// At one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    descriptors: usize,
    threads: usize,
    /// In KiB (`VmRSS`, `proc_pid_status(5)`).
    resident: usize,
}

/// Of memory that the allocator keeps: pages that are free inside it.
const SLACK: usize = 8 << 10;

impl Figures {
    pub(crate) fn of(pid: Pid) -> Self {
        let folder = |name: &str| {
            let folder = fs::read_dir(format!("/proc/{}/{name}", pid.as_raw_nonzero()));
            folder.expect("the agent's process").count()
        };
        let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero()));
        let status = status.expect("its status");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.and_then(|rest| rest.split_whitespace().next());
        Self {
            descriptors: folder("fd"),
            threads: folder("task"),
            resident: resident
                .and_then(|number| number.parse().ok())
                .expect("a size"),
        }
    }

    /// The least of each, in two seconds: requests come and go meanwhile.
    pub(crate) fn least(pid: Pid) -> Self {
        let samples = (0..40).map(|_| {
            thread::sleep(Duration::from_millis(50));
            Self::of(pid)
        });
        let least = samples.reduce(|one, other| Self {
            descriptors: one.descriptors.min(other.descriptors),
            threads: one.threads.min(other.threads),
            resident: one.resident.min(other.resident),
        });
        least.expect("forty")
    }

    /// Whether it holds no more than at that moment.
    pub(crate) fn is_flat_since(&self, warm: &Self) -> bool {
        self.descriptors <= warm.descriptors
            && self.threads <= warm.threads
            && self.resident <= warm.resident + warm.resident / 10 + SLACK
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            descriptors,
            threads,
            resident,
        } = self;
        write!(
            formatter,
            "{descriptors} descriptors, {threads} threads, {resident} KiB"
        )
    }
}
