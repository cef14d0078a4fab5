//! Accepts connections, limits them, identifies their peers, and answers their requests.

mod answer;
mod connection;
mod connection_limits;
mod listeners;
mod refusal;

use std::{sync::Arc, time::Duration};

use axum::Router;
use tokio::{
    sync::{Notify, Semaphore, watch},
    task::JoinSet,
    time::{interval, sleep, timeout},
};
use tracing::{info, warn};

use self::{
    connection::serve_connection,
    connection_limits::ConnectionLimits,
    refusal::{Stream, refuse},
};
use super::{response_budget::ByteBudget, tokens::Tokens};
use crate::{
    access::{Access, Principal},
    agent::Handle,
    audit::Auditor,
    config::ApiLimits,
    event_log::EventLog,
    heartbeat::Heartbeat,
    metrics::Metrics,
};

use listeners::Listening;
pub use listeners::{ListenError, Listeners, SOCKET, remove_socket};

/// The time that the last responses have to be received when the agent stops.
const FAREWELL: Duration = Duration::from_secs(5);

/// The maximum number of requests at a time on the metrics' own address: a host has one
/// Prometheus, or two.
const SCRAPES: usize = 4;

/// The interval at which the audit trail records the count of events that it left out.
const CATCH_UP: Duration = Duration::from_secs(10);

/// The parts that all connections share.
#[derive(Debug)]
pub struct Service {
    /// The routes of the API.
    routes: Router,
    /// The routes of the metrics' own address.
    metrics_routes: Router,
    /// The grants.
    access: Access,
    /// The tokens of TCP clients.
    tokens: Option<Tokens>,
    /// The audit trail.
    auditor: Arc<Auditor>,
    /// The event log.
    event_log: Arc<EventLog>,
    /// The metrics, which count requests by outcome.
    metrics: Arc<Metrics>,
    /// The limits on connections, requests and bodies.
    limits: ApiLimits,
    /// The quota of API requests.
    api_quota: Quota,
    /// The quota of requests on the metrics' own address. It is separate because any user
    /// of the host can use it up.
    metrics_quota: Quota,
}

/// A quota of requests and responses.
#[derive(Debug)]
struct Quota {
    /// The maximum number of requests at a time.
    most: usize,
    /// The free places of requests.
    requests: Semaphore,
    /// The memory budget of responses.
    answers: ByteBudget,
}

impl Quota {
    fn new(most: usize, answer_bytes: usize) -> Self {
        Self {
            most,
            requests: Semaphore::new(most),
            answers: ByteBudget::new(answer_bytes),
        }
    }
}

impl Service {
    /// Returns a service with these routes, grants and limits.
    #[must_use]
    pub fn new(
        routes: Router,
        metrics_routes: Router,
        access: Access,
        tokens: Option<Tokens>,
        auditor: Arc<Auditor>,
        agent: &Handle,
        limits: ApiLimits,
    ) -> Self {
        Self {
            routes,
            metrics_routes,
            access,
            tokens,
            auditor,
            event_log: Arc::clone(agent.event_log()),
            metrics: Arc::clone(agent.metrics()),
            api_quota: Quota::new(limits.requests, limits.answer_bytes),
            metrics_quota: Quota::new(SCRAPES, limits.answer_bytes / 4),
            limits,
        }
    }

    /// Returns the quota of a peer's requests.
    const fn quota(&self, peer: &Principal) -> &Quota {
        match peer {
            Principal::Scraper { .. } => &self.metrics_quota,
            _ => &self.api_quota,
        }
    }
}

/// The account to which a connection is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum PeerAccount {
    /// A user of the Unix socket.
    User(u32),
    /// All clients of the TCP listener.
    Tokens,
    /// All clients of the metrics' own address.
    Metrics,
}

impl PeerAccount {
    /// Returns the account of a peer.
    const fn of(peer: &Principal) -> Self {
        match peer {
            Principal::Local { uid, .. } => Self::User(*uid),
            Principal::Scraper { .. } => Self::Metrics,
            Principal::Token { .. } | Principal::Unknown { .. } | Principal::RulesFile => {
                Self::Tokens
            }
        }
    }
}

/// The probe that shows whether the server still accepts connections.
#[derive(Debug, Default)]
pub struct Probe {
    asked: Notify,
    heartbeat: Heartbeat,
}

impl Probe {
    /// Returns the heartbeat, which [`serve`] ticks when it is probed.
    #[must_use]
    pub fn heartbeat(&self) -> &Heartbeat {
        &self.heartbeat
    }

    /// Asks [`serve`] for a tick of the heartbeat.
    pub fn probe(&self) {
        self.asked.notify_one();
    }
}

/// Serves connections until it is told to stop; requests in progress then have a few
/// seconds to finish.
pub async fn serve(
    mut listeners: Listening,
    service: Arc<Service>,
    mut stop: watch::Receiver<bool>,
    probe: Arc<Probe>,
) {
    let limits = ConnectionLimits::new(service.limits);
    let mut is_short = false;
    let mut audit = interval(CATCH_UP);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listeners.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            _ = audit.tick() => {
                service.auditor.catch_up();
                continue;
            }
            () = probe.asked.notified() => {
                probe.heartbeat.tick();
                continue;
            }
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let (stream, peer) = match accepted {
            Ok((stream, Ok(peer))) => (stream, peer),
            Ok((_, Err(error))) | Err(error) => {
                // Logged once: there may be thousands of connections to refuse.
                if !std::mem::replace(&mut is_short, true) {
                    warn!(%error, "connections cannot be accepted");
                }
                // A connection that ends frees a descriptor. Until then, new
                // connections are refused, or wait in the kernel's queue.
                if !listeners.refuse_one().await {
                    sleep(Duration::from_millis(100)).await;
                }
                continue;
            }
        };
        if std::mem::take(&mut is_short) {
            info!("connections are accepted again");
        }
        let service = Arc::clone(&service);
        let stop = stop.clone();
        match limits.admit(&peer) {
            Ok(entry) => {
                connections.spawn(async move {
                    match stream {
                        Stream::Unix(stream) => {
                            serve_connection(stream, peer, service, stop).await;
                        }
                        Stream::Tcp(stream) => {
                            serve_connection(stream, peer, service, stop).await;
                        }
                    }
                    drop(entry);
                });
            }
            Err(why) => {
                connections.spawn(refuse(stream, why));
            }
        }
    }
    drop(listeners);
    let all = async { while connections.join_next().await.is_some() {} };
    if timeout(FAREWELL, all).await.is_err() {
        info!("some answers were not taken in time");
    }
}
