//! Serves the API until a signal ends the daemon, and reports progress to the service
//! manager.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
    time::{Instant, sleep_until},
};
use tracing::info;

use super::{
    RunError,
    notify::Notify,
    prepared::Prepared,
    signals::{SignalStream, Told},
    watchdog::Watchdog,
};
use crate::{
    agent::{Agent, AgentError, Condition, Handle, Snapshot},
    api::{Api, Probe, Service, metrics_routes, routes, serve},
    config::{Config, OnStop},
    conntrack_verifier::ConntrackVerifier,
    kernel::{AgentId, Inherited},
};

/// The minimum time between two changes of the status.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// Answers requests until the agent is told to stop, and has stopped.
///
/// # Errors
/// Returns [`RunError`] if it ends for another reason.
pub(super) async fn answer(
    config: &Config,
    id: AgentId,
    agent: Agent,
    prepared: Prepared,
    inherited: Option<Inherited>,
    mut signals: SignalStream,
    notify: &mut Notify,
) -> Result<(), RunError> {
    let listening = prepared.listeners.listen()?;
    let (handle, mut end) = agent.run().map_err(RunError::Thread)?;
    let api = Api::new(config, id, handle.clone());
    let service = Arc::new(Service::new(
        routes(api.clone()),
        metrics_routes(api),
        prepared.access,
        prepared.tokens,
        prepared.auditor,
        &handle,
        prepared.limits,
    ));
    let verifier = config
        .follow_connections
        .then(|| ConntrackVerifier::start(config, handle.clone(), inherited))
        .transpose()
        .map_err(RunError::Thread)?;
    let (stop, stopped) = watch::channel(false);
    let probe = Arc::new(Probe::default());
    let mut server = tokio::spawn(serve(listening, service, stopped, Arc::clone(&probe)));
    info!("listening");
    let mut running = Running {
        handle: &handle,
        probe: &probe,
        verifier,
        notify,
    };
    running
        .until_told(&mut signals, &mut end, &mut server)
        .await?;
    let Running {
        verifier, notify, ..
    } = running;
    let what = match config.on_stop {
        OnStop::Keep => "stopping; the datapath stays as it is",
        OnStop::Cleanup => "stopping; the datapath is removed",
    };
    info!("{what}");
    notify.stopping(what);
    handle.hurry();
    drop(verifier);
    handle.event_log().end();
    // Nobody is let in any more, and who is in has an answer coming.
    stop.send_replace(true);
    server.await.map_err(|_| RunError::Ended("the server"))?;
    handle.stop();
    // What it is at is brought to its end.
    let _ = end.await;
    Ok(())
}

/// The running daemon.
struct Running<'a> {
    handle: &'a Handle,
    probe: &'a Probe,
    verifier: Option<ConntrackVerifier>,
    notify: &'a mut Notify,
}

impl Running<'_> {
    async fn until_told(
        &mut self,
        signals: &mut SignalStream,
        end: &mut oneshot::Receiver<AgentError>,
        server: &mut JoinHandle<()>,
    ) -> Result<(), RunError> {
        let mut watchdog = Watchdog::new(Notify::limit());
        let mut reload: Option<JoinHandle<Result<(), String>>> = None;
        // SIGHUP while a reload runs: the file may have changed since it was read.
        let mut again = false;
        // Whether something has changed since the status was said.
        let mut is_old = false;
        let mut next_status = Instant::now();
        let status = self.summary();
        self.notify.ready(&status);
        loop {
            tokio::select! {
                told = signals.next() => match told {
                    Told::Stop => return Ok(()),
                    Told::Reload if reload.is_some() => again = true,
                    Told::Reload => reload = Some(self.reload()),
                },
                answer = finished(&mut reload) => {
                    reload = None;
                    let status = match answer {
                        Ok(()) => self.summary(),
                        Err(why) => format!("reload refused: {why}; {}", self.summary()),
                    };
                    self.notify.ready(&status);
                    // So that a refusal can be read for a while.
                    next_status = Instant::now() + STATUS_EVERY;
                    if std::mem::take(&mut again) {
                        reload = Some(self.reload());
                    }
                }
                () = self.handle.view().changed() => is_old = true,
                () = sleep_until(next_status), if is_old => {
                    is_old = false;
                    let status = self.summary();
                    self.notify.status(&status);
                    next_status = Instant::now() + STATUS_EVERY;
                }
                () = watchdog.tick() => {
                    if watchdog.is_alive([self.handle.heartbeat(), self.probe.heartbeat()]) {
                        self.notify.alive();
                    }
                    // After it was looked at: what comes from here on is for
                    // the next tick.
                    self.handle.probe();
                    self.probe.probe();
                }
                reason = &mut *end => {
                    return Err(reason.map_or(RunError::Ended("the agent"), RunError::from));
                }
                _ = &mut *server => return Err(RunError::Ended("the server")),
                () = ended(&mut self.verifier) => {
                    return Err(RunError::Ended("the conntrack verifier"));
                }
            }
        }
    }

    fn reload(&mut self) -> JoinHandle<Result<(), String>> {
        self.notify.reloading();
        let handle = self.handle.clone();
        tokio::spawn(async move { handle.reload().await })
    }

    fn summary(&self) -> String {
        summary(&self.handle.view().read())
    }
}

async fn ended(verifier: &mut Option<ConntrackVerifier>) {
    match verifier {
        Some(verifier) => verifier.ended().await,
        None => std::future::pending().await,
    }
}

async fn finished(reload: &mut Option<JoinHandle<Result<(), String>>>) -> Result<(), String> {
    match reload {
        Some(reload) => match reload.await {
            Ok(answer) => answer,
            Err(failure) => Err(failure.to_string()),
        },
        None => std::future::pending().await,
    }
}

/// Returns one line: the number of rules and routers, and of those not in force.
fn summary(seen: &Snapshot) -> String {
    let conditions = seen.conditions.values();
    let failed = conditions
        .filter(|condition| matches!(condition, Condition::Failed { .. }))
        .count();
    let pending = seen.conditions.len() - failed;
    let (rules, routers) = (seen.mapping.len(), seen.mapping.routers().len());
    format!("rules: {rules}, routers: {routers}, pending: {pending}, failed: {failed}")
}
