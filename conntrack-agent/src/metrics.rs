//! The agent's own metrics, and their registry.
//!
//! Names and units as Prometheus's conventions want them (prometheus.io,
//! "Metric and label naming"); every label has few values.

mod exposition;

use std::{
    fmt,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use prometheus_client::{
    collector::Collector,
    encoding::text,
    metrics::{counter::Counter, family::Family, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};

pub use exposition::Exposition;
use exposition::Writer;

use crate::{
    audit::RequestOperation,
    reconcile::{EffectKind, Summary},
};

/// The prefix of all metric names.
pub const PREFIX: &str = "conntrack_agent";

/// The upper bounds of the duration buckets, in seconds: from a read out of memory to a
/// change that waits behind a pass over a thousand routers.
const SECONDS: [f64; 15] = [
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// The results of work that isn't done for a request.
const RESULTS: [&str; 2] = ["done", "failed"];

/// A label's name and value.
type Label = (&'static str, &'static str);

/// The occasion on which a router was reconciled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// The router's rules were to change, or the agent started.
    Wanted,
    /// Something had happened on the host, without a request.
    Unasked,
}

/// The agent's metrics since its start.
pub struct Metrics {
    registry: Registry,
    reconciliations: Family<[Label; 1], Counter>,
    effects: Family<[Label; 1], Counter>,
    repairs: Family<[Label; 1], Counter>,
    commits: Family<[Label; 1], Counter>,
    requests: Family<[Label; 2], Counter>,
    durations: Family<[Label; 1], Histogram, fn() -> Histogram>,
    /// The length of the last text, in bytes.
    length: AtomicUsize,
}

impl Metrics {
    /// Creates the metrics, with nothing counted yet.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let histogram: fn() -> Histogram = || Histogram::new(SECONDS);
        let durations = Family::new_with_constructor(histogram);
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The agent's version", build);
        let mut counters = |name, help| {
            let family = Family::<[Label; 1], Counter>::default();
            registry.register(name, help, family.clone());
            family
        };
        let reconciliations = counters(
            "reconciliations",
            "Routers that were compared with the kernel, by result",
        );
        let effects = counters(
            "effects",
            "Changes that the agent made in the kernel, by kind",
        );
        let repairs = counters(
            "repairs",
            "Those of the effects that no request or start asked for: for namespaces and interfaces that came or went, after failures, and for what somebody had taken away",
        );
        let commits = counters("store_commits", "Changes brought to the store, by result");
        let requests = Family::<[Label; 2], Counter>::default();
        registry.register(
            "requests",
            "Requests to the API, by what was asked for and what became of it",
            requests.clone(),
        );
        registry.register_with_unit(
            "request_duration",
            "From a request's head to its answer, by what was asked for",
            Unit::Seconds,
            durations.clone(),
        );
        // All kinds exist from the start: a missing series doesn't count as 0 in a query
        // for its increase.
        for kind in EffectKind::ALL {
            drop(effects.get_or_create(&[("kind", kind.name())]));
            drop(repairs.get_or_create(&[("kind", kind.name())]));
        }
        for result in RESULTS {
            drop(reconciliations.get_or_create(&[("result", result)]));
            drop(commits.get_or_create(&[("result", result)]));
        }
        for operation in RequestOperation::KNOWN.map(RequestOperation::name) {
            for outcome in ["done", "refused", "not_allowed", "failed"] {
                let asked = [("operation", operation), ("outcome", outcome)];
                drop(requests.get_or_create(&asked));
            }
        }
        Self {
            registry,
            reconciliations,
            effects,
            repairs,
            commits,
            requests,
            durations,
            length: AtomicUsize::new(0),
        }
    }

    /// Counts a pass over routers.
    pub fn looked(&self, summary: &Summary, occasion: Occasion) {
        for (result, count) in RESULTS.into_iter().zip([summary.done, summary.failed]) {
            let counter = self.reconciliations.get_or_create(&[("result", result)]);
            counter.inc_by(count as u64);
        }
        for (kind, count) in summary.effects.kinds() {
            let kind = [("kind", kind.name())];
            self.effects.get_or_create(&kind).inc_by(count as u64);
            if occasion == Occasion::Unasked {
                self.repairs.get_or_create(&kind).inc_by(count as u64);
            }
        }
    }

    /// Counts a commit to the store, by whether it succeeded.
    pub fn committed(&self, is_done: bool) {
        let [done, failed] = RESULTS;
        let result = if is_done { done } else { failed };
        self.commits.get_or_create(&[("result", result)]).inc();
    }

    /// Counts an answered request and its duration.
    pub fn answered(&self, operation: &'static str, outcome: &'static str, took: Duration) {
        let operation = ("operation", operation);
        let asked = [operation, ("outcome", outcome)];
        self.requests.get_or_create(&asked).inc();
        let duration = self.durations.get_or_create(&[operation]);
        duration.observe(took.as_secs_f64());
    }

    /// Returns all metrics, and those of `gathered`, as text.
    ///
    /// # Errors
    /// Returns [`fmt::Error`] if the metrics of `gathered` can't be written.
    pub fn text(
        &self,
        gathered: impl Collector,
        exposition: Exposition,
    ) -> Result<String, fmt::Error> {
        let mut elsewhere = Registry::with_prefix(PREFIX);
        elsewhere.register_collector(Box::new(gathered));
        // Room for the length of the last text, and a little more.
        let room = self.length.load(Ordering::Relaxed);
        let mut all = Writer::new(exposition, room + room / 16);
        text::encode_registry(&mut all, &self.registry)?;
        text::encode_registry(&mut all, &elsewhere)?;
        text::encode_eof(&mut all)?;
        let all = all.text();
        self.length.store(all.len(), Ordering::Relaxed);
        Ok(all)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Metrics").finish_non_exhaustive()
    }
}
