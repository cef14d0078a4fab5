//! Whether new connections have their helper: nft's `ct helper set` fails
//! silently, so conntrack is asked.
//!
//! The programs tell which connections are a rule's; each is looked up in its
//! router's namespaces a moment later, when conntrack has it. On a thread of its
//! own: nothing waits for it, and if it can't follow, the programs count what they
//! could not tell.

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
    outcome::{ConntrackEntries, fate},
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

/// How often the ring buffer is read at most: so that a thousand connections cost
/// as many wakings as there are in this time.
const REST: Duration = Duration::from_millis(20);

/// How often it is looked whether it is still the one that programs write to: it
/// comes with the first rule.
const CHECK: Duration = Duration::from_millis(500);

/// Connections that began longer ago came while nobody read: they are counted, and
/// not looked for, as most of them have ended.
const FRESH: Duration = Duration::from_secs(5);

/// Ends when it is dropped.
#[derive(Debug)]
pub struct ConntrackVerifier {
    bell: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
    /// Never sent, and dropped when the thread ends, however it does.
    end: oneshot::Receiver<()>,
}

impl ConntrackVerifier {
    /// Begins to look connections up, and to say what was lost since the agent began,
    /// when there was what is `inherited`.
    ///
    /// # Errors
    /// What the system says to another thread, or to eventfd(2).
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
        let thread = thread::Builder::new().name("witness".into());
        let thread = thread.spawn(move || {
            let _alive: oneshot::Sender<()> = alive;
            work.until_told();
        })?;
        Ok(Self {
            bell,
            thread: Some(thread),
            end,
        })
    }

    /// Waits until it has ended although nobody has ended it: a bug.
    pub async fn ended(&mut self) {
        // Whichever way; it is dropped, never sent.
        let _ = (&mut self.end).await;
    }
}

impl Drop for ConntrackVerifier {
    fn drop(&mut self) {
        // A counter that is full rings all the same.
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
    /// What the programs could not tell of, when it was asked for last.
    lost: u64,
    queue: Queue,
    recent: RecentConnections,
    /// Where conntrack could not be asked the last time: said once.
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
            // Events are waited for where there is room for them.
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

    /// That the ring buffer is the one that there is, and what was lost on its way.
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
        let clock = clock_gettime(ClockId::Monotonic);
        let clock = Duration::try_from(clock).unwrap_or_default();
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

    /// So many began of which nothing will be told.
    fn lose(&self, count: u64) {
        if count > 0 {
            let chronicle = self.agent.chronicle();
            chronicle.note(Event::Untold { count }, Vec::new());
        }
    }

    /// Those of one router at a time, in each of its namespaces.
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
                // Not confirmed yet, perhaps (`nf_conntrack_confirm`).
                if found.is_empty() && self.queue.put_back(&waiting, now) {
                    continue;
                }
                // Its rule is gone, or not seen yet: a change of many routers is seen
                // when it is whole.
                if !self.tell(&waiting.opened, &found) && !self.queue.put_back(&waiting, now) {
                    self.lose(1);
                }
            }
        }
    }

    fn say_whether_it_works(&mut self, router: RouterId, failure: Option<&str>) {
        match failure {
            Some(why) => {
                if self.failing.insert(router) {
                    warn!(%router, "conntrack cannot be asked for connections: {why}");
                }
            }
            None => {
                if self.failing.remove(&router) {
                    info!(%router, "conntrack can be asked for connections again");
                }
            }
        }
    }

    /// What conntrack has of each of these.
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

    /// Returns whether there is a rule that it can have met.
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
        let fate = fate(helper, family, found);
        if !self.agent.view().met(target, family, &fate) {
            return false;
        }
        let (has_helper, reason) = match fate {
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
        let chronicle = self.agent.chronicle();
        chronicle.note(connection, vec![opened.router]);
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

/// Waits for the bell, or for events, or for this long. Returns whether it rang.
fn wait_for(bell: &OwnedFd, events: Option<&EventReader>, limit: Duration) -> bool {
    let limit = Timespec::try_from(limit).unwrap_or_default();
    let mut both = vec![PollFd::new(bell, PollFlags::IN)];
    both.extend(events.map(|events| PollFd::new(events, PollFlags::IN)));
    // An interruption is as good as the end of the time.
    let _ = poll(&mut both, Some(&limit));
    both.first().is_some_and(|bell| !bell.revents().is_empty())
}
