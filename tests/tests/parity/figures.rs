//! What a run has sent and seen: a comparison of two empty tables shows nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use conntrack_tests::ctnetlink::Tuple;

use crate::grammar::{Flow, Step, helper_names};
use crate::known::Known;
use crate::rig::Outcome;
use crate::rules;
use crate::wire::Family;

#[derive(Default)]
pub(crate) struct Figures {
    pub(crate) packets: usize,
    pub(crate) differences: usize,
    /// That are meant to be.
    known: BTreeMap<Known, usize>,
    connections: usize,
    /// By helper; without one, by "-".
    with: BTreeMap<String, usize>,
    /// That were announced by another.
    expected: usize,
    expectations: usize,
    /// That began with a packet in fragments; of these, with a helper.
    fragmented: [usize; 2],
    protocols: BTreeMap<u8, usize>,
}

impl Figures {
    /// Counts on iptables' side, which is the measure.
    pub(crate) fn add(&mut self, steps: &[Step], outcome: &Outcome, differences: usize) {
        let tables = &outcome.reference;
        let sent = steps.iter().map(|step| step.frames.len());
        self.packets += sent.sum::<usize>();
        self.differences += differences;
        self.connections += tables.connections.len();
        self.expectations += tables.expectations.len();
        for (tuple, state) in &tables.connections {
            let helper = state.helper.as_deref().unwrap_or("-");
            *self.with.entry(helper.to_owned()).or_default() += 1;
            *self.protocols.entry(tuple.protocol).or_default() += 1;
            self.expected += usize::from(state.is_expected());
        }
        let fragmented = steps.iter().filter_map(|step| step.fragmented);
        for flow in fragmented {
            if let Some(state) = tables.connections.get(&tuple(&flow)) {
                self.fragmented[0] += 1;
                self.fragmented[1] += usize::from(state.helper.is_some());
            }
        }
    }

    pub(crate) fn add_known(&mut self, known: Known) {
        *self.known.entry(known).or_default() += 1;
    }

    /// Fails where something was not met at all.
    pub(crate) fn assert_complete(&self, family: Family) {
        let seen: BTreeSet<_> = self.with.keys().map(String::as_str).collect();
        for helper in helper_names().filter(|name| rules::serves(family, name)) {
            assert!(seen.contains(helper), "no connection with {helper}: {self}");
        }
        for (what, count) in [
            (
                "connections without a helper",
                self.with.get("-").copied().unwrap_or(0),
            ),
            ("announced connections", self.expected),
            ("fragmented first packets", self.fragmented[0]),
            ("fragmented first packets with a helper", self.fragmented[1]),
        ] {
            assert!(count > 0, "no {what}: {self}");
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            packets,
            differences,
            known,
            connections,
            with,
            expected,
            expectations,
            fragmented: [fragmented, fragmented_with],
            protocols,
        } = self;
        write!(
            f,
            "{packets} packets, {differences} differences and {known:?}, {connections} connections (by helper \
             {with:?}, by protocol {protocols:?}), {expected} announced, {expectations} still \
             expected, {fragmented} began in fragments, {fragmented_with} of them with a helper"
        )
    }
}

fn tuple(flow: &Flow) -> Tuple {
    Tuple {
        source: flow.source,
        destination: flow.destination,
        protocol: flow.protocol,
        source_port: flow.ports.source,
        destination_port: flow.ports.destination,
        icmp: [0; 3],
    }
}
