//! The same packets through a router with Neutron's iptables chains and through
//! one with ours: their conntrack tables must be equal, connection by connection.
//!
//! `PARITY_PACKETS` says how many for each family and way (`cargo xtask test
//! --parity` sends a million), `PARITY_SEED` repeats another run.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "tests panic, where and with what they found"
)]

#[path = "parity/compare.rs"]
mod compare;
#[path = "parity/damage.rs"]
mod damage;
#[path = "parity/dialogue.rs"]
mod dialogue;
#[path = "parity/figures.rs"]
mod figures;
#[path = "parity/fragments.rs"]
mod fragments;
#[path = "parity/grammar.rs"]
mod grammar;
#[path = "parity/known.rs"]
mod known;
#[path = "parity/minimise.rs"]
mod minimise;
#[path = "parity/network.rs"]
mod network;
#[path = "parity/rig.rs"]
mod rig;
#[path = "parity/rules.rs"]
mod rules;
#[path = "parity/transport.rs"]
mod transport;
#[path = "parity/wire.rs"]
mod wire;

use std::collections::BTreeSet;
use std::env;
use std::time::Instant;

use conntrack_tests::helpers::Rule;
use fastrand::Rng;

use compare::{Difference, differences};
use figures::Figures;
use grammar::Grammar;
use known::known;
use minimise::explain;
use network::Packet;
use rig::{CutOff, Rig, Tables, Way};
use transport::{SYN, Segment, TCP};
use wire::{Family, Frame};

const PACKETS: usize = 20_000;
/// Frames between two looks at the tables.
const BATCH: usize = 4_000;
/// Batches with one set of rules, at the most.
const BATCHES: usize = 8;

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable}: {text}")))
}

fn packets() -> usize {
    number("PARITY_PACKETS").map_or(PACKETS, |count| usize::try_from(count).expect("a number"))
}

fn check(way: Way, family: Family) {
    let seed = number("PARITY_SEED").unwrap_or_else(|| fastrand::u64(..));
    let packets = packets();
    println!("parity: {way:?} {family:?}, {packets} packets, PARITY_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let mut rig = Rig::new(way, family);
    let mut figures = Figures::default();
    let mut rules = Vec::new();
    let mut kinds = BTreeSet::new();
    let start = Instant::now();
    // At least four sets of rules.
    let batches_a_set = packets.div_ceil(BATCH).div_ceil(4).min(BATCHES);
    for batch in 0.. {
        if figures.packets >= packets {
            break;
        }
        if batch % batches_a_set == 0 {
            rules = rules::random(&mut rng);
            rig.set_rules(&rules);
        }
        let id = u32::try_from(batch * BATCH).expect("a number");
        let mut grammar = Grammar::new(family, &rules, rng.u64(..), id);
        let steps = grammar.steps(BATCH);
        let outcome = rig.run(steps.iter().flat_map(|step| &step.frames));
        let found = differences(&outcome);
        let mut unknown = 0;
        for difference in &found {
            if let Some(known) = known(difference, &steps) {
                figures.add_known(known);
                continue;
            }
            unknown += 1;
            // One of each kind is explained, the rest is counted.
            if kinds.insert(difference.kind(&steps)) {
                let text = explain(&rig, &steps, difference);
                println!("parity: {way:?} {family:?}: {text}");
            }
        }
        figures.add(&steps, &outcome, unknown);
    }
    println!(
        "parity: {way:?} {family:?}: {figures}, in {:.1?}",
        start.elapsed()
    );
    assert_eq!(
        figures.differences, 0,
        "differences with PARITY_SEED={seed}: {kinds:?}"
    );
    figures.assert_complete(family);
}

#[test]
fn helpers_are_iptables_by_tcx_in_ipv4() {
    check(Way::Tcx, Family::V4);
}

#[test]
fn helpers_are_iptables_by_tcx_in_ipv6() {
    check(Way::Tcx, Family::V6);
}

#[test]
fn helpers_are_iptables_by_tcx_and_priority_in_ipv4() {
    check(Way::TcxByPriority, Family::V4);
}

#[test]
fn helpers_are_iptables_by_tcx_and_priority_in_ipv6() {
    check(Way::TcxByPriority, Family::V6);
}

#[test]
fn helpers_are_iptables_by_clsact_in_ipv4() {
    check(Way::Clsact, Family::V4);
}

#[test]
fn helpers_are_iptables_by_clsact_in_ipv6() {
    check(Way::Clsact, Family::V6);
}

#[test]
fn helpers_are_iptables_by_native_xdp_in_ipv4() {
    check(Way::XdpNative, Family::V4);
}

#[test]
fn helpers_are_iptables_by_native_xdp_in_ipv6() {
    check(Way::XdpNative, Family::V6);
}

#[test]
fn helpers_are_iptables_by_generic_xdp_in_ipv4() {
    check(Way::XdpGeneric, Family::V4);
}

#[test]
fn helpers_are_iptables_by_generic_xdp_in_ipv6() {
    check(Way::XdpGeneric, Family::V6);
}

/// The twin: a rule that is missing, or another helper, is seen and named.
#[test]
fn a_difference_in_the_rules_is_seen() {
    const PORT: u16 = 2121;
    let ftp = Rule::ftp(PORT);
    let tftp = Rule::tftp(69);
    let sane = Rule {
        helper: "sane",
        ..ftp
    };
    for family in [Family::V4, Family::V6] {
        let mut rig = Rig::new(Way::Tcx, family);
        let steps = Grammar::new(family, &[ftp], 1, 0).steps(200);
        for (neutrons, ours, expected) in [
            (
                &[tftp, ftp][..],
                &[tftp][..],
                ["iptables: helper ftp, ", "ours: no helper, "],
            ),
            (
                &[tftp],
                &[tftp, ftp],
                ["iptables: no helper, ", "ours: helper ftp, "],
            ),
            (
                &[tftp, ftp],
                &[tftp, sane],
                ["iptables: helper ftp, ", "ours: helper sane, "],
            ),
        ] {
            rig.set_both(neutrons, ours);
            let found = differences(&rig.run(steps.iter().flat_map(|step| &step.frames)));
            let on_port = |found: &&Difference| {
                let is_control = !found.is_announced();
                is_control && found.tuple.destination_port == PORT
            };
            // Where it announces something, that differs as well.
            let control = found.iter().find(on_port).expect("a difference");
            let text = explain(&rig, &steps, control);
            assert!(expected.iter().all(|part| text.contains(part)), "{text}");
            assert_eq!(text.lines().count(), 2, "one packet: {text}");
        }
        // And none without one.
        rig.set_rules(&[tftp, ftp]);
        let found = differences(&rig.run(steps.iter().flat_map(|step| &step.frames)));
        assert_eq!(found, []);
    }
}

/// What the rig makes equal for all other tests (`CutOff`): the one thing that
/// iptables' rules do beside giving helpers.
#[test]
fn iptables_alone_drops_what_has_no_whole_header() {
    let ftp = Rule::ftp(21);
    for (family, cut_off) in [
        (Family::V4, CutOff::Dropped),
        (Family::V4, CutOff::Passed),
        (Family::V6, CutOff::Dropped),
        (Family::V6, CutOff::Passed),
    ] {
        let mut rig = Rig::with(Way::Tcx, family, cut_off);
        let rules = [ftp];
        rig.set_rules(&rules);
        let mut grammar = Grammar::new(family, &rules, 1, 0);
        let (mut step, announced) = dialogue::announced(&mut grammar);
        let syn = Segment::tcp(announced.ports, [1, 0], SYN).payload(&[]);
        let whole = syn.between(announced.source, announced.destination);
        let cut = Segment::raw(TCP, whole[..12].to_vec());
        for segment in [cut, syn] {
            let packet = Packet::plain(announced.source, announced.destination, segment);
            let frame = Frame::new(announced.from, family, &[], &packet.whole(1));
            step.frames.push(frame);
        }
        let outcome = rig.run(step.frames.iter());
        let count = |tables: &Tables| {
            let states = tables.connections.values();
            states.filter(|state| state.is_expected()).count()
        };
        assert_eq!(count(&outcome.reference), 1, "{:?}", outcome.reference);
        let is_used_up = cut_off == CutOff::Passed;
        assert_eq!(
            count(&outcome.ours),
            usize::from(!is_used_up),
            "{:?}",
            outcome.ours
        );
    }
}
