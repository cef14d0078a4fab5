//! Answers `GET /v1/traffic` with the packets and control connections of rules: sums for
//! all routers, or the details of one.
//!
//! The client is `top`, which asks every second or two. Counters are read from the maps;
//! conntrack is read for a single router only.

use std::{collections::BTreeMap, io, sync::Arc};

use axum::{Extension, Json, extract::State};
use conntrack_ebpf::abi::Counters;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    task::spawn_blocking,
};
use tracing::debug;

use super::{authorize::readable_router, error::ApiError, path::PathParams};
use crate::{
    access::Authorization,
    agent::{Connections, Handle, Snapshot},
    engine::Entry,
    kernel::{Conntrack, Fullness, RouterNamespaces, matched},
    model::{Destination, RouterId, RuleTarget, protocol_name},
    resource::{
        ConnectionView, NamespaceView, RouterDetail, RouterDetailAnswer, RouterTraffic, RouterView,
        RuleStatus, RuleTraffic, RuleView, TrafficAnswer, TrafficSums,
    },
};

/// The maximum number of connections that are listed for one namespace.
const MOST_CONNECTIONS: usize = 200;

/// The maximum number of requests for all routers at a time.
const OF_ALL: usize = 2;
/// The maximum number of requests for single routers at a time.
const OF_ONE: usize = 4;

/// The limits on requests for traffic, each of which reads maps or walks through conntrack
/// on a thread that other requests need too.
#[derive(Clone, Debug)]
pub(super) struct Gathering {
    /// The limit on requests for all routers.
    all: Arc<Semaphore>,
    /// The limit on requests for single routers.
    one: Arc<Semaphore>,
}

impl Default for Gathering {
    fn default() -> Self {
        Self {
            all: Arc::new(Semaphore::new(OF_ALL)),
            one: Arc::new(Semaphore::new(OF_ONE)),
        }
    }
}

impl Gathering {
    fn of_all(&self) -> Result<SemaphorePermit<'_>, ApiError> {
        self.all.try_acquire().map_err(|_| busy(OF_ALL))
    }

    fn of_one(&self) -> Result<SemaphorePermit<'_>, ApiError> {
        self.one.try_acquire().map_err(|_| busy(OF_ONE))
    }
}

fn busy(most: usize) -> ApiError {
    ApiError::busy(format!("{most} are asking for that already; try again"))
}

/// The counters of a router's rules, by destination.
type Matched = BTreeMap<Destination, Counters>;

/// Reads a router's counters; `None` if they can't be read, as while its instance is being
/// replaced.
fn counters(agent: &Handle, router: RouterId) -> Option<Matched> {
    let counters = matched(&agent.pins().instance(router))
        .inspect_err(|error| debug!(%error, %router, "counters cannot be read"))
        .ok()??;
    Some(counters.into_iter().collect())
}

impl TrafficSums {
    /// The sums of no traffic.
    const NOTHING: Self = Self {
        packets: Some(0),
        bytes: Some(0),
        helped: 0,
        lacking: 0,
        unknown: 0,
    };

    /// Returns the sums of one rule.
    fn of(matched: Option<&Matched>, seen: &Snapshot, target: &RuleTarget) -> Self {
        let counters = matched.map(|all| {
            let counters = all.get(&target.destination()).copied();
            counters.unwrap_or_default()
        });
        let connections = seen.connections.get(target);
        let of = |count: fn(&Connections) -> u64| connections.map_or(0, count);
        Self {
            packets: counters.map(|counters| counters.packets),
            bytes: counters.map(|counters| counters.bytes),
            helped: of(|connections| connections.helped),
            lacking: of(|connections| connections.lacking),
            unknown: of(|connections| connections.unknown),
        }
    }

    /// Adds two sums; one that can't be read makes the result unreadable too.
    fn plus(self, more: Self) -> Self {
        let both = |one: Option<u64>, other: Option<u64>| Some(one?.wrapping_add(other?));
        Self {
            packets: both(self.packets, more.packets),
            bytes: both(self.bytes, more.bytes),
            helped: self.helped + more.helped,
            lacking: self.lacking + more.lacking,
            unknown: self.unknown + more.unknown,
        }
    }
}

/// Returns a router's rules with their status and sums. A shadowed rule has none, because
/// the counters are those of the rule that shadows it.
fn each<'a>(
    seen: &'a Snapshot,
    router: RouterId,
    matched: Option<&'a Matched>,
) -> impl Iterator<Item = (&'a Entry, RuleStatus, TrafficSums)> {
    seen.mapping.of(router).map(move |entry| {
        let status = RuleStatus::of(seen, entry);
        let sums = match status {
            RuleStatus::Shadowed => TrafficSums::NOTHING,
            _ => TrafficSums::of(matched, seen, &entry.rule.target),
        };
        (entry, status, sums)
    })
}

impl RouterTraffic {
    /// Returns the sums of a router's rules.
    fn of(seen: &Snapshot, router: RouterId, matched: Option<&Matched>) -> Self {
        let mut traffic = Self {
            id: router,
            status: RouterView::status(seen, router).into(),
            rules: 0,
            degraded: 0,
            sums: TrafficSums::NOTHING,
        };
        for (_, status, sums) in each(seen, router, matched) {
            traffic.rules += 1;
            traffic.degraded += usize::from(status == RuleStatus::Degraded);
            traffic.sums = traffic.sums.plus(sums);
        }
        traffic
    }
}

/// Lists the packets and control connections of each router's rules together.
#[utoipa::path(get, tag = "agent", path = "/v1/traffic",
    responses((status = 200, description = "The routers with rules that the caller may read", body = TrafficAnswer)))]
pub(super) async fn traffic(
    State(agent): State<Handle>,
    State(gathering): State<Gathering>,
    Extension(authorization): Extension<Authorization>,
) -> Result<Json<TrafficAnswer>, ApiError> {
    let _room = gathering.of_all()?;
    let read = spawn_blocking(move || {
        // Reading maps takes long, and the agent must not wait for the view meanwhile.
        let routers = agent.view().read().mapping.routers();
        let read: Vec<_> = routers
            .into_iter()
            .filter(|router| authorization.may_read(*router).is_ok())
            .map(|router| (router, counters(&agent, router)))
            .collect();
        let seen = agent.view().read();
        let of = |(router, matched): &(_, Option<_>)| {
            RouterTraffic::of(&seen, *router, matched.as_ref())
        };
        read.iter().map(of).collect()
    });
    let routers = read.await.map_err(|_| unread())?;
    Ok(Json(TrafficAnswer { routers }))
}

/// Returns the packets and control connections of each rule of a router, and the
/// connections that have a helper now.
#[utoipa::path(get, tag = "agent", path = "/v1/traffic/{router_id}",
    params(("router_id" = String, Path, format = Uuid)),
    responses((status = 200, description = "The router", body = RouterDetailAnswer)))]
pub(super) async fn traffic_of(
    State(agent): State<Handle>,
    State(namespaces): State<RouterNamespaces>,
    State(gathering): State<Gathering>,
    Extension(authorization): Extension<Authorization>,
    PathParams(given): PathParams<String>,
) -> Result<Json<RouterDetailAnswer>, ApiError> {
    let router = readable_router(&authorization, &given)?;
    let _room = gathering.of_one()?;
    let router = spawn_blocking(move || one(&agent, &namespaces, router))
        .await
        .map_err(|_| unread())?
        .ok_or_else(|| ApiError::no_router(&given))?;
    Ok(Json(RouterDetailAnswer { router }))
}

/// Returns the details of a router, or `None` if it has neither rules nor namespaces.
fn one(agent: &Handle, on_host: &RouterNamespaces, router: RouterId) -> Option<RouterDetail> {
    let counters = counters(agent, router);
    let matched = counters.as_ref();
    let (namespaces, connections) = in_namespaces(on_host, router);
    let seen = agent.view().read();
    let names = namespaces.iter().map(|namespace| namespace.name.clone());
    let shown = RouterView::new(&seen, router, names.collect())?;
    let rules = each(&seen, router, matched).map(|(entry, _, sums)| RuleTraffic {
        rule: RuleView::new(&seen, entry),
        sums,
    });
    Some(RouterDetail {
        status_reason: shown.status_reason,
        traffic: RouterTraffic::of(&seen, router, matched),
        conntrack_helpers: rules.collect(),
        namespaces,
        connections,
    })
}

/// Returns the conntrack usage of a router's namespaces, and their connections that have a
/// helper.
fn in_namespaces(
    on_host: &RouterNamespaces,
    router: RouterId,
) -> (Vec<NamespaceView>, Vec<ConnectionView>) {
    let names: Vec<_> = on_host.names_of(router).collect();
    let visited = on_host.folder().visit(&names, |name, entered| {
        let asked = entered.map_err(io::Error::other).and_then(|()| {
            let mut conntrack = Conntrack::open()?;
            let Fullness { usage, expected } = conntrack.fullness()?;
            let namespace = NamespaceView {
                name: name.to_owned(),
                tracked: Some(usage.entries),
                tracked_limit: Some(usage.most),
                expectations: Some(expected),
            };
            let connections: Vec<_> = conntrack
                .with_helper(MOST_CONNECTIONS)?
                .into_iter()
                .map(|(flow, tracked)| ConnectionView {
                    namespace: name.to_owned(),
                    protocol: protocol_name(flow.protocol).into(),
                    source: flow.source.to_string(),
                    destination: flow.destination.to_string(),
                    helper: tracked.helper.unwrap_or_default(),
                })
                .collect();
            Ok((namespace, connections))
        });
        asked.unwrap_or_else(|error| {
            debug!(%error, name, "conntrack cannot be asked");
            let namespace = NamespaceView {
                name: name.to_owned(),
                tracked: None,
                tracked_limit: None,
                expectations: None,
            };
            (namespace, Vec::new())
        })
    });
    let (namespaces, connections): (_, Vec<_>) = visited
        .inspect_err(|error| debug!(%error, "namespaces cannot be visited"))
        .unwrap_or_default()
        .into_iter()
        .unzip();
    (namespaces, connections.into_iter().flatten().collect())
}

fn unread() -> ApiError {
    ApiError::internal("traffic could not be gathered")
}
