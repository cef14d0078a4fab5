//! What else went on while it was measured.

use std::fs::read_to_string;

use serde::{Deserialize, Serialize};

/// Load and stolen time, without which small differences mean nothing.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub struct Circumstances {
    /// Processes that ran or wanted to, as an average of a minute (`proc_loadavg(5)`).
    pub load_before: String,
    /// The same at the end.
    pub load_after: String,
    /// The CPU that was measured on.
    pub cpu: usize,
    /// Percent of its time that the hypervisor gave to others meanwhile.
    pub steal_percent: f64,
    /// The same of all CPUs.
    pub steal_percent_of_all: f64,
    /// Percent of the other CPUs' time in which they were not idle.
    pub others_busy_percent: Option<f64>,
    /// Whether programs are compiled (`net.core.bpf_jit_enable`).
    pub bpf_jit: String,
    /// What indirect calls cost (`/sys/devices/system/cpu/vulnerabilities`).
    pub spectre_v2: String,
    /// What returns cost, likewise.
    #[serde(default)]
    pub spec_rstack_overflow: String,
}

/// The counters at one time.
pub struct Before {
    cpu: usize,
    load: String,
    this: Ticks,
    all: Ticks,
}

/// Of /proc/stat (`proc_stat(5)`).
#[derive(Clone, Copy)]
struct Ticks {
    total: u64,
    idle: u64,
    steal: u64,
}

impl Before {
    /// Now; the measurement will be on this CPU.
    #[must_use]
    pub fn now(cpu: usize) -> Self {
        let stat = read_to_string("/proc/stat").unwrap_or_default();
        Self {
            cpu,
            load: load(),
            this: Ticks::of(&stat, &format!("cpu{cpu}")),
            all: Ticks::of(&stat, "cpu"),
        }
    }

    /// What it was like since then.
    #[must_use]
    pub fn until_now(self) -> Circumstances {
        let now = Self::now(self.cpu);
        let (this, all) = (now.this.since(self.this), now.all.since(self.all));
        let others = all.since(this);
        // Over no time at all, none.
        #[expect(clippy::cast_precision_loss, reason = "ticks of a run")]
        let percent = |part: u64, whole: u64| {
            let percent = 100.0 * part as f64 / whole.max(1) as f64;
            (percent * 100.0).round() / 100.0
        };
        let read = |path| read_to_string(path).unwrap_or_default().trim().to_owned();
        Circumstances {
            load_before: self.load,
            load_after: now.load,
            cpu: self.cpu,
            steal_percent: percent(this.steal, this.total),
            steal_percent_of_all: percent(all.steal, all.total),
            others_busy_percent: (others.total > 0)
                .then(|| percent(others.total - others.idle, others.total)),
            bpf_jit: read("/proc/sys/net/core/bpf_jit_enable"),
            spectre_v2: read("/sys/devices/system/cpu/vulnerabilities/spectre_v2"),
            spec_rstack_overflow: read(
                "/sys/devices/system/cpu/vulnerabilities/spec_rstack_overflow",
            ),
        }
    }
}

impl Ticks {
    /// user nice system idle iowait irq softirq steal; what follows is part of these.
    fn of(stat: &str, name: &str) -> Self {
        let mut lines = stat.lines().map(str::split_whitespace);
        let fields = lines.find_map(|mut words| (words.next() == Some(name)).then_some(words));
        let mut ticks = [0; 8];
        let fields = fields.into_iter().flatten();
        for (tick, field) in ticks.iter_mut().zip(fields) {
            *tick = field.parse().unwrap_or_default();
        }
        let [_, _, _, idle, iowait, _, _, steal] = ticks;
        Self {
            total: ticks.iter().sum(),
            idle: idle + iowait,
            steal,
        }
    }

    fn since(self, earlier: Self) -> Self {
        Self {
            total: self.total - earlier.total,
            idle: self.idle - earlier.idle,
            steal: self.steal - earlier.steal,
        }
    }
}

fn load() -> String {
    let text = read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "cpu  100 0 50 800 10 0 30 10 5 0\ncpu0 50 0 25 400 5 0 15 5 5 0\n";

    #[test]
    fn what_guests_had_is_not_counted_twice() {
        let ticks = Ticks::of(STAT, "cpu");
        assert_eq!([ticks.total, ticks.idle, ticks.steal], [1000, 810, 10]);
        let others = ticks.since(Ticks::of(STAT, "cpu0"));
        assert_eq!([others.total, others.idle, others.steal], [500, 405, 5]);
    }
}
