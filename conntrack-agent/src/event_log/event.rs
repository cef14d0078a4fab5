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

/// An event: something that happened to connections, rules or routers.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// A control connection that matches a rule has begun.
    Connection {
        /// The rule that the connection matches.
        #[serde(flatten)]
        rule: RuleText,
        /// The source address and port of the connection, before any translation.
        source: String,
        /// The destination address and port of the connection, before any translation.
        destination: String,
        /// Whether the connection has its helper.
        has_helper: HelperState,
        /// Why the connection has no helper, or why that is unknown; null if it has one.
        reason: Option<String>,
    },
    /// More connections began than could be reported one by one.
    Untold {
        /// The number of connections that are not reported.
        count: u64,
    },
    /// Somebody asked for a change of rules.
    Change {
        /// Who asked: a local user and process, a token, or the rules file.
        by: String,
        /// The operation that was asked for.
        operation: String,
        /// The ids of the routers that the change is about, at most 20 of them.
        routers: Vec<String>,
        /// The number of all routers that the change is about.
        routers_count: usize,
        /// The rules that were added, at most 20 of them.
        added: Vec<RuleText>,
        /// The number of all rules that were added.
        added_count: usize,
        /// The rules that were removed, at most 20 of them.
        removed: Vec<RuleText>,
        /// The number of all rules that were removed.
        removed_count: usize,
        /// The outcome: `done`, `not_allowed`, `refused` or `failed`.
        outcome: String,
        /// Why the change was not made; null if it was.
        reason: Option<String>,
    },
    /// The agent restored the state of a router in the kernel, or adapted it to a change
    /// of the host.
    Repair {
        /// The id of the router.
        router_id: String,
        /// How many effects of each kind the repair took.
        effects: BTreeMap<String, usize>,
    },
    /// The agent failed to bring a router into the state that its rules ask for.
    Failure {
        /// The id of the router.
        router_id: String,
        /// Why it failed.
        reason: String,
        /// How many times in a row it has failed.
        failures: u32,
    },
    /// A router that had failed is in the state that its rules ask for.
    Recovery {
        /// The id of the router.
        router_id: String,
    },
}

/// Whether a connection has its helper.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HelperState {
    /// Conntrack has the connection, with its helper.
    Yes,
    /// Conntrack has the connection, without its helper.
    No,
    /// Conntrack has no such connection, or could not be asked.
    Unknown,
}

/// A rule as text.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize, ToSchema)]
pub struct RuleText {
    /// The id of the router whose traffic the rule is for.
    pub router_id: String,
    /// The transport protocol: `tcp` or `udp`.
    pub protocol: String,
    /// The destination port of control connections.
    pub port: u16,
    /// The name of the conntrack helper.
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
