//! What the agent answers, as far as this client knows it.
//!
//! Ids are checked, for they go into the paths of other requests. All else is
//! text to be shown: an agent newer than its client may know more protocols,
//! helpers and states, and more fields, which are kept as they are.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::model::{RouterId, RuleId};

/// A rule, and what became of it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Rule {
    /// Its name.
    #[serde(with = "text")]
    pub id: RuleId,
    /// The router whose traffic it is for.
    #[serde(with = "text")]
    pub router_id: RouterId,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The destination port.
    pub port: u16,
    /// The helper, as the kernel calls it.
    pub helper: String,
    /// Who owns it: `file`, `api` or `neutron`.
    pub origin: String,
    /// `active`, `degraded`, `pending`, `shadowed` or `failed`.
    pub status: String,
    /// Why it is that.
    pub status_reason: Option<String>,
    /// Fields that this client does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Rule {
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

/// A router that the agent knows.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Router {
    /// Its name to Neutron.
    #[serde(with = "text")]
    pub id: RouterId,
    /// Its name to people.
    pub name: String,
    /// `ACTIVE`, `PENDING` or `ERROR`.
    pub status: String,
    /// Why it is that.
    pub status_reason: Option<String>,
    /// How many rules it has, of all origins.
    pub rules: u64,
    /// Its namespaces on this host.
    pub namespaces: Vec<String>,
    /// Fields that this client does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// What a change of all rules changes.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Difference {
    /// Rules that come.
    pub added: Vec<Rule>,
    /// Rules that go.
    pub removed: Vec<Rule>,
    /// How many stay as they are.
    pub unchanged: u64,
    /// Fields that this client does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// How the agent is.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct AgentStatus {
    /// Its version.
    pub version: String,
    /// Its name on this host, a random UUID.
    pub agent_id: String,
    /// Its process.
    pub pid: u32,
    /// How long it has been running, in seconds.
    pub uptime_seconds: u64,
    /// Its rules.
    pub rules: RuleCounts,
    /// Its routers.
    pub routers: RouterCounts,
    /// What became of connections; none of an agent that doesn't say.
    pub connections: Option<ConnectionCounts>,
    /// What it failed at and tries again.
    pub troubles: Vec<Trouble>,
    /// Fields that this client does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// What has happened since something that was told before.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct EventPageView {
    /// Which run of the agent the numbers are of.
    pub run: String,
    /// The oldest first.
    pub events: Vec<EventView>,
    /// How many came before them that are not kept any more.
    pub missed: u64,
    /// What to ask for next.
    pub last: u64,
    /// Fields that this client does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Something that has happened.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct EventView {
    /// Its number.
    pub sequence: u64,
    /// When it was.
    pub time: String,
    /// What it was, which this client may know or not.
    #[serde(flatten)]
    pub what: Map<String, Value>,
}

/// What a router's rules have matched, and what that came to.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct RouterTraffic {
    /// The router.
    #[serde(with = "text")]
    pub id: RouterId,
    /// `ACTIVE`, `PENDING` or `ERROR`.
    pub status: String,
    /// How many rules it has.
    pub rules: u64,
    /// How many of them are degraded.
    pub degraded: u64,
    /// All its rules together.
    #[serde(flatten)]
    pub sums: Sums,
}

/// What matched, and what it came to.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Sums {
    /// Packets; none, as of bytes, where they could not be read.
    pub packets: Option<u64>,
    /// Their bytes, from the network header on.
    pub bytes: Option<u64>,
    /// Control connections that have their helper.
    pub helped: u64,
    /// That don't.
    pub lacking: u64,
    /// Of which that is unknown.
    pub unknown: u64,
}

/// All that there is of one router.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct RouterDetail {
    /// Its rules together.
    #[serde(flatten)]
    pub traffic: RouterTraffic,
    /// What is wrong.
    pub status_reason: Option<String>,
    /// Its rules.
    pub conntrack_helpers: Vec<RuleTraffic>,
    /// Its namespaces on this host.
    pub namespaces: Vec<Namespace>,
    /// Connections that have a helper now.
    pub connections: Vec<Connection>,
}

/// A rule, and what it matched.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct RuleTraffic {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The destination port.
    pub port: u16,
    /// The helper.
    pub helper: String,
    /// As [`Rule::status`].
    pub status: String,
    /// Why it is that.
    pub status_reason: Option<String>,
    /// What it matched.
    #[serde(flatten)]
    pub sums: Sums,
}

/// How full a namespace's conntrack is.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// Connections in it; none, as of the others, where that is not known.
    pub tracked: Option<u64>,
    /// How many there may be.
    pub tracked_limit: Option<u64>,
    /// Connections that helpers expect.
    pub expectations: Option<u64>,
}

/// A connection that has a helper.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Connection {
    /// The namespace.
    pub namespace: String,
    /// The transport protocol.
    pub protocol: String,
    /// Where it came from.
    pub source: String,
    /// Where it was sent to.
    pub destination: String,
    /// The helper.
    pub helper: String,
}

/// How many rules there are, by their state.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the states themselves")]
pub struct RuleCounts {
    pub total: u64,
    pub active: u64,
    // An agent before it was known has none.
    #[serde(default)]
    pub degraded: u64,
    pub pending: u64,
    pub shadowed: u64,
    pub failed: u64,
    /// States that this client does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Control connections since the agent started, by whether they have their helper.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "as conntrack says")]
pub struct ConnectionCounts {
    pub helped: u64,
    pub lacking: u64,
    pub unknown: u64,
}

/// How many routers there are, by their state.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the states themselves")]
pub struct RouterCounts {
    pub total: u64,
    pub active: u64,
    pub pending: u64,
    pub failed: u64,
    /// States that this client does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A router that is not as its rules say.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Trouble {
    /// The router.
    #[serde(with = "text")]
    pub router_id: RouterId,
    /// What was refused, and why.
    pub reason: String,
    /// How often in a row.
    pub failures: u64,
    /// Fields that this client does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
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
