//! The resources of the control API as JSON has them: what the agent answers, and
//! what its client reads.
//!
//! Ids are checked, for they go into the paths of other requests. All else is
//! text to be shown: an agent newer than its client may know more protocols,
//! helpers and states, and more fields, which are kept as they are.

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

/// A word of a fixed set, to which a newer agent may have added.
type OpenWord = Cow<'static, str>;

/// A helper rule; Neutron's fields, and ours.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, ToSchema)]
pub struct RuleView {
    /// Its name.
    #[serde(with = "text")]
    #[schema(value_type = String, format = Uuid)]
    pub id: RuleId,
    /// The router that it is of.
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
    /// Who owns it: file, api or neutron.
    #[schema(schema_with = schemas::origin)]
    pub origin: OpenWord,
    /// Whether packets meet it.
    #[schema(value_type = RuleStatus)]
    pub status: OpenWord,
    /// Why they don't.
    #[schema(required = true)]
    pub status_reason: Option<String>,
    /// Fields that a client does not know.
    #[serde(flatten)]
    #[schema(ignore)]
    pub other: Map<String, Value>,
}

impl RuleView {
    /// What a rule can be listed by.
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

    /// The order of lists: by router, protocol, port, and what else tells two
    /// rules apart.
    #[must_use]
    pub fn by_place(&self, other: &Self) -> Ordering {
        let place = (self.router_id, &self.protocol, self.port);
        place
            .cmp(&(other.router_id, &other.protocol, other.port))
            .then_with(|| self.helper.cmp(&other.helper))
            .then_with(|| self.id.cmp(&other.id))
    }
}

/// Whether packets meet a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum RuleStatus {
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

impl RuleStatus {
    /// The word for it.
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

/// One rule.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct RuleAnswer {
    pub(crate) conntrack_helper: RuleView,
}

/// Rules, all of each.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct RulesAnswer {
    pub(crate) conntrack_helpers: Vec<RuleView>,
}

/// What a `PUT` of everything changes.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, ToSchema)]
pub struct DifferenceView {
    /// The rules that come.
    pub added: Vec<RuleView>,
    /// The rules that go.
    pub removed: Vec<RuleView>,
    /// How many of the body were there already.
    pub unchanged: usize,
    /// Fields that a client does not know.
    #[serde(flatten)]
    #[schema(ignore)]
    pub other: Map<String, Value>,
}

/// A router.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, ToSchema)]
pub struct RouterView {
    /// Its name.
    #[serde(with = "text")]
    #[schema(value_type = String, format = Uuid)]
    pub id: RouterId,
    /// The same: the agent knows no other.
    pub name: String,
    /// ACTIVE, PENDING (no namespace on this host) or ERROR.
    #[schema(schema_with = schemas::router_status)]
    pub status: OpenWord,
    /// What is wrong.
    #[schema(required = true)]
    pub status_reason: Option<String>,
    /// How many rules it has.
    pub rules: usize,
    /// Its namespaces on this host.
    pub namespaces: Vec<String>,
    /// Fields that a client does not know.
    #[serde(flatten)]
    #[schema(ignore)]
    pub other: Map<String, Value>,
}

impl RouterView {
    /// What a router can be listed by.
    pub(crate) const FIELDS: &[&str] = &[
        "id",
        "name",
        "status",
        "status_reason",
        "rules",
        "namespaces",
    ];
}

/// One router.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct RouterAnswer {
    pub(crate) router: RouterView,
}

/// The answer to `GET /v1/status`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, ToSchema)]
pub struct AgentStatus {
    /// The agent's version.
    pub version: String,
    /// The agent's name on this host.
    pub agent_id: String,
    /// Its process.
    pub pid: u32,
    /// Seconds since it was ready.
    pub uptime_seconds: u64,
    /// How many rules there are.
    pub rules: RuleCounts,
    /// How many routers have any.
    pub routers: RouterCounts,
    /// What became of the control connections of all rules; null where nobody follows
    /// them.
    #[schema(required = true)]
    pub connections: Option<ConnectionCounts>,
    /// Routers that could not be made what they should be.
    pub troubles: Vec<TroubleView>,
    /// Fields that a client does not know.
    #[serde(flatten)]
    #[schema(ignore)]
    pub other: Map<String, Value>,
}

/// Rules, by status.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the states themselves")]
pub struct RuleCounts {
    pub total: usize,
    pub active: usize,
    // An agent before it was known has none.
    #[serde(default)]
    #[schema(required = true)]
    pub degraded: usize,
    pub pending: usize,
    pub shadowed: usize,
    pub failed: usize,
    /// States that a client does not know.
    #[serde(flatten)]
    #[schema(ignore)]
    pub other: Map<String, Value>,
}

/// Routers with rules, by status.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the states themselves")]
pub struct RouterCounts {
    pub total: usize,
    pub active: usize,
    pub pending: usize,
    pub failed: usize,
    /// States that a client does not know.
    #[serde(flatten)]
    #[schema(ignore)]
    pub other: Map<String, Value>,
}

/// Control connections since the agent started, by whether they have their helper.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize, ToSchema)]
#[expect(missing_docs, reason = "as conntrack says")]
pub struct ConnectionCounts {
    pub helped: u64,
    pub lacking: u64,
    pub unknown: u64,
}

/// A router that could not be made what it should be.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, ToSchema)]
pub struct TroubleView {
    /// The router.
    #[serde(with = "text")]
    #[schema(value_type = String, format = Uuid)]
    pub router_id: RouterId,
    /// What happened last.
    pub reason: String,
    /// How often in a row.
    pub failures: u32,
    /// Fields that a client does not know.
    #[serde(flatten)]
    #[schema(ignore)]
    pub other: Map<String, Value>,
}

/// What has happened.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, ToSchema)]
#[schema(bound = "")]
pub struct EventPageView<What = Map<String, Value>> {
    /// Which run of the agent the numbers are of: they begin anew with each.
    #[schema(format = Uuid)]
    pub run: String,
    /// The oldest first.
    #[schema(value_type = Vec<EventView>)]
    pub events: Vec<EventView<What>>,
    /// How many came among them that are not kept any more, of all routers.
    pub missed: u64,
    /// What to ask for next, as `after`.
    pub last: u64,
    /// Fields that a client does not know.
    #[serde(flatten)]
    #[schema(ignore)]
    pub other: Map<String, Value>,
}

/// One of them.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, ToSchema)]
#[schema(bound = "")]
pub struct EventView<What = Map<String, Value>> {
    /// Its number.
    pub sequence: u64,
    /// When it was, in UTC (RFC 3339).
    pub time: String,
    /// What it was.
    // To a client that is fields that it may know or not.
    #[serde(flatten)]
    #[schema(value_type = Event)]
    pub what: What,
}

/// Ids as JSON has them.
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
