//! Makes the resources of the API from the agent's state.

use std::{collections::BTreeSet, time::Instant};

use serde_json::Map;

use crate::{
    agent::{Condition, Snapshot},
    engine::Entry,
    model::{RouterId, RuleTarget, protocol_name},
    resource::{ConnectionCounts, RouterCounts, RouterView, RuleCounts, RuleStatus, RuleView},
};

impl RuleView {
    /// Returns the view of a rule.
    pub(super) fn new(seen: &Snapshot, entry: &Entry) -> Self {
        let rule = entry.rule;
        let status = RuleStatus::of(seen, entry);
        let status_reason = match (status, seen.conditions.get(&rule.target.router)) {
            (RuleStatus::Shadowed, _) => {
                Some("an older rule has this protocol and port".to_owned())
            }
            (RuleStatus::Pending, _) => Some("the router has no namespace on this host".to_owned()),
            (RuleStatus::Degraded, _) => lack(seen, entry)
                .map(|why| format!("a connection that met it lately has no helper: {why}")),
            (_, Some(Condition::Failed { reason, .. })) => Some(reason.clone()),
            _ => None,
        };
        let RuleTarget {
            router,
            port,
            helper,
        } = rule.target;
        Self {
            id: rule.id,
            router_id: router,
            protocol: protocol_name(helper.protocol()).into(),
            port: port.get(),
            helper: helper.name().into(),
            origin: rule.origin.name().into(),
            status: status.name().into(),
            status_reason,
            other: Map::new(),
        }
    }
}

impl RouterView {
    /// Returns the view of a router, or `None` if it has neither rules nor namespaces.
    pub(super) fn new(
        seen: &Snapshot,
        router: RouterId,
        namespaces: BTreeSet<String>,
    ) -> Option<Self> {
        let rules = seen.mapping.of(router).count();
        if rules == 0 && namespaces.is_empty() {
            return None;
        }
        let status_reason = match seen.conditions.get(&router) {
            None => None,
            Some(Condition::Pending) => Some("no namespace on this host".to_owned()),
            Some(Condition::Failed { reason, .. }) => Some(reason.clone()),
        };
        Some(Self {
            id: router,
            name: router.to_string(),
            status: Self::status(seen, router).into(),
            status_reason,
            rules,
            namespaces: namespaces.into_iter().collect(),
            other: Map::new(),
        })
    }

    /// Returns Neutron's word for the condition of a router.
    pub(super) fn status(seen: &Snapshot, router: RouterId) -> &'static str {
        match seen.conditions.get(&router) {
            None => "ACTIVE",
            Some(Condition::Pending) => "PENDING",
            Some(Condition::Failed { .. }) => "ERROR",
        }
    }
}

impl ConnectionCounts {
    /// Counts the connections of all rules.
    pub(super) fn of(seen: &Snapshot) -> Self {
        let mut counts = Self::default();
        for connections in seen.connections.values() {
            counts.helped += connections.helped;
            counts.lacking += connections.lacking;
            counts.unknown += connections.unknown;
        }
        counts
    }
}

impl RuleCounts {
    /// Counts all rules by status.
    pub(super) fn of(seen: &Snapshot) -> Self {
        let mut counts = Self {
            total: seen.mapping.len(),
            ..Self::default()
        };
        for entry in seen.mapping.entries() {
            let count = match RuleStatus::of(seen, entry) {
                RuleStatus::Active => &mut counts.active,
                RuleStatus::Degraded => &mut counts.degraded,
                RuleStatus::Pending => &mut counts.pending,
                RuleStatus::Shadowed => &mut counts.shadowed,
                RuleStatus::Failed => &mut counts.failed,
            };
            *count += 1;
        }
        counts
    }
}

impl RuleStatus {
    /// Returns the status of a rule.
    pub(super) fn of(seen: &Snapshot, entry: &Entry) -> Self {
        if seen.mapping.is_shadowed(entry) {
            return Self::Shadowed;
        }
        match seen.conditions.get(&entry.rule.target.router) {
            None if lack(seen, entry).is_some() => Self::Degraded,
            None => Self::Active,
            Some(Condition::Pending) => Self::Pending,
            Some(Condition::Failed { .. }) => Self::Failed,
        }
    }
}

/// Returns why a connection that recently matched the rule has no helper.
fn lack<'a>(seen: &'a Snapshot, entry: &Entry) -> Option<&'a str> {
    let connections = seen.connections.get(&entry.rule.target)?;
    connections.lack(Instant::now())
}

impl RouterCounts {
    /// Counts all routers with rules by status.
    pub(super) fn of(seen: &Snapshot) -> Self {
        let total = seen.mapping.routers().len();
        let is_pending = |condition: &&Condition| matches!(condition, Condition::Pending);
        let pending = seen.conditions.values().filter(is_pending).count();
        let failed = seen.conditions.len() - pending;
        Self {
            total,
            active: total - pending - failed,
            pending,
            failed,
            other: Map::new(),
        }
    }
}
