//! What rules have matched, and what that came to.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{OpenWord, RuleView, text};
use crate::model::RouterId;

/// All routers with rules.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct TrafficAnswer {
    /// Those that the caller may read, by their ids.
    pub(crate) routers: Vec<RouterTraffic>,
}

/// One router's rules together.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, ToSchema)]
pub struct RouterTraffic {
    /// The router.
    #[serde(with = "text")]
    #[schema(value_type = String, format = Uuid)]
    pub id: RouterId,
    /// ACTIVE, PENDING (no namespace on this host) or ERROR.
    #[schema(value_type = String)]
    pub status: OpenWord,
    /// How many rules it has.
    pub rules: usize,
    /// How many of them are degraded.
    pub degraded: usize,
    /// What they matched, and what it came to.
    #[serde(flatten)]
    pub sums: TrafficSums,
}

/// What matched, and what it came to.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize, ToSchema)]
pub struct TrafficSums {
    /// Packets that matched, since the counters were made; null, as the bytes, where
    /// they can't be read now.
    #[schema(required = true)]
    pub packets: Option<u64>,
    /// Their bytes, from the network header on.
    #[schema(required = true)]
    pub bytes: Option<u64>,
    /// Control connections that have their helper, since the agent started.
    pub helped: u64,
    /// That don't.
    pub lacking: u64,
    /// Of which that is unknown.
    pub unknown: u64,
}

/// The answer about one router.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct RouterDetailAnswer {
    pub(crate) router: RouterDetail,
}

/// All that there is of one router.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, ToSchema)]
pub struct RouterDetail {
    /// Its rules together.
    #[serde(flatten)]
    pub traffic: RouterTraffic,
    /// What is wrong.
    #[schema(required = true)]
    pub status_reason: Option<String>,
    /// Its rules.
    pub conntrack_helpers: Vec<RuleTraffic>,
    /// Its namespaces on this host.
    pub namespaces: Vec<NamespaceView>,
    /// Connections that have a helper now, the first 200 of each namespace.
    pub connections: Vec<ConnectionView>,
}

/// A rule, and what it matched.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, ToSchema)]
pub struct RuleTraffic {
    // First, or they would also be among the fields of the rule that a client does
    // not know.
    #[serde(flatten)]
    #[expect(missing_docs, reason = "as the type says")]
    pub sums: TrafficSums,
    #[serde(flatten)]
    #[expect(missing_docs, reason = "as the type says")]
    pub rule: RuleView,
}

/// How full a namespace's conntrack is.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize, ToSchema)]
pub struct NamespaceView {
    /// Its name.
    pub name: String,
    /// Connections in it; null, as the others, where conntrack could not be asked.
    #[schema(required = true)]
    pub tracked: Option<u32>,
    /// How many there may be.
    #[schema(required = true)]
    pub tracked_limit: Option<u32>,
    /// Connections that helpers expect.
    #[schema(required = true)]
    pub expectations: Option<usize>,
}

/// A connection that has a helper.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize, ToSchema)]
pub struct ConnectionView {
    /// The namespace.
    pub namespace: String,
    /// The transport protocol.
    #[schema(value_type = String)]
    pub protocol: OpenWord,
    /// Where it came from, before any translation.
    pub source: String,
    /// Where it was sent to, likewise.
    pub destination: String,
    /// The helper.
    pub helper: String,
}
