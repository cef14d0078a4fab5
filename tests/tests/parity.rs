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

use compare::differences;
use figures::Figures;
use grammar::Grammar;
use minimise::explain;
use rig::{Rig, Way};
use wire::Family;

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
        for difference in &found {
            // One of each kind is explained, the rest is counted.
            if kinds.insert(difference.kind(&steps)) {
                let text = explain(&rig, &steps, difference);
                println!("parity: {way:?} {family:?}: {text}");
            }
        }
        figures.add(&steps, &outcome, found.len());
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
fn helpers_are_iptables_by_clsact_in_ipv4() {
    check(Way::Clsact, Family::V4);
}

#[test]
fn helpers_are_iptables_by_clsact_in_ipv6() {
    check(Way::Clsact, Family::V6);
}

/// The twin: a rule that is missing, or another helper, is seen and named.
#[test]
fn a_difference_in_the_rules_is_seen() {
    const PORT: u16 = 2121;
    let ftp = Rule::ftp(PORT);
    let other = Rule {
        helper: "sane",
        ..ftp
    };
    for family in [Family::V4, Family::V6] {
        let mut rig = Rig::new(Way::Tcx, family);
        for (neutrons, ours, expected) in [
            (
                &[ftp][..],
                &[][..],
                ["iptables: helper ftp, ", "ours: no helper, "],
            ),
            (&[], &[ftp], ["iptables: no helper, ", "ours: helper ftp, "]),
            (
                &[ftp],
                &[other],
                ["iptables: helper ftp, ", "ours: helper sane, "],
            ),
        ] {
            let mut kept = neutrons.to_vec();
            kept.push(Rule::tftp(69));
            rig.set_both(&kept, &[ours, &[Rule::tftp(69)]].concat());
            let steps = Grammar::new(family, &[ftp], 1, 0).steps(200);
            let found = differences(&rig.run(steps.iter().flat_map(|step| &step.frames)));
            assert!(!found.is_empty(), "{expected:?}");
            let mut ports = found.iter().map(|found| found.tuple.destination_port);
            assert!(ports.all(|port| port == PORT), "{found:?}");
            let text = explain(&rig, &steps, &found[0]);
            assert!(expected.iter().all(|part| text.contains(part)), "{text}");
            assert_eq!(text.lines().count(), 2, "one packet: {text}");
        }
        // And none without one.
        rig.set_rules(&[ftp]);
        let steps = Grammar::new(family, &[ftp], 1, 0).steps(200);
        let found = differences(&rig.run(steps.iter().flat_map(|step| &step.frames)));
        assert_eq!(found, []);
    }
}
