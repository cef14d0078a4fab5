//! The events of the log: connections, changes, repairs, failures and recoveries.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    audit,
    model::{HelperRule, RouterId, RuleTarget, protocol_name},
    reconcile::EffectTally,
};

/// The maximum number of rules, and of routers, that a change event lists; of further
/// ones it has only the count.
const MOST_LISTED: usize = 20;

/// What has happened.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// A helper's control connection has begun.
    Connection {
        /// The rule that it met.
        #[serde(flatten)]
        rule: RuleText,
        /// Where it comes from, before any translation.
        source: String,
        /// Where it goes to, likewise.
        destination: String,
        /// Whether it has its helper.
        has_helper: HelperState,
        /// Why not, or why that is unknown.
        reason: Option<String>,
    },
    /// More connections began than could be told of.
    Untold {
        /// How many.
        count: u64,
    },
    /// Rules were to be changed.
    Change {
        /// Who wanted that.
        by: String,
        /// What for.
        operation: String,
        /// The routers that it is about; the first of them.
        routers: Vec<String>,
        /// How many they are.
        routers_count: usize,
        /// Rules that came; the first of them.
        added: Vec<RuleText>,
        /// How many came.
        added_count: usize,
        /// Rules that went; the first of them.
        removed: Vec<RuleText>,
        /// How many went.
        removed_count: usize,
        /// `done`, `not_allowed`, `refused` or `failed`.
        outcome: String,
        /// Why not.
        reason: Option<String>,
    },
    /// Something was brought back to what it should be, or to what it is to be
    /// now that the host has changed.
    Repair {
        /// Where.
        router_id: String,
        /// By which effects, and how many of each.
        effects: BTreeMap<String, usize>,
    },
    /// A router could not be made what it should be.
    Failure {
        /// Which.
        router_id: String,
        /// Why not.
        reason: String,
        /// How often in a row.
        failures: u32,
    },
    /// A router that failed is what it should be.
    Recovery {
        /// Which.
        router_id: String,
    },
}

/// Whether a connection has its helper.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HelperState {
    /// Conntrack says so.
    Yes,
    /// Conntrack has the connection, without it.
    No,
    /// Conntrack has no such connection, or can't be asked.
    Unknown,
}

/// A rule, in words.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize, ToSchema)]
pub struct RuleText {
    /// The router whose traffic it is for.
    pub router_id: String,
    /// The transport protocol.
    pub protocol: String,
    /// The destination port of control connections.
    pub port: u16,
    /// The conntrack helper.
    pub helper: String,
}

impl From<RuleTarget> for RuleText {
    fn from(target: RuleTarget) -> Self {
        Self {
            router_id: target.router.to_string(),
            protocol: protocol_name(target.helper.protocol()).to_owned(),
            port: target.port.get(),
            helper: target.helper.name().to_owned(),
        }
    }
}

impl Event {
    /// Returns the event of a request, from its audit record.
    #[must_use]
    pub fn change(event: &audit::AuditRecord) -> Self {
        let rules = |rules: &[HelperRule]| {
            let first = rules.iter().take(MOST_LISTED);
            first.map(|rule| rule.target.into()).collect()
        };
        let routers = event.routers.iter().take(MOST_LISTED);
        Self::Change {
            by: event.peer.to_string(),
            operation: event.operation.name().to_owned(),
            routers: routers.map(ToString::to_string).collect(),
            routers_count: event.routers.len(),
            added: rules(&event.after),
            added_count: event.after.len(),
            removed: rules(&event.before),
            removed_count: event.before.len(),
            outcome: event.outcome.word().to_owned(),
            reason: event.outcome.reason().map(str::to_owned),
        }
    }

    /// Returns the event of a router's repair.
    #[must_use]
    pub fn repair(router: RouterId, effects: &EffectTally) -> Self {
        let effects = effects.kinds();
        Self::Repair {
            router_id: router.to_string(),
            effects: effects
                .map(|(kind, count)| (kind.name().to_owned(), count))
                .collect(),
        }
    }
}
