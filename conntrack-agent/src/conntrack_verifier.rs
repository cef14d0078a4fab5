//! Asks conntrack whether new connections have their helper, because nft's `ct helper
//! set` fails silently.
//!
//! The programs report the connections that meet a rule; each is looked up in its
//! router's namespaces a moment later, when conntrack has it. This runs on a thread of
//! its own: nothing waits for it, and if it can't keep up, the programs count the
//! connections that they could not report.

mod outcome;
mod queue;
mod recent;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::OwnedFd,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    time::{ClockId, clock_gettime},
};
use tokio::sync::oneshot;
use tracing::{debug, info, warn};

use self::{
    outcome::{ConntrackEntries, outcome},
    queue::{PendingLookup, Queue},
    recent::RecentConnections,
};
use crate::{
    agent::{AddressFamily, Handle, HelperOutcome},
    config::Config,
    event_log::{Event, HelperState},
    input::sentence,
    kernel::{
        Conntrack, Error, EventReader, Inherited, NewConnection, OriginalTuple, RouterNamespaces,
    },
    model::{Helper, Port, RouterId, RuleTarget},
};

/// The shortest time between two reads of the ring buffer, so that many connections
/// within this time cost one wakeup.
const REST: Duration = Duration::from_millis(20);

/// The time between two checks whether the open ring buffer is still the one that the
/// programs write to: it is created with the first rule.
const CHECK: Duration = Duration::from_millis(500);

/// The age up to which a connection is looked up. Older ones began while nobody read:
/// they are counted as untold and not looked up, as most of them have ended.
const FRESH: Duration = Duration::from_secs(5);

/// The thread that verifies connections; it ends when this value is dropped.
#[derive(Debug)]
pub struct ConntrackVerifier {
    bell: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
    /// The receiver of a sender that never sends, and is dropped when the thread ends in
    /// whatever way.
    end: oneshot::Receiver<()>,
}

impl ConntrackVerifier {
    /// Starts looking connections up, and reporting the connections that were lost since
    /// the agent started; `inherited` is the state that the kernel had then.
    ///
    /// # Errors
    /// Returns the system's error if it refuses the thread or eventfd(2).
    pub fn start(config: &Config, agent: Handle, inherited: Option<Inherited>) -> io::Result<Self> {
        let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let mut work = Work {
            bell: Arc::clone(&bell),
            namespaces: config.router_namespaces(),
            agent,
            events: None,
            inherited,
            lost: 0,
            queue: Queue::default(),
            recent: RecentConnections::new(Instant::now()),
            failing: BTreeSet::new(),
        };
        let (alive, end) = oneshot::channel();
        let builder = thread::Builder::new().name("verifier".into());
        let thread = builder.spawn(move || {
            let _alive: oneshot::Sender<()> = alive;
            work.until_told();
        })?;
        Ok(Self {
            bell,
            thread: Some(thread),
            end,
        })
    }

    /// Waits until the thread ends without having been told to, which is a bug.
    pub async fn ended(&mut self) {
        // Always an error: the sender is dropped, and never sends.
        let _ = (&mut self.end).await;
    }
}

impl Drop for ConntrackVerifier {
    fn drop(&mut self) {
        // A full counter wakes the thread too.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            // A panic was printed already, and has ended the agent (`Self::ended`).
            drop(thread.join());
        }
    }
}

struct Work {
    bell: Arc<OwnedFd>,
    namespaces: RouterNamespaces,
    agent: Handle,
    events: Option<EventReader>,
    inherited: Option<Inherited>,
    /// The number of connections that the programs could not report, as of the last
    /// check.
    lost: u64,
    queue: Queue,
    recent: RecentConnections,
    /// The routers whose conntrack could not be read the last time, so that each is
    /// logged once.
    failing: BTreeSet<RouterId>,
}

impl Work {
    fn until_told(&mut self) {
        let mut next_check = Instant::now();
        loop {
            let now = Instant::now();
            if next_check <= now {
                self.check(now);
                next_check = now + CHECK;
            }
            let due = self.queue.next().unwrap_or(next_check).min(next_check);
            // Waits for events only if the queue has room for them.
            let events = self.events.as_ref().filter(|_| self.queue.has_room());
            let wait = due.saturating_duration_since(now);
            if wait_for(&self.bell, events, wait) || wait_for(&self.bell, None, REST) {
                return;
            }
            let now = Instant::now();
            self.read(now);
            let due = self.queue.take(now);
            if !due.is_empty() {
                self.look_up(due, now);
            }
        }
    }

    /// Opens the ring buffer again if another one is pinned, and reports the connections
    /// that were lost.
    fn check(&mut self, now: Instant) {
        if !self.events.as_ref().is_some_and(EventReader::is_pinned) {
            self.read(now);
            self.events = EventReader::open(self.agent.pins()).unwrap_or_else(|error| {
                debug!(%error, "new connections cannot be followed");
                None
            });
            let events = self.events.as_ref();
            self.lost = events.map_or(0, |events| events.lost_before(self.inherited));
        }
        let Some(events) = &self.events else { return };
        let Ok(tally) = events.tally() else { return };
        let before = std::mem::replace(&mut self.lost, tally.lost());
        self.lose(self.lost.saturating_sub(before));
    }

    fn read(&mut self, now: Instant) {
        let Some(events) = &mut self.events else {
            return;
        };
        let clock = Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default();
        let mut stale = 0;
        for opened in events.read(self.queue.room()) {
            if clock.saturating_sub(opened.at) > FRESH {
                stale += 1;
            } else if self.recent.is_new(opened.router, flow(&opened), now) {
                self.queue.add(opened, now);
            }
        }
        self.lose(stale);
    }

    /// Logs an event that this many connections began that are not reported.
    fn lose(&self, count: u64) {
        if count > 0 {
            let event_log = self.agent.event_log();
            event_log.note(Event::Untold { count }, Vec::new());
        }
    }

    /// Looks connections up, router by router, in each of the router's namespaces.
    fn look_up(&mut self, due: Vec<PendingLookup>, now: Instant) {
        let mut of_routers: BTreeMap<RouterId, Vec<PendingLookup>> = BTreeMap::new();
        for waiting in due {
            let router = waiting.opened.router;
            of_routers.entry(router).or_default().push(waiting);
        }
        for (router, waiting) in of_routers {
            let flows: Vec<_> = waiting.iter().map(|one| flow(&one.opened)).collect();
            let found = match self.find(router, &flows) {
                Ok(found) => found,
                Err(error) => vec![ConntrackEntries::failed(sentence(&error)); flows.len()],
            };
            let failure = found.iter().find_map(ConntrackEntries::failure);
            self.say_whether_it_works(router, failure);
            for (waiting, found) in waiting.into_iter().zip(found) {
                // It may be not confirmed yet (`nf_conntrack_confirm`).
                if found.is_empty() && self.queue.put_back(&waiting, now) {
                    continue;
                }
                // Its rule was removed, or is not visible yet: a change of many routers
                // becomes visible when it is complete.
                if !self.tell(&waiting.opened, &found) && !self.queue.put_back(&waiting, now) {
                    self.lose(1);
                }
            }
        }
    }

    fn say_whether_it_works(&mut self, router: RouterId, failure: Option<&str>) {
        match failure {
            Some(why) if self.failing.insert(router) => {
                warn!(%router, "conntrack cannot be asked for connections: {why}");
            }
            None if self.failing.remove(&router) => {
                info!(%router, "conntrack can be asked for connections again");
            }
            _ => {}
        }
    }

    /// Returns conntrack's entries for each of these connections.
    fn find(
        &self,
        router: RouterId,
        flows: &[OriginalTuple],
    ) -> Result<Vec<ConntrackEntries>, Error> {
        let names: Vec<_> = self.namespaces.names_of(router).collect();
        let of_namespaces = self.namespaces.folder().visit(&names, |name, entered| {
            let failed = |error: io::Error| format!("{name}: {error}");
            let opened = entered.map_err(|error| sentence(&error));
            let mut conntrack = match opened.and_then(|()| Conntrack::open().map_err(failed)) {
                Ok(conntrack) => conntrack,
                Err(why) => return vec![Err(why); flows.len()],
            };
            let found = flows.iter().map(|flow| conntrack.find(flow));
            found.map(|found| found.map_err(failed)).collect()
        })?;
        let mut all = vec![ConntrackEntries::default(); flows.len()];
        for of_one in of_namespaces {
            for (all, one) in all.iter_mut().zip(of_one) {
                all.add(one);
            }
        }
        Ok(all)
    }

    /// Counts and logs a connection, and returns `false` if there is no rule that it can
    /// have met.
    fn tell(&self, opened: &NewConnection, found: &ConntrackEntries) -> bool {
        let rule = opened.rule();
        let port = Port::try_from(i64::from(rule.port));
        let (Some(helper), Ok(port)) = (Helper::with_mark(opened.mark), port) else {
            return false;
        };
        let target = RuleTarget {
            router: opened.router,
            port,
            helper,
        };
        let family = if opened.destination.is_ipv4() {
            AddressFamily::Four
        } else {
            AddressFamily::Six
        };
        let outcome = outcome(helper, family, found);
        if !self.agent.view().met(target, family, &outcome) {
            return false;
        }
        let (has_helper, reason) = match outcome {
            HelperOutcome::Assigned => (HelperState::Yes, None),
            HelperOutcome::Missing(reason) => (HelperState::No, Some(reason)),
            HelperOutcome::Unknown(reason) => (HelperState::Unknown, Some(reason)),
        };
        let connection = Event::Connection {
            rule: target.into(),
            source: opened.source.to_string(),
            destination: opened.destination.to_string(),
            has_helper,
            reason,
        };
        let event_log = self.agent.event_log();
        event_log.note(connection, vec![opened.router]);
        true
    }
}

const fn flow(opened: &NewConnection) -> OriginalTuple {
    OriginalTuple {
        protocol: opened.protocol,
        source: opened.source,
        destination: opened.destination,
    }
}

/// Waits for the bell or for events, at most for `limit`, and returns whether the bell
/// rang.
fn wait_for(bell: &OwnedFd, events: Option<&EventReader>, limit: Duration) -> bool {
    let limit = Timespec::try_from(limit).unwrap_or_default();
    let mut both = vec![PollFd::new(bell, PollFlags::IN)];
    both.extend(events.map(|events| PollFd::new(events, PollFlags::IN)));
    // An interruption is treated like the end of the time.
    let _ = poll(&mut both, Some(&limit));
    both.first().is_some_and(|bell| !bell.revents().is_empty())
}
