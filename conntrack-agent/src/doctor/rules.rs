//! Checks other tools' rules that give helpers or change the carrier.

use std::collections::BTreeSet;

use super::{Finding, carrier::Due, routers::LocalRouter};
use crate::{
    input::sentence,
    kernel::{
        AgentId, Carrier, ForeignRule, Hook, RuleAction, Ruleset, TABLE_PREFIX, TableName,
        ruleset_of,
    },
};

/// The check of the chains of Neutron's own extension.
const NEUTRON: &str = "neutron-chains";
/// The check of helpers that other tools' rules give.
const OTHERS: &str = "other-helpers";
/// The check of the fields that carry the helper mark.
const MARKS: &str = "marks";

/// The prefix of the names of Neutron's chains: the name of the process that made them
/// (`get_binary_name`, `neutron/agent/linux/iptables_manager.py`).
const NEUTRONS: &str = "neutron-";

/// The priority of the binding's chain at prerouting: chains before it see the value that
/// the classifier has written. Of chains with the same priority, the one registered last
/// runs first (`nf_hook_entries_grow`, net/netfilter/core.c).
const BIND: i32 = -160;
/// The priority of the binding's nat chain, among nat chains.
const BIND_FIRST: i32 = -110;
/// The priority at which all nat chains run: `NF_IP_PRI_NAT_DST`,
/// `include/uapi/linux/netfilter_ipv4.h`.
const NAT: i32 = -100;

/// The priority at which packets get their connections: `NF_IP_PRI_CONNTRACK`, likewise.
const CONNTRACK: i32 = -200;

/// The number of chains that are named; a router has one for each of Neutron's rules.
const NAMED: usize = 3;

/// Checks the rules of the router's namespaces, in which this carrier is used or would
/// be.
pub(super) fn check(
    owner: Option<AgentId>,
    mask: u32,
    due: Option<Due>,
    router: &LocalRouter,
) -> Vec<Finding> {
    let due = due.unwrap_or(Due {
        carrier: Carrier::Mark,
        suits_priority: false,
    });
    let mut findings = Vec::new();
    for netns in &router.namespaces {
        let found = match ruleset_of(netns) {
            Ok(ruleset) => {
                let ruleset = match owner {
                    Some(owner) => ruleset.without(&TableName {
                        family: "inet",
                        name: format!("{TABLE_PREFIX}{owner}"),
                    }),
                    None => ruleset,
                };
                let mut found = Vec::from(helper_rules(&ruleset, router.has_rules()));
                found.extend(conflicts(&ruleset, due, mask));
                found
            }
            Err(error) => {
                let unknown = |check| Finding::unknown(check, sentence(&error));
                [NEUTRON, OTHERS, MARKS].map(unknown).into()
            }
        };
        findings.extend(found.into_iter().map(|finding| finding.at(netns.name())));
    }
    findings
}

/// Returns the findings of other rules that give helpers: Neutron's, and any other
/// tool's.
fn helper_rules(ruleset: &Ruleset, has_rules: bool) -> [Finding; 2] {
    let (mut neutrons, mut others) = (Givers::default(), Givers::default());
    for rule in ruleset.met_from(|_| true) {
        let givers = if rule.chain.starts_with(NEUTRONS) {
            &mut neutrons
        } else {
            &mut others
        };
        givers.note(rule);
    }
    let neutron = match (neutrons.to_string(), has_rules) {
        (None, _) => Finding::ok(NEUTRON, "none gives a helper"),
        (Some(chains), true) => Finding::wrong(
            NEUTRON,
            format!(
                "Neutron's extension and the agent both give helpers here. What Neutron's rules \
                 give comes first, and goes on when a rule is deleted here: {chains}"
            ),
            NEUTRON_REMEDY,
        ),
        (Some(chains), false) => Finding::warn(
            NEUTRON,
            format!("Neutron's extension gives helpers here, and the agent none: {chains}"),
            NEUTRON_REMEDY,
        ),
    };
    let others = match others.to_string() {
        None => Finding::ok(OTHERS, "nobody else's rule gives one"),
        Some(chains) => Finding::warn(
            OTHERS,
            format!("rules of others give helpers: {chains}"),
            "remove those rules, or see to it that none is for what a rule here is for: \
             a connection keeps the first helper that it gets",
        ),
    };
    [neutron, others]
}

const NEUTRON_REMEDY: &str = "take conntrack_helper out of `extensions` in [agent] of \
    l3_agent.ini, restart the L3 agent, and remove the chains that are left from the raw tables";

/// The chains that give helpers.
#[derive(Default)]
struct Givers(BTreeSet<(TableName, String, String)>);

impl Givers {
    fn note(&mut self, rule: &ForeignRule) {
        for action in &rule.deeds {
            if let RuleAction::GivesHelper(helper) = action {
                let helper = helper.clone().unwrap_or_else(|| "by a map".into());
                let giver = (rule.table.clone(), rule.chain.clone(), helper);
                self.0.insert(giver);
            }
        }
    }

    fn to_string(&self) -> Option<String> {
        let giver = |(table, chain, helper): &(TableName, String, String)| {
            format!("{table} {chain} ({helper})")
        };
        named(self.0.iter().map(giver).collect())
    }
}

/// Lists the first names and the number of the others; `None` if there are none.
fn named(mut all: Vec<String>) -> Option<String> {
    let more = all.len().saturating_sub(NAMED);
    all.truncate(NAMED);
    match (all.is_empty(), more) {
        (true, _) => None,
        (false, 0) => Some(all.join(", ")),
        (false, more) => Some(format!("{}, and {more} more", all.join(", "))),
    }
}

/// Returns the rules that write or read the carrier between the classifier and the
/// binding. After the binding others may use it: the binding has cleared the agent's bits
/// of the mark, and the priority is not read in packets of an existing connection.
fn conflicts(ruleset: &Ruleset, due: Due, mask: u32) -> Vec<Finding> {
    let carrier = due.carrier;
    let is_before = |hook| match (hook, carrier) {
        (Hook::Ingress, _) => true,
        (Hook::Prerouting(priority), Carrier::Mark) => priority <= BIND,
        (Hook::Prerouting(priority), Carrier::Priority) => priority <= NAT,
        (Hook::Nat(priority), Carrier::Priority) => priority <= BIND_FIRST,
        (Hook::Nat(_), Carrier::Mark) | (Hook::Elsewhere, _) => false,
    };
    let (mut writers, mut readers) = (BTreeSet::new(), BTreeSet::new());
    let mut note = |rule: &ForeignRule, action: &RuleAction| {
        let chain = format!("{} {}", rule.table, rule.chain);
        match (action, carrier) {
            (RuleAction::WritesMark(bits), Carrier::Mark) if bits & mask != 0 => {
                writers.insert(format!("{chain} (bits {:#010x})", bits & mask));
            }
            (RuleAction::ReadsMark(bits), Carrier::Mark) if bits & mask != 0 => {
                readers.insert(format!("{chain} (bits {:#010x})", bits & mask));
            }
            (RuleAction::WritesPriority, Carrier::Priority) => {
                writers.insert(chain);
            }
            _ => {}
        }
    };
    for rule in ruleset.met_from(is_before) {
        rule.deeds.iter().for_each(|action| note(rule, action));
    }
    let is_tracked = |hook| is_before(hook) && has_connections(hook);
    for rule in ruleset.met_from(is_tracked) {
        for action in &rule.deeds {
            if let RuleAction::WithConnection(action) = action {
                note(rule, action);
            }
        }
    }
    let field = match carrier {
        Carrier::Mark => format!("the bits {mask:#010x} of the packet mark"),
        Carrier::Priority => "the packet's priority".into(),
    };
    let (bears, them) = match carrier {
        Carrier::Mark => ("carry", "them"),
        Carrier::Priority => ("carries", "it"),
    };
    let writers = named(writers.into_iter().collect()).map(|chains| {
        let remedy = match carrier {
            Carrier::Mark if due.suits_priority => format!(
                "set mark_mask in the configuration to bits that nobody uses, or carrier = \
                 \"priority\", and restart the agent; or {BEHIND}"
            ),
            Carrier::Mark => format!(
                "set mark_mask in the configuration to bits that nobody uses, and restart the \
                 agent; or {BEHIND}"
            ),
            Carrier::Priority => "carrier = \"mark\" in the configuration, and restart the \
                agent; or move those rules behind priority -100"
                .into(),
        };
        Finding::wrong(
            MARKS,
            format!(
                "{field} {bears} the helper mark here, and rules of others change {them} on \
                 the way, so connections get another helper or none: {chains}"
            ),
            remedy,
        )
    });
    let readers = named(readers.into_iter().collect()).map(|chains| {
        Finding::warn(
            MARKS,
            format!(
                "{field} carry the helper mark here, and rules of others compare them while \
                 they do: {chains}"
            ),
            format!("compare without these bits, or {BEHIND}"),
        )
    });
    let mut findings: Vec<_> = writers.into_iter().chain(readers).collect();
    if findings.is_empty() {
        let what = match carrier {
            Carrier::Mark => format!("nobody else uses {field} on their way"),
            Carrier::Priority => format!("nobody else changes {field} on its way"),
        };
        findings.push(Finding::ok(MARKS, what));
    }
    findings
}

/// The remedy of moving rules behind the binding; the first table of iptables there is
/// mangle (`NF_IP_PRI_MANGLE`, -150).
const BEHIND: &str =
    "move those rules behind priority -160: those of iptables into the mangle table";

/// Returns whether packets may have connections at this hook.
const fn has_connections(hook: Hook) -> bool {
    match hook {
        Hook::Prerouting(priority) => priority >= CONNTRACK,
        Hook::Nat(_) => true,
        Hook::Ingress | Hook::Elsewhere => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{doctor::Verdict, kernel::Chain};

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
                deeds: vec![action],
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
}
