//! Checks other tools' rules that give helpers or change the carrier.

#[cfg(test)]
mod tests;

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
        for action in &rule.actions {
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
        (Hook::Nat(_), Carrier::Mark) | (Hook::TcFilter(_) | Hook::Elsewhere, _) => false,
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
        rule.actions.iter().for_each(|action| note(rule, action));
    }
    let is_tracked = |hook| is_before(hook) && has_connections(hook);
    for rule in ruleset.met_from(is_tracked) {
        for action in &rule.actions {
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
        Hook::Ingress | Hook::TcFilter(_) | Hook::Elsewhere => false,
    }
}
