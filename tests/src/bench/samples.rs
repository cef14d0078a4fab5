//! Times of one thing, and what a reader wants to know of them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long one thing took, each time.
#[derive(Clone, Default)]
pub struct Samples(Vec<Duration>);

impl Samples {
    /// Does `work`, and takes its time.
    pub fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        self.add(start.elapsed());
        result
    }

    /// One more.
    pub fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// The time that this many percent of them did not exceed.
    #[must_use]
    pub fn percentile(&self, percent: usize) -> Option<Duration> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let last = sorted.len().checked_sub(1)?;
        sorted.get((last * percent + 50) / 100).copied()
    }

    /// In microseconds.
    #[must_use]
    pub fn json(&self) -> Value {
        let at = |percent| self.percentile(percent).map(micros);
        json!({
            "samples": self.0.len(),
            "p10_us": at(10), "p50_us": at(50), "p90_us": at(90), "p99_us": at(99),
        })
    }
}

/// In microseconds, to a tenth of one.
#[must_use]
pub fn micros(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e7).round() / 10.0
}

/// With three digits and the unit that they need.
#[must_use]
pub fn shown(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let (value, unit) = match seconds {
        1.0.. => (seconds, "s"),
        1e-3.. => (seconds * 1e3, "ms"),
        _ => (seconds * 1e6, "µs"),
    };
    let decimals = match value {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    format!("{value:.decimals$} {unit}")
}
