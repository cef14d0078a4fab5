//! The file with the results: all that the charts are drawn from.

use std::path::Path;

use conntrack_tests::bench::interval::Median;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::circumstances::Circumstances;
use crate::configuration::Configuration;
use crate::measure::SLICE;
use crate::network::Translation;
use crate::series::Series;
use crate::targets::{self, Target};

/// All of it.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Results {
    pub(crate) bench: String,
    pub(crate) machine: Value,
    pub(crate) circumstances: Circumstances,
    pub(crate) method: Method,
    pub(crate) targets: Vec<Target>,
    pub(crate) routers: Vec<Router>,
}

/// How it was measured.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Method {
    /// Slices of each stream through each router; each is compared with the base's of
    /// the same cycle.
    pub(crate) cycles: usize,
    pub(crate) slice_ms: f64,
    pub(crate) interval: String,
    pub(crate) packets: String,
    pub(crate) rules: String,
}

/// One router.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Router {
    pub(crate) way: String,
    pub(crate) rules: usize,
    pub(crate) nat: bool,
    /// Which of several that are alike.
    pub(crate) copy: usize,
    pub(crate) streams: Vec<Cost>,
}

/// What one stream's packets cost in it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Cost {
    pub(crate) stream: String,
    /// How many were timed.
    pub(crate) packets: u64,
    /// Nanoseconds a packet, sending it and dropping it included.
    pub(crate) whole_ns: Estimate,
    /// Nanoseconds more than in the base; none of the base itself.
    pub(crate) added_ns: Option<Estimate>,
}

/// A median with the interval that has the true one with a probability of 95 %.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Estimate {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl From<Median> for Estimate {
    fn from(median: Median) -> Self {
        let tenths = |value: f64| (value * 10.0).round() / 10.0;
        Self {
            median: tenths(median.value),
            low: tenths(median.low),
            high: tenths(median.high),
        }
    }
}

impl Results {
    /// Those of a whole run.
    pub(crate) fn new(machine: Value, circumstances: Circumstances, series: &Series) -> Self {
        let routers = series.configurations().iter();
        Self {
            bench: "datapath".into(),
            machine,
            circumstances,
            method: Method {
                cycles: series.cycles(),
                slice_ms: SLICE.as_secs_f64() * 1e3,
                interval: "95 %, by order statistics of the cycles' differences".into(),
                packets: "TCP: 40 bytes (IPv4), 60 (IPv6), an ACK without data; \
                          UDP: 32 (IPv4), 52 (IPv6); all of one established connection a \
                          stream and router"
                    .into(),
                rules: "TCP and UDP in turn; what hits does so on the last rule of its \
                        protocol; iptables walks all rules for every packet, wherever the \
                        hit is (XT_CONTINUE); one rule is for TCP"
                    .into(),
            },
            targets: targets::all(series),
            routers: routers.map(|of| Router::new(of, series)).collect(),
        }
    }

    /// Those in a file.
    pub(crate) fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// For a file.
    pub(crate) fn json(&self) -> Value {
        serde_json::to_value(self).expect("numbers and text")
    }

    /// The router with NAT that has this way and so many rules.
    pub(crate) fn router(&self, way: &str, rules: usize) -> Option<&Router> {
        let is_it = |router: &&Router| {
            router.nat && router.copy == 0 && router.way == way && router.rules == rules
        };
        self.routers.iter().find(is_it)
    }
}

impl Router {
    fn new(of: &Configuration, series: &Series) -> Self {
        let base = of.base();
        let streams = series.streams().iter();
        let costs = streams.filter_map(|stream| {
            let added = series.difference(*stream, of, &base);
            Some(Cost {
                stream: stream.name(),
                packets: series.packets(*stream, of),
                whole_ns: series.absolute(*stream, of)?.into(),
                added_ns: added.filter(|_| *of != base).map(Estimate::from),
            })
        });
        Self {
            way: of.way.name().into(),
            rules: of.rules,
            nat: of.translation == Translation::Masquerade,
            copy: of.copy,
            streams: costs.collect(),
        }
    }

    /// What a stream's packets cost in it.
    pub(crate) fn cost(&self, stream: &str) -> Option<&Cost> {
        self.streams.iter().find(|cost| cost.stream == stream)
    }

    /// What they cost more than in the base.
    pub(crate) fn added(&self, stream: &str) -> Option<Estimate> {
        self.cost(stream)?.added_ns
    }
}
