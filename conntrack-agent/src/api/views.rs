//! What resources look like in an answer.

use std::{collections::BTreeSet, time::Instant};

use serde::Serialize;
use utoipa::ToSchema;

use super::schemas;
use crate::{
    agent::{Condition, Snapshot},
    engine::Entry,
    model::{HelperRule, Origin, RouterId, protocol_name},
};

/// A helper rule; Neutron's fields, and ours.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct RuleOut {
    /// Its name.
    #[schema(format = Uuid)]
    pub(super) id: String,
    /// The router that it is of.
    #[schema(format = Uuid)]
    pub(super) router_id: String,
    /// The transport protocol.
    #[schema(schema_with = schemas::protocol)]
    pub(super) protocol: &'static str,
    /// The destination port of control connections.
    #[schema(minimum = 1, maximum = 65535)]
    pub(super) port: u16,
    /// The conntrack helper.
    #[schema(schema_with = schemas::helper)]
    pub(super) helper: &'static str,
    /// Who owns it: file, api or neutron.
    #[schema(schema_with = schemas::origin)]
    pub(super) origin: Origin,
    /// Whether packets meet it.
    pub(super) status: RuleStatus,
    /// Why they don't.
    #[schema(required = true)]
    pub(super) status_reason: Option<String>,
}

/// Whether packets meet a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum RuleStatus {
    /// They do.
    Active,
    /// They do, and lately a connection had no helper all the same.
    Degraded,
    /// The router has no namespace on this host.
    Pending,
    /// An older rule has its protocol and port.
    Shadowed,
    /// The kernel could not be made what it should be.
    Failed,
}

/// A router.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct RouterOut {
    /// Its name.
    #[schema(format = Uuid)]
    pub(super) id: String,
    /// The same: the agent knows no other.
    pub(super) name: String,
    /// ACTIVE, PENDING (no namespace on this host) or ERROR.
    #[schema(schema_with = schemas::router_status)]
    pub(super) status: &'static str,
    /// What is wrong.
    #[schema(required = true)]
    pub(super) status_reason: Option<String>,
    /// How many rules it has.
    pub(super) rules: usize,
    /// Its namespaces on this host.
    pub(super) namespaces: Vec<String>,
}

impl RuleOut {
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
        Self {
            status,
            status_reason,
            ..Self::bare(&rule)
        }
    }

    fn bare(rule: &HelperRule) -> Self {
        Self {
            id: rule.id.to_string(),
            router_id: rule.target.router.to_string(),
            protocol: protocol_name(rule.target.helper.protocol()),
            port: rule.target.port.get(),
            helper: rule.target.helper.name(),
            origin: rule.origin,
            status: RuleStatus::Active,
            status_reason: None,
        }
    }
}

impl RouterOut {
    /// None if the agent knows nothing of the router.
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
            id: router.to_string(),
            name: router.to_string(),
            status: Self::status(seen, router),
            status_reason,
            rules,
            namespaces: namespaces.into_iter().collect(),
        })
    }
}

impl RouterOut {
    /// What Neutron calls its condition.
    pub(super) fn status(seen: &Snapshot, router: RouterId) -> &'static str {
        match seen.conditions.get(&router) {
            None => "ACTIVE",
            Some(Condition::Pending) => "PENDING",
            Some(Condition::Failed { .. }) => "ERROR",
        }
    }
}

/// The answer to `GET /v1/status`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StatusOut {
    /// The agent's version.
    pub(super) version: &'static str,
    /// The agent's name on this host.
    pub(super) agent_id: String,
    /// Its process.
    pub(super) pid: u32,
    /// Seconds since it was ready.
    pub(super) uptime_seconds: u64,
    /// How many rules there are.
    pub(super) rules: RuleCounts,
    /// How many routers have any.
    pub(super) routers: RouterCounts,
    /// What became of the control connections of all rules; null where nobody follows
    /// them.
    #[schema(required = true)]
    pub(super) connections: Option<ConnectionCounts>,
    /// Routers that could not be made what they should be.
    pub(super) troubles: Vec<TroubleOut>,
}

/// Control connections since the agent started, by whether they have their helper.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct ConnectionCounts {
    pub(super) helped: u64,
    pub(super) lacking: u64,
    pub(super) unknown: u64,
}

impl ConnectionCounts {
    /// Those of all rules.
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

/// Rules, by status.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct RuleCounts {
    pub(super) total: usize,
    pub(super) active: usize,
    pub(super) degraded: usize,
    pub(super) pending: usize,
    pub(super) shadowed: usize,
    pub(super) failed: usize,
}

impl RuleCounts {
    /// All rules'.
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

/// Why a connection that met the rule lately has no helper.
fn lack<'a>(seen: &'a Snapshot, entry: &Entry) -> Option<&'a str> {
    let connections = seen.connections.get(&entry.rule.target)?;
    connections.lack(Instant::now())
}

/// Routers with rules, by status.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct RouterCounts {
    pub(super) total: usize,
    pub(super) active: usize,
    pub(super) pending: usize,
    pub(super) failed: usize,
}

impl RouterCounts {
    /// Those of all routers with rules.
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
        }
    }
}

/// A router that could not be made what it should be.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TroubleOut {
    /// The router.
    #[schema(format = Uuid)]
    pub(super) router_id: String,
    /// What happened last.
    pub(super) reason: String,
    /// How often in a row.
    pub(super) failures: u32,
}
