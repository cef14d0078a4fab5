//! The agent's thread, and how others ask it for changes.

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

/// Changes that may wait for their turn; more are refused at once.
const QUEUE: usize = 4096;

/// So that others get to change networks on this host meanwhile: a router's
/// links take some 30 ms.
const BETWEEN_RELINKINGS: Duration = Duration::from_millis(100);

/// What is asked for.
#[derive(Clone, Debug)]
pub enum Request {
    /// These operations, on rules of this router alone.
    OnRouter(RouterId, Vec<Operation>),
    /// The origin's rules on all routers become these.
    Everything(RuleSet),
}

/// What was done: what changed, durably and in the kernel.
pub type Applied = Change;

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum Rejection {
    /// The request is not one that may happen.
    #[error("{}", .0.iter().map(|refusal| refusal.reason.to_string()).collect::<Vec<_>>().join("; "))]
    Refused(Vec<Refusal>),
    /// The store or the kernel refused a part of it.
    #[error("{0}")]
    Failed(String),
    /// Too many changes wait already.
    #[error("{QUEUE} changes wait already; try again")]
    Busy,
    /// The agent ends.
    #[error("the agent is stopping")]
    Stopping,
}

enum AgentCommand {
    Change {
        origin: Origin,
        request: Request,
        reply: oneshot::Sender<Result<Applied, Rejection>>,
    },
    /// The kernel's events have something to tell.
    News,
    Reload {
        reply: oneshot::Sender<Result<(), String>>,
    },
    /// To be seen alive.
    Beat,
    Stop,
}

/// Asks the agent, from any thread.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: SyncSender<AgentCommand>,
    view: Arc<View>,
    policy: Arc<Policy>,
    metrics: Arc<Metrics>,
    chronicle: Arc<EventLog>,
    pins: Pins,
    pulse: Heartbeat,
    /// Work on many routers is to be left where it is.
    stopping: Arc<AtomicBool>,
}

impl Handle {
    /// What the agent has.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// What a rule may be.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// What it counts.
    #[must_use]
    pub const fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// What has happened.
    #[must_use]
    pub const fn chronicle(&self) -> &Arc<EventLog> {
        &self.chronicle
    }

    /// What it has in the kernel.
    #[must_use]
    pub const fn pins(&self) -> &Pins {
        &self.pins
    }

    /// What the request would change now; nothing is changed.
    ///
    /// # Errors
    /// [`Rejection::Refused`], as [`Self::change`] would.
    pub fn decide(&self, origin: Origin, request: &Request) -> Result<Change, Rejection> {
        let seen = self.view.read();
        decide(&seen.mapping, &self.policy, origin, request)
    }

    /// Makes a change: when this returns, it is durable and in the kernel, or
    /// nothing of it is anywhere. It is made even if nobody waits any more.
    ///
    /// # Errors
    /// [`Rejection`]: nothing was changed.
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

    /// Has the rules file read again, and waits until its rules are in force.
    ///
    /// # Errors
    /// Why they are not: the rules stay as they were. The log has said it too.
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

    /// What the agent's thread shows that it is alive by: it does so with every
    /// router that it works on.
    #[must_use]
    pub fn pulse(&self) -> &Heartbeat {
        &self.pulse
    }

    /// Has it show so where it has nothing to do.
    pub fn probe(&self) {
        // Where the queue is full it has something to do.
        let _ = self.commands.try_send(AgentCommand::Beat);
    }

    /// Has the agent leave what can be left, before [`Self::stop`].
    pub fn hurry(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Ends the agent when it has done what it is at. Waits where many changes
    /// wait for their turn.
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
            // A name may have come to mean another router's rule since the
            // request was looked at.
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
    /// Lets the agent work on a thread of its own. The receiver is told when it
    /// has ended, however it did, and why if it wasn't told to.
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
            chronicle: Arc::clone(&self.chronicle),
            pins: self.host.pins().clone(),
            pulse: self.pulse.clone(),
            stopping: Arc::default(),
        };
        // A queue that is full needs no waking.
        let bell = handle.commands.clone();
        self.watch.on_news(move || {
            let _ = bell.try_send(AgentCommand::News);
        });
        let stopping = Arc::clone(&handle.stopping);
        let (ended, end) = oneshot::channel();
        thread::Builder::new().name("agent".into()).spawn(move || {
            if let Err(error) = self.work(&queue, &stopping) {
                // Nobody is there to hear it where the agent ends anyway.
                let _ = ended.send(error);
            }
        })?;
        Ok((handle, end))
    }

    /// Requests first, then what is due: a pass over thousands of routers holds
    /// up none.
    fn work(
        mut self,
        queue: &Receiver<AgentCommand>,
        stopping: &AtomicBool,
    ) -> Result<(), AgentError> {
        let goes_on = || !stopping.load(Ordering::Relaxed);
        let mut next_pass = Instant::now() + self.full_pass;
        let mut next_relinking = Instant::now() + BETWEEN_RELINKINGS;
        loop {
            self.pulse.tick();
            let news = self.watch.news()?;
            self.hear(&news);
            let now = Instant::now();
            if next_pass <= now {
                self.look_around();
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
                    // Nobody may wait for it any more.
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

/// The next command; none if there is none in this time.
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
