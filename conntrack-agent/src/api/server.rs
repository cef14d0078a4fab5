//! Connections: who may have one, for how long, and who is at its other end.

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

/// How long an answer may take to be taken, and the last ones when the agent ends.
const FAREWELL: Duration = Duration::from_secs(5);

/// Scrapes by the metrics' own address that may wait for one another: a host has one
/// Prometheus, or two.
const SCRAPES: usize = 4;

/// How often refusals that were too many to be recorded are counted.
const CATCH_UP: Duration = Duration::from_secs(10);

/// What every connection needs.
#[derive(Debug)]
pub struct Service {
    /// The resources.
    routes: Router,
    /// Those of them that the metrics' own address has.
    metrics_routes: Router,
    /// Who may do what.
    access: Access,
    /// Who is who on TCP.
    tokens: Option<Tokens>,
    /// Who did what.
    auditor: Arc<Auditor>,
    /// The same, for whoever follows what happens.
    event_log: Arc<EventLog>,
    /// What came of how many requests.
    metrics: Arc<Metrics>,
    /// How much there may be of everything.
    limits: ApiLimits,
    /// Room for who may use the API.
    api: Quota,
    /// Room for whoever reads metrics by their own address, which is anybody on this
    /// host: it is nobody else's that they can take up.
    metrics_lane: Quota,
}

/// Room for some of the requests.
#[derive(Debug)]
struct Quota {
    /// How many may be answered at one time.
    most: usize,
    /// For those that are.
    requests: Semaphore,
    /// For what is being sent.
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
    /// Answers by these routes.
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
            api: Quota::new(limits.requests, limits.answer_bytes),
            metrics_lane: Quota::new(SCRAPES, limits.answer_bytes / 4),
            limits,
        }
    }

    const fn quota(&self, peer: &Principal) -> &Quota {
        match peer {
            Principal::Scraper { .. } => &self.metrics_lane,
            _ => &self.api,
        }
    }
}

/// Those whose connections are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum PeerAccount {
    User(u32),
    Tokens,
    Metrics,
}

impl PeerAccount {
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

/// Whether connections are still being let in.
#[derive(Debug, Default)]
pub struct Probe {
    asked: Notify,
    heartbeat: Heartbeat,
}

impl Probe {
    /// What [`serve`] shows that it is alive by, when it is poked.
    #[must_use]
    pub fn heartbeat(&self) -> &Heartbeat {
        &self.heartbeat
    }

    /// Has it show so.
    pub fn probe(&self) {
        self.asked.notify_one();
    }
}

/// Answers until it is told to stop; then what is under way has a few seconds.
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
                // Said once: there may be thousands that want in.
                if !std::mem::replace(&mut is_short, true) {
                    warn!(%error, "connections cannot be accepted");
                }
                // Whoever is being served will give a descriptor back. Until
                // then each that knocks is told so, or waits with the others.
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
