//! Defines the resources of traffic: matched packets and control connections.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{OpenWord, RuleView, text};
use crate::model::RouterId;

/// The answer with the traffic of all routers with rules.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct TrafficAnswer {
    /// The routers that the caller may read, by id.
    pub(crate) routers: Vec<RouterTraffic>,
}

/// The traffic of one router's rules together.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, ToSchema)]
pub struct RouterTraffic {
    /// The id of the router.
    #[serde(with = "text")]
    #[schema(value_type = String, format = Uuid)]
    pub id: RouterId,
    /// The status: ACTIVE, PENDING (no namespace on this host) or ERROR.
    #[schema(value_type = String)]
    pub status: OpenWord,
    /// The number of the router's rules.
    pub rules: usize,
    /// The number of the router's rules that are degraded.
    pub degraded: usize,
    /// The sums over the router's rules.
    #[serde(flatten)]
    pub sums: TrafficSums,
}

/// The matched packets, and the control connections by whether they have their helper.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize, ToSchema)]
pub struct TrafficSums {
    /// The number of matched packets since the counters were created; null if the counters
    /// can't be read now.
    #[schema(required = true)]
    pub packets: Option<u64>,
    /// The number of bytes of the matched packets, from the network header on; null if the
    /// counters can't be read now.
    #[schema(required = true)]
    pub bytes: Option<u64>,
    /// The number of control connections since the agent started that have their helper.
    pub helped: u64,
    /// The number of control connections since the agent started that lack their helper.
    pub lacking: u64,
    /// The number of control connections since the agent started for which conntrack could
    /// not tell.
    pub unknown: u64,
}

/// The answer with the details of one router.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct RouterDetailAnswer {
    pub(crate) router: RouterDetail,
}

/// The traffic, the namespaces and the connections of one router.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, ToSchema)]
pub struct RouterDetail {
    /// The traffic of the router's rules together.
    #[serde(flatten)]
    pub traffic: RouterTraffic,
    /// The reason for the status; null if it is ACTIVE.
    #[schema(required = true)]
    pub status_reason: Option<String>,
    /// The router's rules with their traffic.
    pub conntrack_helpers: Vec<RuleTraffic>,
    /// The router's network namespaces on this host.
    pub namespaces: Vec<NamespaceView>,
    /// The connections that have a helper now; at most the first 200 of each namespace.
    pub connections: Vec<ConnectionView>,
}

/// A rule with its traffic.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, ToSchema)]
pub struct RuleTraffic {
    // Stands first; otherwise these fields would also be read as fields of the rule that
    // the client does not know.
    #[serde(flatten)]
    #[expect(missing_docs, reason = "as the type says")]
    pub sums: TrafficSums,
    #[serde(flatten)]
    #[expect(missing_docs, reason = "as the type says")]
    pub rule: RuleView,
}

/// The conntrack usage of a namespace.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize, ToSchema)]
pub struct NamespaceView {
    /// The name of the namespace.
    pub name: String,
    /// The number of tracked connections; null if conntrack could not be read.
    #[schema(required = true)]
    pub tracked: Option<u32>,
    /// The limit on tracked connections (`nf_conntrack_max`); null if conntrack could not
    /// be read.
    #[schema(required = true)]
    pub tracked_limit: Option<u32>,
    /// The number of expected connections; null if conntrack could not be read.
    #[schema(required = true)]
    pub expectations: Option<usize>,
}

/// A tracked connection that has a helper.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize, ToSchema)]
pub struct ConnectionView {
    /// The name of the namespace.
    pub namespace: String,
    /// The transport protocol.
    #[schema(value_type = String)]
    pub protocol: OpenWord,
    /// The source address and port, before NAT.
    pub source: String,
    /// The destination address and port, before NAT.
    pub destination: String,
    /// The name of the helper.
    pub helper: String,
}
