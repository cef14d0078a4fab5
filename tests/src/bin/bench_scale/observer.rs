//! What a process takes, as /proc tells: proc(5).

use std::fs::read_to_string;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::param::clock_ticks_per_second;
use rustix::process::Pid;
use serde_json::{Value, json};

/// A process.
pub(crate) struct Observer(Pid);

/// Its memory, in bytes.
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    /// `VmRSS`: now.
    pub(crate) now: u64,
    /// `VmHWM`: at the most, ever.
    pub(crate) most: u64,
}

impl Observer {
    pub(crate) const fn new(process: Pid) -> Self {
        Self(process)
    }

    pub(crate) fn memory(&self) -> Memory {
        let status = self.read("status");
        let field = |name| kibibytes(&status, name).expect("a field of its status");
        Memory {
            now: field("VmRSS:"),
            most: field("VmHWM:"),
        }
    }

    /// The processor time that it took, all threads together.
    pub(crate) fn processor_time(&self) -> Duration {
        let stat = self.read("stat");
        // The name, which may hold anything, ends at the last parenthesis; from
        // there, utime and stime are fields 12 and 13.
        let (_, fields) = stat.rsplit_once(')').expect("its name");
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks
            .map(|ticks| ticks.parse::<u64>().expect("ticks"))
            .sum();
        Duration::from_millis(ticks * 1000 / clock_ticks_per_second())
    }

    /// The share of one processor that it takes in this time, in percent.
    pub(crate) fn load(&self, time: Duration) -> f64 {
        let (before, start) = (self.processor_time(), Instant::now());
        sleep(time);
        let taken = self.processor_time().saturating_sub(before);
        100.0 * taken.as_secs_f64() / start.elapsed().as_secs_f64()
    }

    /// How many threads it has, and how many descriptors.
    pub(crate) fn handles(&self) -> Value {
        let entries = |name| std::fs::read_dir(self.path(name)).map_or(0, Iterator::count);
        json!({ "threads": entries("task"), "descriptors": entries("fd") })
    }

    fn read(&self, name: &str) -> String {
        read_to_string(self.path(name)).expect("a running process")
    }

    fn path(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.0.as_raw_nonzero())
    }
}

impl Memory {
    pub(crate) fn json(self) -> Value {
        json!({ "rss_kib": self.now / 1024, "hwm_kib": self.most / 1024 })
    }
}

/// The bytes that a line such as `VmRSS:  123 kB` tells.
pub(crate) fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let number: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(number * 1024)
}
