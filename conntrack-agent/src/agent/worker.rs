//! Runs the agent's thread, and the [`Handle`] by which other threads send it requests.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;
use tracing::warn;

use super::{Agent, AgentError, View};
use crate::{
    engine::{Change, Operation, Policy, Reason, Refusal},
    event_log::EventLog,
    heartbeat::Heartbeat,
    input::sentence,
    kernel::Pins,
    metrics::Metrics,
    model::{Origin, RouterId, RuleId},
    sources::RuleSet,
};

/// The maximum number of waiting commands; further changes are refused at once.
const QUEUE: usize = 4096;

/// The time between two routers' relinkings, so that others can change networks on this
/// host meanwhile: a router's links take some 30 ms.
const BETWEEN_RELINKINGS: Duration = Duration::from_millis(100);

/// A request for a change.
#[derive(Clone, Debug)]
pub enum Request {
    /// A batch of operations on rules of this router only.
    OnRouter(RouterId, Vec<Operation>),
    /// A replacement of the origin's rules on all routers.
    Everything(RuleSet),
}

/// The change that was made, durably and in the kernel.
pub type Applied = Change;

/// The reason why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Rejection {
    /// The request is not allowed.
    #[error("{}", .0.iter().map(|refusal| refusal.reason.to_string()).collect::<Vec<_>>().join("; "))]
    Refused(Vec<Refusal>),
    /// The store or the kernel refused a part of the change.
    #[error("{0}")]
    Failed(String),
    /// Too many changes are waiting already.
    #[error("{QUEUE} changes wait already; try again")]
    Busy,
    /// The agent is ending.
    #[error("the agent is stopping")]
    Stopping,
}

enum AgentCommand {
    Change {
        origin: Origin,
        request: Request,
        reply: oneshot::Sender<Result<Applied, Rejection>>,
    },
    /// Events of the kernel have arrived.
    News,
    Reload {
        reply: oneshot::Sender<Result<(), String>>,
    },
    /// A command that makes the agent show that it is alive.
    Beat,
    Stop,
}

/// A handle for sending the agent requests, from any thread.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: SyncSender<AgentCommand>,
    view: Arc<View>,
    policy: Arc<Policy>,
    metrics: Arc<Metrics>,
    event_log: Arc<EventLog>,
    pins: Pins,
    heartbeat: Heartbeat,
    /// Whether work on many routers is to stop where it is.
    stopping: Arc<AtomicBool>,
}

impl Handle {
    /// Returns the agent's published state.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Returns the policy that rules are checked against.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Returns the agent's metrics.
    #[must_use]
    pub const fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Returns the log of recent events.
    #[must_use]
    pub const fn event_log(&self) -> &Arc<EventLog> {
        &self.event_log
    }

    /// Returns the agent's pins.
    #[must_use]
    pub const fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Returns the change that the request would make now; nothing is changed.
    ///
    /// # Errors
    /// Returns [`Rejection::Refused`] where [`Self::change`] would.
    pub fn decide(&self, origin: Origin, request: &Request) -> Result<Change, Rejection> {
        let seen = self.view.read();
        decide(&seen.mapping, &self.policy, origin, request)
    }

    /// Makes a change: on return it is durable and in the kernel, or no part of it is.
    /// The change is made even if the caller stops waiting.
    ///
    /// # Errors
    /// Returns [`Rejection`]; then nothing was changed.
    pub async fn change(&self, origin: Origin, request: Request) -> Result<Applied, Rejection> {
        let (reply, answer) = oneshot::channel();
        let command = AgentCommand::Change {
            origin,
            request,
            reply,
        };
        self.commands
            .try_send(command)
            .map_err(|error| match error {
                TrySendError::Full(_) => Rejection::Busy,
                TrySendError::Disconnected(_) => Rejection::Stopping,
            })?;
        answer.await.unwrap_or(Err(Rejection::Stopping))
    }

    /// Makes the agent read the rules file again, and waits until its rules are in force.
    ///
    /// # Errors
    /// Returns the reason if they are refused: then the rules stay as they were. The
    /// reason is logged too.
    pub async fn reload(&self) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        let stopping = || Err(Rejection::Stopping.to_string());
        match self.commands.try_send(AgentCommand::Reload { reply }) {
            Ok(()) => answer.await.unwrap_or_else(|_| stopping()),
            Err(TrySendError::Full(_)) => {
                let why = Rejection::Busy.to_string();
                warn!("reload refused: {why}");
                Err(why)
            }
            Err(TrySendError::Disconnected(_)) => stopping(),
        }
    }

    /// Returns the heartbeat of the agent's thread, which ticks with every router that it
    /// works on.
    #[must_use]
    pub fn heartbeat(&self) -> &Heartbeat {
        &self.heartbeat
    }

    /// Makes the heartbeat tick if the agent is idle.
    pub fn probe(&self) {
        // If the queue is full, the agent isn't idle.
        let _ = self.commands.try_send(AgentCommand::Beat);
    }

    /// Makes the agent skip the work that can be skipped, before [`Self::stop`].
    pub fn hurry(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Ends the agent after its current command. It waits if the queue of changes is
    /// full.
    pub fn stop(&self) {
        let _ = self.commands.send(AgentCommand::Stop);
    }
}

fn decide(
    mapping: &crate::engine::Mapping,
    policy: &Policy,
    origin: Origin,
    request: &Request,
) -> Result<Change, Rejection> {
    match request {
        Request::OnRouter(router, batch) => {
            let change = mapping.decide(policy, origin, batch);
            let change = change.map_err(Rejection::Refused)?;
            // Since the request was checked, an id may have come to mean another router's
            // rule.
            let stranger = change.added().iter().chain(change.removed());
            let stranger = stranger
                .map(|entry| entry.rule)
                .find(|rule| rule.target.router != *router);
            match stranger {
                None => Ok(change),
                Some(rule) => Err(Rejection::Refused(vec![Refusal {
                    operation: 0,
                    reason: Reason::NoSuchRule(rule.id),
                }])),
            }
        }
        Request::Everything(wanted) => {
            let batch = wanted.operations(mapping, origin, RuleId::random);
            mapping
                .decide(policy, origin, &batch)
                .map_err(Rejection::Refused)
        }
    }
}

impl Agent {
    /// Runs the agent on a thread of its own. The receiver resolves when the agent has
    /// ended in whatever way, with the error if it wasn't told to end.
    ///
    /// # Errors
    /// What the system says to another thread.
    pub(crate) fn run(self) -> io::Result<(Handle, oneshot::Receiver<AgentError>)> {
        let (commands, queue) = sync_channel(QUEUE);
        let handle = Handle {
            commands,
            view: Arc::clone(&self.view),
            policy: Arc::new(self.policy.clone()),
            metrics: Arc::clone(&self.metrics),
            event_log: Arc::clone(&self.event_log),
            pins: self.host.pins().clone(),
            heartbeat: self.heartbeat.clone(),
            stopping: Arc::default(),
        };
        // A full queue needs no wakeup.
        let bell = handle.commands.clone();
        self.watch.on_news(move || {
            let _ = bell.try_send(AgentCommand::News);
        });
        let stopping = Arc::clone(&handle.stopping);
        let (ended, end) = oneshot::channel();
        thread::Builder::new().name("agent".into()).spawn(move || {
            if let Err(error) = self.work(&queue, &stopping) {
                // The receiver is gone if the daemon ends anyway.
                let _ = ended.send(error);
            }
        })?;
        Ok((handle, end))
    }

    /// Serves requests first, then the routers that are due, so that a pass over
    /// thousands of routers delays no request.
    fn work(
        mut self,
        queue: &Receiver<AgentCommand>,
        stopping: &AtomicBool,
    ) -> Result<(), AgentError> {
        let goes_on = || !stopping.load(Ordering::Relaxed);
        let mut next_pass = Instant::now() + self.full_pass;
        let mut next_relinking = Instant::now() + BETWEEN_RELINKINGS;
        loop {
            self.heartbeat.tick();
            let news = self.watch.news()?;
            self.hear(&news);
            let now = Instant::now();
            if next_pass <= now {
                self.enqueue_all();
                next_pass = now + self.full_pass;
            }
            if next_relinking <= now {
                self.relink_next();
                next_relinking = now + BETWEEN_RELINKINGS;
            }
            let mut due = self.reconciler.next_look().unwrap_or(next_pass);
            if !self.relinking.is_empty() {
                due = due.min(next_relinking);
            }
            let wait = due.min(next_pass).saturating_duration_since(now);
            match receive(queue, wait) {
                Some(AgentCommand::Change {
                    origin,
                    request,
                    reply,
                }) => {
                    // The caller may have stopped waiting.
                    let _ = reply.send(self.serve(origin, &request));
                }
                Some(AgentCommand::Reload { reply }) => {
                    let _ = reply.send(self.reload(&goes_on));
                }
                Some(AgentCommand::News | AgentCommand::Beat) => {}
                Some(AgentCommand::Stop) => return Ok(()),
                None => self.look(),
            }
        }
    }

    fn serve(&mut self, origin: Origin, request: &Request) -> Result<Applied, Rejection> {
        let change = decide(&self.mapping, &self.policy, origin, request)?;
        if !change.is_empty() {
            self.change(change.clone())
                .map_err(|error: AgentError| Rejection::Failed(sentence(&error)))?;
        }
        Ok(change)
    }
}

/// Returns the next command; `None` if none comes within this time.
fn receive(queue: &Receiver<AgentCommand>, wait: Duration) -> Option<AgentCommand> {
    if wait.is_zero() {
        return match queue.try_recv() {
            Ok(command) => Some(command),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(AgentCommand::Stop),
        };
    }
    match queue.recv_timeout(wait) {
        Ok(command) => Some(command),
        Err(RecvTimeoutError::Timeout) => None,
        Err(RecvTimeoutError::Disconnected) => Some(AgentCommand::Stop),
    }
}
