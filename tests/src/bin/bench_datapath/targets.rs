//! What issue 7 asks for, and what came of it.

use conntrack_agent::model::Protocol;
use conntrack_tests::bench::interval::Median;
use serde::{Deserialize, Serialize};

use crate::configuration::{Configuration, Ours, Variant, Way};
use crate::network::Translation;
use crate::results::{Estimate, tenths};
use crate::rules::COUNTS;
use crate::series::{Series, combined};
use crate::traffic::{Family, Meeting, Stream};

/// One thing that is asked for.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Target {
    pub(crate) what: String,
    pub(crate) stream: String,
    /// Where it is missed most, or nearest to being missed.
    pub(crate) worst_at: String,
    /// Nanoseconds that must not be exceeded.
    pub(crate) limit_ns: f64,
    pub(crate) measured_ns: Estimate,
    /// What is compared: nanoseconds over the base, ours first.
    pub(crate) compared_ns: Vec<f64>,
    /// Whether the whole interval is within the limit.
    pub(crate) met: bool,
}

/// A comparison at one number of rules.
struct Found {
    rules: usize,
    measured: Median,
    compared: Vec<f64>,
}

/// Of ours, as it is by default.
const fn ours(rules: usize) -> Configuration {
    Configuration::with(Way::Ours(Ours::DEFAULT), rules)
}

/// All of them.
pub(crate) fn all(series: &Series) -> Vec<Target> {
    let mut targets = Vec::new();
    for family in Family::ALL {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let stream = |meeting| Stream {
                family,
                protocol,
                meeting,
            };
            let (miss, hit) = (stream(Meeting::Miss), stream(Meeting::Hit));
            targets.extend([
                below_one_rule(series, miss),
                half_of_a_map(series, miss),
                flat(series, miss),
                at_most_a_map(series, hit),
                without_rules(series, miss),
            ]);
        }
    }
    targets.into_iter().flatten().collect()
}

fn below_one_rule(series: &Series, stream: Stream) -> Option<Target> {
    let legacy = Configuration::with(Way::Neutron(Variant::Legacy), 1);
    let found = COUNTS.into_iter().filter_map(|rules| {
        let compared = [ours(rules), legacy];
        found(series, stream, rules, compared, |[ours, legacy]| {
            ours - legacy
        })
    });
    worst(
        "a miss: less than legacy iptables with one rule",
        stream,
        0.0,
        found,
    )
}

fn half_of_a_map(series: &Series, stream: Stream) -> Option<Target> {
    let found = COUNTS.into_iter().filter_map(|rules| {
        let compared = [ours(rules), Configuration::with(Way::Map, rules)];
        found(series, stream, rules, compared, |[ours, map]| {
            ours - map / 2.0
        })
    });
    worst(
        "a miss: at most half of the nft map with as many rules",
        stream,
        0.0,
        found,
    )
}

fn flat(series: &Series, stream: Stream) -> Option<Target> {
    /// Nanoseconds between the fewest rules and the most.
    const SPREAD: f64 = 40.0;
    let [fewest, .., most] = COUNTS;
    let compared = [ours(most), ours(fewest)];
    let found = found(series, stream, most, compared, |[most, fewest]| {
        most - fewest
    });
    worst(
        "a miss: 5,000 rules over 1",
        stream,
        SPREAD,
        found.into_iter(),
    )
}

fn at_most_a_map(series: &Series, stream: Stream) -> Option<Target> {
    let found = COUNTS.into_iter().filter_map(|rules| {
        let compared = [ours(rules), Configuration::with(Way::Map, rules)];
        found(series, stream, rules, compared, |[ours, map]| ours - map)
    });
    worst(
        "a hit: at most the nft map with as many rules",
        stream,
        0.0,
        found,
    )
}

/// Within what routers differ by that are alike.
fn without_rules(series: &Series, stream: Stream) -> Option<Target> {
    let bases = Configuration::bases(Translation::Masquerade);
    let noise = bases.filter_map(|base| series.added(stream, &base));
    let noise = noise.map(|noise| noise.low.abs().max(noise.high.abs()));
    let limit = noise.max_by(f64::total_cmp)?;
    let measured = series.added(stream, &ours(0))?;
    Some(Target {
        what: "a router without rules: within the noise".into(),
        stream: stream.name(),
        worst_at: "no rules".into(),
        limit_ns: tenths(limit),
        measured_ns: measured.into(),
        compared_ns: vec![tenths(measured.value)],
        met: measured.value <= limit,
    })
}

/// Compares what two routers take more than the base.
fn found(
    series: &Series,
    stream: Stream,
    rules: usize,
    [ours, other]: [Configuration; 2],
    compare: impl Fn([f64; 2]) -> f64,
) -> Option<Found> {
    let base = series.base(stream, ours.translation, None);
    let [a, b] = [series.whole(stream, &ours)?, series.whole(stream, &other)?];
    let added = |of| Some(tenths(series.added(stream, of)?.value));
    Some(Found {
        rules,
        measured: combined([a, b, &base], |[a, b, base]| compare([a - base, b - base]))?,
        compared: vec![added(&ours)?, added(&other)?],
    })
}

fn worst(
    what: &str,
    stream: Stream,
    limit: f64,
    found: impl Iterator<Item = Found>,
) -> Option<Target> {
    let worst = found.max_by(|a, b| a.measured.high.total_cmp(&b.measured.high))?;
    Some(Target {
        what: what.into(),
        stream: stream.name(),
        worst_at: format!("{} rules", worst.rules),
        limit_ns: limit,
        measured_ns: worst.measured.into(),
        compared_ns: worst.compared,
        met: worst.measured.high <= limit,
    })
}
