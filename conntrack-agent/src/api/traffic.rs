//! `GET /v1/traffic`: what rules have matched, and what that came to, in one answer
//! for all routers and in one with all that there is of a router.
//!
//! Made for `top`, which asks each second or two: counters are read from the maps,
//! conntrack is asked for one router alone.

use std::{collections::BTreeMap, io, sync::Arc};

use axum::{Extension, Json, extract::State, http::StatusCode};
use conntrack_ebpf::abi::Counters;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    task::spawn_blocking,
};
use tracing::debug;

use super::{
    error::ApiError,
    path::{PathParams, router_id},
};
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

/// Connections that are listed of one namespace.
const MOST_CONNECTIONS: usize = 200;

/// How many may ask for all routers at one time, and how many for one.
const OF_ALL: usize = 2;
const OF_ONE: usize = 4;

/// Room for those who ask: each has maps read, or conntrack walked through, on a
/// thread that others need too.
#[derive(Clone, Debug)]
pub(super) struct Gathering {
    all: Arc<Semaphore>,
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
    let message = format!("{most} are asking for that already; try again");
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "TooManyRequests", message)
}

/// What each rule of a router has matched.
type Matched = BTreeMap<Destination, Counters>;

/// None where that can't be read, as when the router's instance is just being renewed.
fn counters(agent: &Handle, router: RouterId) -> Option<Matched> {
    let read = matched(&agent.pins().instance(router));
    let counters = read.unwrap_or_else(|error| {
        debug!(%error, %router, "counters cannot be read");
        None
    });
    Some(counters?.into_iter().collect())
}

impl TrafficSums {
    const NOTHING: Self = Self {
        packets: Some(0),
        bytes: Some(0),
        helped: 0,
        lacking: 0,
        unknown: 0,
    };

    fn of(matched: Option<&Matched>, seen: &Snapshot, target: &RuleTarget) -> Self {
        let counters = matched.map(|all| all.get(&target.destination()).copied());
        let counters = counters.map(Option::unwrap_or_default);
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

/// A router's rules with their status, and what each came to: of one that another
/// shadows that is nothing, as the counters are the winner's.
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

/// What the rules of each router have matched.
#[utoipa::path(get, tag = "agent", path = "/v1/traffic",
    responses((status = 200, description = "Routers", body = TrafficAnswer)))]
pub(super) async fn traffic(
    State(agent): State<Handle>,
    State(gathering): State<Gathering>,
    Extension(authorization): Extension<Authorization>,
) -> Result<Json<TrafficAnswer>, ApiError> {
    let _room = gathering.of_all()?;
    let read = spawn_blocking(move || {
        let routers = agent.view().read().mapping.routers();
        let routers = routers.into_iter();
        let routers = routers.filter(|router| authorization.may_read(*router).is_ok());
        // The agent must not wait for the view while maps are read.
        let read: Vec<_> = routers
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

/// What each rule of a router has matched, and its connections that have a helper.
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
    let router = router_id(&given)?;
    authorization
        .may_read(router)
        .map_err(ApiError::forbidden)?;
    let _room = gathering.of_one()?;
    let read = spawn_blocking(move || one(&agent, &namespaces, router));
    let router = read.await.map_err(|_| unread())?;
    let router = router.ok_or_else(|| ApiError::no_router(&given))?;
    Ok(Json(RouterDetailAnswer { router }))
}

/// None if the agent knows nothing of the router.
fn one(agent: &Handle, on_host: &RouterNamespaces, router: RouterId) -> Option<RouterDetail> {
    let matched = counters(agent, router);
    let matched = matched.as_ref();
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

fn in_namespaces(
    on_host: &RouterNamespaces,
    router: RouterId,
) -> (Vec<NamespaceView>, Vec<ConnectionView>) {
    let names: Vec<_> = on_host.names_of(router).collect();
    let visited = on_host.folder().visit(&names, |name, entered| {
        let opened = entered.map_err(io::Error::other);
        let opened = opened.and_then(|()| Conntrack::open());
        let asked = opened.and_then(|mut conntrack| -> io::Result<_> {
            let Fullness { usage, expected } = conntrack.fullness()?;
            let namespace = NamespaceView {
                name: name.to_owned(),
                tracked: Some(usage.entries),
                tracked_limit: Some(usage.most),
                expectations: Some(expected),
            };
            let connections = conntrack.with_helper(MOST_CONNECTIONS)?.into_iter();
            let connections = connections.map(|(flow, tracked)| ConnectionView {
                namespace: name.to_owned(),
                protocol: protocol_name(flow.protocol).into(),
                source: flow.source.to_string(),
                destination: flow.destination.to_string(),
                helper: tracked.helper.unwrap_or_default(),
            });
            Ok((namespace, connections.collect::<Vec<_>>()))
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
    let visited = visited.unwrap_or_else(|error| {
        debug!(%error, "namespaces cannot be visited");
        Vec::new()
    });
    let (namespaces, connections): (_, Vec<_>) = visited.into_iter().unzip();
    (namespaces, connections.into_iter().flatten().collect())
}

fn unread() -> ApiError {
    ApiError::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "HTTPInternalServerError",
        "traffic could not be gathered",
    )
}
