//! The file with the results: all that the charts are drawn from.

use std::path::Path;

use conntrack_tests::bench::interval::Median;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::configuration::Configuration;
use crate::measure::SLICE;
use crate::network::Translation;
use crate::series::{Series, combined};
use crate::targets::{self, Target};
use conntrack_tests::bench::circumstances::Circumstances;

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
    /// Slices of each stream through each router; each is compared with the bases' of
    /// the same cycle.
    pub(crate) cycles: usize,
    pub(crate) slice_ms: f64,
    pub(crate) order: String,
    pub(crate) base: String,
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
    /// Nanoseconds more than in the bases; of a base, than in the others.
    pub(crate) added_ns: Estimate,
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
        Self {
            median: tenths(median.value),
            low: tenths(median.low),
            high: tenths(median.high),
        }
    }
}

/// As exact as it is worth.
pub(crate) fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

impl Results {
    /// Those of a whole run.
    pub(crate) fn new(machine: Value, circumstances: Circumstances, series: &Series) -> Self {
        // Copies are in the first one's figures, but for the bases', which show the noise.
        let routers = series.configurations().iter();
        let routers = routers.filter(|of| of.copy == 0 || of.is_base());
        Self {
            bench: "datapath".into(),
            machine,
            circumstances,
            method: Method {
                cycles: series.cycles(),
                slice_ms: SLICE.as_secs_f64() * 1e3,
                order: "streams of a cycle, and routers of a stream, at random; on one CPU, \
                        before all other processes"
                    .into(),
                base: "of several routers that are alike, the median of each cycle; what one \
                       of them differs by from the others is noise; likewise of what a target \
                       is about"
                    .into(),
                interval: "95 %, by order statistics of the cycles' differences".into(),
                packets: "TCP: 40 bytes (IPv4), 60 (IPv6), an ACK without data; \
                          UDP: 32 (IPv4), 52 (IPv6); all of one established connection a \
                          stream and router"
                    .into(),
                rules: "TCP and UDP in turn; what hits does so on the last rule of its \
                        protocol; iptables walks all rules for every packet, wherever the \
                        hit is (XT_CONTINUE); one rule is for TCP, and UDP is passed over \
                        by its protocol alone"
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
        let streams = series.streams().iter();
        let costs = streams.filter_map(|stream| {
            let whole = if of.is_base() {
                series.whole(*stream, of)?.clone()
            } else {
                series.alike(*stream, of)?
            };
            let whole = combined([&whole], |[whole]| whole)?;
            Some(Cost {
                stream: stream.name(),
                packets: series.packets(*stream, of),
                whole_ns: whole.into(),
                added_ns: series.added(*stream, of)?.into(),
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

    /// What they cost more than in the bases.
    pub(crate) fn added(&self, stream: &str) -> Option<Estimate> {
        Some(self.cost(stream)?.added_ns)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Of one router and one stream.
    pub(crate) fn some() -> Results {
        serde_json::from_str(FILE).expect("a file")
    }

    const FILE: &str = r#"{
        "bench": "datapath", "machine": { "kernel": "6.18" },
        "circumstances": {
            "load_before": "0.10", "load_after": "0.20", "cpu": 1, "steal_percent": 0.01,
            "steal_percent_of_all": 0.0, "others_busy_percent": null,
            "bpf_jit": "1", "spectre_v2": "Mitigation: Retpolines"
        },
        "method": {
            "cycles": 3, "slice_ms": 0.5, "order": "", "base": "", "interval": "",
            "packets": "", "rules": ""
        },
        "targets": [{
            "target": "IPv4 TCP miss: flat", "limit": 40.0, "unit": "ns", "measured": 1.5,
            "interval": [-1.0, 2.0], "compared_ns": [97.5, 96.0], "met": true
        }],
        "routers": [{
            "way": "ours", "rules": 10, "nat": true, "copy": 0,
            "streams": [{
                "stream": "IPv4 TCP miss", "packets": 300,
                "whole_ns": { "median": 3600.0, "low": 3590.0, "high": 3610.0 },
                "added_ns": { "median": 97.5, "low": 93.0, "high": 100.0 }
            }]
        }]
    }"#;

    const ESTIMATE: &str = "Estimate { median: 97.5, low: 93.0, high: 100.0 }";

    #[test]
    fn what_is_written_is_read_back() {
        let results = some();
        let ours = results.router("ours", 10).expect("the router");
        let added = ours.added("IPv4 TCP miss").expect("its stream");
        assert_eq!(format!("{added:?}"), ESTIMATE);
        assert_eq!(ours.added("IPv6 TCP miss"), None);
        assert!(results.router("ours", 11).is_none());

        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("datapath.json");
        std::fs::write(&path, results.json().to_string()).expect("a file");
        assert_eq!(Results::read(&path), results);
    }
}
