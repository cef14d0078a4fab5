//! What issue 7 asks for, and what came of it.

use conntrack_agent::model::Protocol;
use conntrack_tests::bench::interval::Median;
use serde::{Deserialize, Serialize};

use crate::configuration::{Configuration, Ours, Variant, Watched, Way};
use crate::network::Translation;
use crate::results::tenths;
use crate::rules::COUNTS;
use crate::series::{Series, combined};
use crate::traffic::{Family, Meeting, Stream};

/// One thing that is asked for.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Target {
    /// The stream, what is asked for, and the number of rules with which it is missed
    /// most, or nearest to being missed.
    #[serde(rename = "target")]
    pub(crate) what: String,
    /// What must not be exceeded.
    pub(crate) limit: f64,
    pub(crate) unit: String,
    /// The median, and its 95 % interval.
    pub(crate) measured: f64,
    pub(crate) interval: [f64; 2],
    /// What is compared: nanoseconds over the base, ours first.
    pub(crate) compared_ns: Vec<f64>,
    /// Whether the whole interval is within the limit; of what shall be within the
    /// noise, the median.
    pub(crate) met: bool,
}

impl Target {
    fn new(what: String, limit: f64, measured: Median, compared: Vec<f64>) -> Self {
        Self {
            what,
            limit: tenths(limit),
            unit: "ns".into(),
            measured: tenths(measured.value),
            interval: [measured.low, measured.high].map(tenths),
            compared_ns: compared,
            met: measured.high <= limit,
        }
    }
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
                with_metadata(series, miss),
                watched(series, miss),
                watched(series, hit),
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
        "less than legacy iptables with one rule",
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
        "at most half of an nft map with as many rules",
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
    worst("5,000 rules over 1", stream, SPREAD, found.into_iter())
}

fn at_most_a_map(series: &Series, stream: Stream) -> Option<Target> {
    let found = COUNTS.into_iter().filter_map(|rules| {
        let compared = [ours(rules), Configuration::with(Way::Map, rules)];
        found(series, stream, rules, compared, |[ours, map]| ours - map)
    });
    worst("at most an nft map with as many rules", stream, 0.0, found)
}

/// What routers differ by that are alike, at the most: those that are like one of these.
fn noise(series: &Series, stream: Stream, of: &[Configuration]) -> Option<f64> {
    let alike = series.configurations().iter();
    let alike = alike.filter(|each| of.iter().any(|of| each.is_like(of)));
    let noise = alike.filter_map(|each| series.apart(stream, each));
    let noise = noise.map(|noise| noise.low.abs().max(noise.high.abs()));
    noise.max_by(f64::total_cmp)
}

/// That watching costs nothing that is more than that (issue 8).
fn watched(series: &Series, stream: Stream) -> Option<Target> {
    const RULES: usize = 10;
    let way = |watched| Configuration::with(Way::Ours(Ours::watched(watched)), RULES);
    let compared = [Watched::Closely, Watched::Not].map(way);
    let found = found(series, stream, RULES, compared, |[closely, not]| {
        closely - not
    })?;
    let limit = noise(series, stream, &compared)?;
    let name = stream.name();
    Some(Target {
        met: found.measured.value <= limit,
        ..Target::new(
            format!("{name}: watched over not watched, within the noise"),
            limit,
            found.measured,
            found.compared,
        )
    })
}

/// Within what routers differ by that are alike.
fn without_rules(series: &Series, stream: Stream) -> Option<Target> {
    let bases: Vec<_> = Configuration::bases(Translation::Masquerade).collect();
    let limit = noise(series, stream, &bases)?;
    let measured = series.added(stream, &ours(0))?;
    Some(Target {
        met: measured.value <= limit,
        ..Target::new(
            format!(
                "{}: a router without rules, within the noise",
                stream.name()
            ),
            limit,
            measured,
            vec![tenths(measured.value)],
        )
    })
}

/// That XDP's metadata saves the tc program time: what it takes with it, which XDP and the
/// way through it aren't part of, is no more than what it takes without.
fn with_metadata(series: &Series, stream: Stream) -> Option<Target> {
    let behind = Configuration::BEHIND_XDP;
    let compared = [behind, Configuration::XDP_ALONE];
    let found = found(series, stream, behind.rules, compared, |[behind, alone]| {
        behind - alone
    })?;
    let without = series.added(stream, &ours(behind.rules))?;
    let name = stream.name();
    Some(Target::new(
        format!("{name}: the tc program with native XDP's metadata, at most as much as without"),
        without.value,
        found.measured,
        found.compared,
    ))
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
    let [a, b] = [series.alike(stream, &ours)?, series.alike(stream, &other)?];
    let added = |of| Some(tenths(series.added(stream, of)?.value));
    Some(Found {
        rules,
        measured: combined([&a, &b, &base], |[a, b, base]| {
            compare([a - base, b - base])
        })?,
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
    let what = format!("{}: {what}; worst with {}", stream.name(), worst.rules);
    Some(Target::new(what, limit, worst.measured, worst.compared))
}
