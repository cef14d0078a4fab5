//! What a process holds: descriptors and memory (`proc_pid_fd(5)`,
//! `proc_pid_status(5)`).

use std::fs;

/// A process, by its id.
#[derive(Clone, Copy, Debug)]
pub struct Usage(u64);

impl Usage {
    /// Of the process with this id.
    #[must_use]
    pub const fn of(pid: u64) -> Self {
        Self(pid)
    }

    /// How many descriptors it has.
    #[must_use]
    pub fn descriptors(self) -> usize {
        let folder = fs::read_dir(format!("/proc/{}/fd", self.0));
        folder.expect("its descriptors").count()
    }

    /// A number of its status: `VmRSS` and `VmHWM` in KiB, `Threads`.
    #[must_use]
    pub fn status(self, name: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.0)).expect("its status");
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.trim_start_matches(':').split_whitespace().next());
        number
            .and_then(|number| number.parse().ok())
            .unwrap_or_else(|| panic!("no {name} in {text}"))
    }

    /// What it holds in memory now, and what it held at the most, in KiB.
    #[must_use]
    pub fn resident_and_peak(self) -> (u64, u64) {
        (self.status("VmRSS"), self.status("VmHWM"))
    }
}
