//! Defines the JSON resources of the control API, which the agent writes and its client
//! reads.
//!
//! A client checks ids, because it puts them into the paths of other requests. Everything
//! else is text for display: an agent newer than its client may have more protocols,
//! helpers, states and fields, which the client keeps as they are.

pub(crate) mod schemas;
mod traffic;

pub use traffic::{
    ConnectionView, NamespaceView, RouterDetail, RouterTraffic, RuleTraffic, TrafficSums,
};
pub(crate) use traffic::{RouterDetailAnswer, TrafficAnswer};

use std::{borrow::Cow, cmp::Ordering};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::{
    event_log::Event,
    model::{RouterId, RuleId},
};

/// A word of a set that a newer agent may extend.
type OpenWord = Cow<'static, str>;

/// A conntrack helper rule, with the fields of Neutron and those of this agent.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, ToSchema)]
pub struct RuleView {
    /// The id of the rule.
    #[serde(with = "text")]
    #[schema(value_type = String, format = Uuid)]
    pub id: RuleId,
    /// The router to whose traffic the rule applies.
    #[serde(with = "text")]
    #[schema(value_type = String, format = Uuid)]
    pub router_id: RouterId,
    /// The transport protocol.
    #[schema(schema_with = schemas::protocol)]
    pub protocol: OpenWord,
    /// The destination port of control connections.
    #[schema(minimum = 1, maximum = 65535)]
    pub port: u16,
    /// The conntrack helper.
    #[schema(schema_with = schemas::helper)]
    pub helper: OpenWord,
    /// The owner of the rule: file, api or neutron.
    #[schema(schema_with = schemas::origin)]
    pub origin: OpenWord,
    /// The status of the rule.
    #[schema(value_type = RuleStatus)]
    pub status: OpenWord,
    /// The reason for the status; null if the rule is active.
    #[schema(required = true)]
    pub status_reason: Option<String>,
    /// The fields that a client does not know.
    #[serde(flatten)]
    #[schema(ignore)]
    pub other: Map<String, Value>,
}

impl RuleView {
    /// The fields by which rules can be filtered and sorted.
    pub(crate) const FIELDS: &[&str] = &[
        "id",
        "router_id",
        "protocol",
        "port",
        "helper",
        "origin",
        "status",
        "status_reason",
    ];

    /// Compares two rules in the order of lists: by router, protocol and port, then by
    /// helper and id.
    #[must_use]
    pub fn by_place(&self, other: &Self) -> Ordering {
        let place = (self.router_id, &self.protocol, self.port);
        place
            .cmp(&(other.router_id, &other.protocol, other.port))
            .then_with(|| self.helper.cmp(&other.helper))
            .then_with(|| self.id.cmp(&other.id))
    }
}

/// The status of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum RuleStatus {
    /// The rule is in force.
    Active,
    /// The rule is in force, but a connection that recently matched it has no helper.
    Degraded,
    /// The router has no namespace on this host.
    Pending,
    /// An older rule of the router has the same protocol and port.
    Shadowed,
    /// The router's datapath could not be brought to its desired state.
    Failed,
}

impl RuleStatus {
    /// Returns the word for the status.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Degraded => "degraded",
            Self::Pending => "pending",
            Self::Shadowed => "shadowed",
            Self::Failed => "failed",
        }
    }
}

/// The answer with one rule.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct RuleAnswer {
    pub(crate) conntrack_helper: RuleView,
}

/// The answer with several rules.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct RulesAnswer {
    pub(crate) conntrack_helpers: Vec<RuleView>,
}

/// The difference that a `PUT` of the rules of all routers makes.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, ToSchema)]
pub struct DifferenceView {
    /// The added rules.
    pub added: Vec<RuleView>,
    /// The removed rules.
    pub removed: Vec<RuleView>,
    /// The number of rules of the request that exist already.
    pub unchanged: usize,
    /// The fields that a client does not know.
    #[serde(flatten)]
    #[schema(ignore)]
    pub other: Map<String, Value>,
}

/// A router with rules, or with a namespace on this host.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, ToSchema)]
pub struct RouterView {
    /// The id of the router.
    #[serde(with = "text")]
    #[schema(value_type = String, format = Uuid)]
    pub id: RouterId,
    /// The name of the router, which is its id: the agent does not know Neutron's names.
    pub name: String,
    /// The status: ACTIVE, PENDING (no namespace on this host) or ERROR.
    #[schema(schema_with = schemas::router_status)]
    pub status: OpenWord,
    /// The reason for the status; null if it is ACTIVE.
    #[schema(required = true)]
    pub status_reason: Option<String>,
    /// The number of the router's rules.
    pub rules: usize,
    /// The router's network namespaces on this host.
    pub namespaces: Vec<String>,
    /// The fields that a client does not know.
    #[serde(flatten)]
    #[schema(ignore)]
    pub other: Map<String, Value>,
}

impl RouterView {
    /// The fields by which routers can be filtered and sorted.
    pub(crate) const FIELDS: &[&str] = &[
        "id",
        "name",
        "status",
        "status_reason",
        "rules",
        "namespaces",
    ];
}

/// The answer with one router.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct RouterAnswer {
    pub(crate) router: RouterView,
}

/// The state of the agent.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, ToSchema)]
pub struct AgentStatus {
    /// The version of the agent.
    pub version: String,
    /// The id of the agent on this host.
    pub agent_id: String,
    /// The process id of the agent.
    pub pid: u32,
    /// The seconds since the agent became ready.
    pub uptime_seconds: u64,
    /// The number of rules, by status.
    pub rules: RuleCounts,
    /// The number of routers with rules, by status.
    pub routers: RouterCounts,
    /// The control connections of all rules, by whether they have their helper; null if
    /// the agent does not follow connections.
    #[schema(required = true)]
    pub connections: Option<ConnectionCounts>,
    /// The routers whose datapath could not be brought to its desired state.
    pub troubles: Vec<TroubleView>,
    /// The fields that a client does not know.
    #[serde(flatten)]
    #[schema(ignore)]
    pub other: Map<String, Value>,
}

/// The number of rules, by status.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the states themselves")]
pub struct RuleCounts {
    pub total: usize,
    pub active: usize,
    // Older agents don't have this status.
    #[serde(default)]
    #[schema(required = true)]
    pub degraded: usize,
    pub pending: usize,
    pub shadowed: usize,
    pub failed: usize,
    /// The counts of statuses that a client does not know.
    #[serde(flatten)]
    #[schema(ignore)]
    pub other: Map<String, Value>,
}

/// The number of routers with rules, by status.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the states themselves")]
pub struct RouterCounts {
    pub total: usize,
    pub active: usize,
    pub pending: usize,
    pub failed: usize,
    /// The counts of statuses that a client does not know.
    #[serde(flatten)]
    #[schema(ignore)]
    pub other: Map<String, Value>,
}

/// The number of control connections since the agent started, by whether conntrack has
/// them with their helper (`helped`), without it (`lacking`), or could not tell
/// (`unknown`).
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize, ToSchema)]
#[expect(missing_docs, reason = "as conntrack says")]
pub struct ConnectionCounts {
    pub helped: u64,
    pub lacking: u64,
    pub unknown: u64,
}

/// A router whose datapath could not be brought to its desired state.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, ToSchema)]
pub struct TroubleView {
    /// The id of the router.
    #[serde(with = "text")]
    #[schema(value_type = String, format = Uuid)]
    pub router_id: RouterId,
    /// The reason for the last failure.
    pub reason: String,
    /// The number of failures in a row.
    pub failures: u32,
    /// The fields that a client does not know.
    #[serde(flatten)]
    #[schema(ignore)]
    pub other: Map<String, Value>,
}

/// A page of the event log.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, ToSchema)]
#[schema(bound = "")]
pub struct EventPageView<What = Map<String, Value>> {
    /// The id of the agent's run; the sequence numbers start again with each run.
    #[schema(format = Uuid)]
    pub run: String,
    /// The events, the oldest first.
    #[schema(value_type = Vec<EventView>)]
    pub events: Vec<EventView<What>>,
    /// The number of events after `after`, of all routers, that the log has no more.
    pub missed: u64,
    /// The value of `after` for the next request.
    pub last: u64,
    /// The fields that a client does not know.
    #[serde(flatten)]
    #[schema(ignore)]
    pub other: Map<String, Value>,
}

/// An event of the log.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, ToSchema)]
#[schema(bound = "")]
pub struct EventView<What = Map<String, Value>> {
    /// The sequence number of the event.
    pub sequence: u64,
    /// The time of the event, in UTC (RFC 3339).
    pub time: String,
    /// The event itself.
    // A client keeps the fields as they are, as it may not know them.
    #[serde(flatten)]
    #[schema(value_type = Event)]
    pub what: What,
}

/// Reads and writes ids as JSON strings.
mod text {
    use std::{fmt::Display, str::FromStr};

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<T: Display, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        let given = String::deserialize(deserializer)?;
        given.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_a_client_does_not_know_is_kept_where_it_was() {
        let rule = json!({
            "id": "7ab1c2d3-0a1b-4c2d-8e3f-0123456789ab",
            "router_id": "6ab1c2d3-0a1b-4c2d-8e3f-0123456789ab",
            "protocol": "sctp", "port": 1, "helper": "new", "origin": "new",
            "status": "new", "status_reason": null, "newer": { "than": 1 },
        });
        let read: RuleView = serde_json::from_value(rule.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), rule);

        let mut traffic = rule.clone();
        for (name, value) in [("packets", Value::Null), ("bytes", 7.into())] {
            traffic[name] = value;
        }
        for name in ["helped", "lacking", "unknown"] {
            traffic[name] = 0.into();
        }
        let both: RuleTraffic = serde_json::from_value(traffic).unwrap();
        assert_eq!(both.rule, read);
        assert_eq!(both.sums.bytes, Some(7));
    }

    #[test]
    fn an_older_agent_counts_no_degraded_rules_and_no_connections() {
        let status = json!({
            "version": "1", "agent_id": "a", "pid": 1, "uptime_seconds": 1,
            "rules": { "total": 2, "active": 2, "pending": 0, "shadowed": 0, "failed": 0 },
            "routers": { "total": 1, "active": 1, "pending": 0, "failed": 0 },
            "troubles": [],
        });
        let read: AgentStatus = serde_json::from_value(status).unwrap();
        assert_eq!((read.rules.degraded, read.connections), (0, None));
    }
}
