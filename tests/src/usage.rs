//! What a process holds and uses: descriptors, memory and processor time
//! (`proc_pid_fd(5)`, `proc_pid_status(5)`, `proc_pid_stat(5)`).

use std::fs;

use crate::wait;

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

    /// How many descriptors it has, if that is the same at so many looks in a row.
    #[must_use]
    pub fn steady_descriptors(self, looks: usize) -> Option<usize> {
        let first = self.descriptors();
        let is_same = |_| {
            wait::for_nothing();
            self.descriptors() == first
        };
        (0..looks).all(is_same).then_some(first)
    }

    /// The processor's ticks that it has used.
    #[must_use]
    pub fn ticks(self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0)).expect("its stat");
        let fields = stat.rsplit_once(')').expect("a name").1.split_whitespace();
        let used = fields.skip(11).take(2);
        used.map(|field| field.parse::<u64>().expect("ticks")).sum()
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
