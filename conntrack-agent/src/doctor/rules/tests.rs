//! Rulesets of one rule each, and what is said of them.

use super::*;
use crate::{
    doctor::Verdict,
    kernel::{Chain, RuleScope},
};

const MASK: u32 = 0xff00_0000;

fn ruleset(chain: &str, hook: Option<Hook>, action: RuleAction) -> Ruleset {
    let table = TableName {
        family: "ip",
        name: "raw".into(),
    };
    Ruleset {
        chains: vec![Chain {
            table: table.clone(),
            name: chain.into(),
            hook,
        }],
        rules: vec![ForeignRule {
            table,
            chain: chain.into(),
            handle: 1,
            scope: RuleScope::default(),
            actions: vec![action],
        }],
    }
}

fn results(findings: &[Finding]) -> Vec<Verdict> {
    findings.iter().map(|finding| finding.result).collect()
}

#[test]
fn neutrons_chains_are_told_from_others() {
    let raw = Some(Hook::Prerouting(-300));
    let gives = || RuleAction::GivesHelper(Some("ftp".into()));
    let neutron = ruleset("neutron-l3-agent-cth-0000000", raw, gives());
    let other = ruleset("mine", raw, gives());
    let unreached = ruleset("neutron-l3-agent-cth-0000000", None, gives());
    let mark = ruleset(
        "neutron-l3-agent-PREROUTING",
        raw,
        RuleAction::WritesMark(1),
    );
    for (ruleset, has_rules, expected) in [
        (&neutron, true, [Verdict::Wrong, Verdict::Ok]),
        (&neutron, false, [Verdict::Warn, Verdict::Ok]),
        (&other, true, [Verdict::Ok, Verdict::Warn]),
        (&other, false, [Verdict::Ok, Verdict::Warn]),
        (&unreached, true, [Verdict::Ok, Verdict::Ok]),
        (&mark, true, [Verdict::Ok, Verdict::Ok]),
    ] {
        let findings = helper_rules(ruleset, has_rules);
        assert_eq!(results(&findings), expected, "{findings:?}");
    }
    let [finding, _] = helper_rules(&neutron, true);
    let chain = "ip raw neutron-l3-agent-cth-0000000 (ftp)";
    assert!(finding.what.contains(chain), "{finding:?}");
}

#[test]
fn few_are_named_and_the_others_counted() {
    let all = |count: u32| (0..count).map(|number| number.to_string()).collect();
    assert_eq!(named(all(0)), None);
    assert_eq!(named(all(3)).unwrap(), "0, 1, 2");
    assert_eq!(named(all(5)).unwrap(), "0, 1, 2, and 2 more");
}

const BY_MARK: Due = Due {
    carrier: Carrier::Mark,
    suits_priority: false,
};

#[track_caller]
fn check_mark(hook: Hook, action: RuleAction, expected: Verdict) {
    let ruleset = ruleset("c", Some(hook), action);
    let found = conflicts(&ruleset, BY_MARK, MASK);
    assert_eq!(results(&found), [expected], "{found:?}");
}

#[test]
fn our_bits_of_the_mark_are_ours_until_the_binding_has_read_them() {
    use RuleAction::{ReadsMark, WritesMark};
    let raw = Hook::Prerouting(-300);
    check_mark(raw, WritesMark(u32::MAX), Verdict::Wrong);
    check_mark(raw, WritesMark(0x0100_0000), Verdict::Wrong);
    check_mark(Hook::Ingress, WritesMark(MASK), Verdict::Wrong);
    check_mark(Hook::Prerouting(-160), WritesMark(MASK), Verdict::Wrong);
    check_mark(raw, WritesMark(0xffff), Verdict::Ok);
    check_mark(raw, ReadsMark(u32::MAX), Verdict::Warn);
    check_mark(raw, ReadsMark(0xffff), Verdict::Ok);
    // Neutron's mangle rules have all bits, later.
    check_mark(Hook::Prerouting(-150), WritesMark(u32::MAX), Verdict::Ok);
    check_mark(Hook::Elsewhere, WritesMark(u32::MAX), Verdict::Ok);
    check_mark(raw, RuleAction::WritesPriority, Verdict::Ok);
    check_mark(Hook::Nat(-190), WritesMark(u32::MAX), Verdict::Ok);
}

/// Before conntrack (-200) there is nothing to restore a mark from, or to save it
/// to.
#[test]
fn what_takes_a_connection_counts_where_packets_have_one() {
    use RuleAction::{ReadsMark, WithConnection, WritesMark};
    let restore = || WithConnection(Box::new(WritesMark(MASK)));
    let save = || WithConnection(Box::new(ReadsMark(MASK)));
    for (hook, restored, saved) in [
        (Hook::Ingress, Verdict::Ok, Verdict::Ok),
        (Hook::Prerouting(-300), Verdict::Ok, Verdict::Ok),
        (Hook::Prerouting(-201), Verdict::Ok, Verdict::Ok),
        (Hook::Prerouting(-200), Verdict::Wrong, Verdict::Warn),
        (Hook::Prerouting(-170), Verdict::Wrong, Verdict::Warn),
        (Hook::Prerouting(-150), Verdict::Ok, Verdict::Ok),
    ] {
        check_mark(hook, restore(), restored);
        check_mark(hook, save(), saved);
    }
}

#[test]
fn the_other_carrier_is_named_where_it_suits() {
    let raw = Some(Hook::Prerouting(-300));
    let ruleset = ruleset("c", raw, RuleAction::WritesMark(MASK));
    for suits_priority in [true, false] {
        let due = Due {
            suits_priority,
            ..BY_MARK
        };
        let finding = &conflicts(&ruleset, due, MASK)[0];
        let remedy = finding.remedy.as_deref().unwrap();
        assert_eq!(remedy.contains("\"priority\""), suits_priority, "{remedy}");
        assert!(remedy.contains("restart the agent"), "{remedy}");
    }
}

#[test]
fn the_priority_is_ours_until_nat() {
    let result = |hook, action| {
        let ruleset = ruleset("c", Some(hook), action);
        let due = Due {
            carrier: Carrier::Priority,
            suits_priority: true,
        };
        results(&conflicts(&ruleset, due, MASK))
    };
    let write = || RuleAction::WritesPriority;
    assert_eq!(result(Hook::Prerouting(-150), write()), [Verdict::Wrong]);
    assert_eq!(result(Hook::Ingress, write()), [Verdict::Wrong]);
    // The one of two at -100 that came last is met first.
    assert_eq!(result(Hook::Prerouting(-100), write()), [Verdict::Wrong]);
    assert_eq!(result(Hook::Prerouting(-99), write()), [Verdict::Ok]);
    // Nat chains are in order among themselves.
    assert_eq!(result(Hook::Nat(-110), write()), [Verdict::Wrong]);
    assert_eq!(result(Hook::Nat(-100), write()), [Verdict::Ok]);
    assert_eq!(result(Hook::Elsewhere, write()), [Verdict::Ok]);
    let mark = RuleAction::WritesMark(u32::MAX);
    assert_eq!(result(Hook::Prerouting(-300), mark), [Verdict::Ok]);
}
