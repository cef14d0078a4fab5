//! A bounded, numbered log of recent events, for clients that follow it.
//!
//! The log is kept in memory only, and only so much of it: a client that was away for
//! longer gets the number of events that it missed. The audit trail is the permanent
//! record.

mod event;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};
use uuid::Uuid;

pub use event::{Event, HelperState, RuleText};

use crate::model::RouterId;

/// The number of events kept of each of two kinds, connections and all others: each takes
/// some hundred bytes, beside the routers that it is about. The kinds are separate
/// because anybody behind a router can open many connections, which must not push out
/// repairs.
const KEPT: usize = 1024;

/// The maximum number of routers that the events of a kind are about together; the newest
/// event is kept in any case. One change may be about ten thousand routers. The limit
/// stands for 1 MiB.
const ROUTERS: usize = 65_536;

/// An event as the log keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedEvent {
    /// The number of the event: one more than that of the event before, from 1 at the
    /// agent's start.
    pub sequence: u64,
    /// The time of the event.
    pub at: SystemTime,
    /// The event itself.
    pub what: Event,
    /// All routers that the event is about; empty where it is about all routers.
    pub routers: Vec<RouterId>,
}

/// A page of the log: events after a given number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventPage {
    /// The events, the oldest first.
    pub entries: Vec<Arc<LoggedEvent>>,
    /// The number of events in this range that are not kept any more.
    pub missed: u64,
    /// The number of the last event.
    pub last: u64,
}

/// The log of recent events.
#[derive(Debug)]
pub struct EventLog {
    /// The id of the agent's run: event numbers begin anew with each run.
    run: Uuid,
    kept: Mutex<Retained>,
    newest: watch::Sender<Newest>,
}

/// The kept events, each kind in the order of their numbers.
#[derive(Debug, Default)]
struct Retained {
    connections: VecDeque<Arc<LoggedEvent>>,
    others: VecDeque<Arc<LoggedEvent>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Newest {
    sequence: u64,
    /// Whether the agent ends, so that nobody is to wait for more events.
    is_ended: bool,
}

impl Default for EventLog {
    fn default() -> Self {
        Self {
            run: Uuid::new_v4(),
            kept: Mutex::default(),
            newest: watch::Sender::default(),
        }
    }
}

impl EventLog {
    /// Returns the id of the agent's run.
    #[must_use]
    pub const fn run(&self) -> Uuid {
        self.run
    }

    /// Logs an event that has just happened, and the routers that it is about.
    pub fn note(&self, what: Event, routers: Vec<RouterId>) {
        let mut kept = self.kept();
        let sequence = self.newest.borrow().sequence + 1;
        let ring = match what {
            Event::Connection { .. } => &mut kept.connections,
            _ => &mut kept.others,
        };
        ring.push_back(Arc::new(LoggedEvent {
            sequence,
            at: SystemTime::now(),
            what,
            routers,
        }));
        let mut about: usize = ring.iter().map(|entry| entry.routers.len()).sum();
        while ring.len() > KEPT || (about > ROUTERS && ring.len() > 1) {
            let gone = ring.pop_front();
            about -= gone.map_or(0, |entry| entry.routers.len());
        }
        // While the lock is held: otherwise a number could be seen before its event.
        self.newest.send_modify(|newest| newest.sequence = sequence);
    }

    /// Returns the events after this number, at most `most` of them. A number that isn't
    /// used yet must be from another run: then all events count.
    #[must_use]
    pub fn after(&self, sequence: u64, most: usize) -> EventPage {
        let kept = self.kept();
        let newest = self.newest.borrow().sequence;
        let sequence = if sequence > newest { 0 } else { sequence };
        let later = |ring: &VecDeque<Arc<LoggedEvent>>| {
            let first = ring.partition_point(|entry| entry.sequence <= sequence);
            ring.range(first..).cloned().collect::<Vec<_>>()
        };
        let mut entries = [later(&kept.connections), later(&kept.others)].concat();
        entries.sort_unstable_by_key(|entry| entry.sequence);
        entries.truncate(most);
        let is_all = entries.len() < most;
        let last = match entries.last() {
            Some(entry) if !is_all => entry.sequence,
            _ => newest,
        };
        EventPage {
            missed: (last - sequence).saturating_sub(entries.len() as u64),
            last,
            entries,
        }
    }

    /// Returns the number of the last event.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.newest.borrow().sequence
    }

    /// Waits for an event after this number, at most until `until` or [`Self::end`], and
    /// returns whether there is one.
    pub async fn wait(&self, sequence: u64, until: Instant) -> bool {
        let mut newest = self.newest.subscribe();
        let change = newest.wait_for(|newest| newest.is_ended || newest.sequence != sequence);
        let seen = timeout_at(until, change).await;
        seen.is_ok_and(|newest| newest.is_ok_and(|newest| !newest.is_ended))
    }

    /// Ends all waiting, because the agent ends.
    pub fn end(&self) {
        self.newest.send_modify(|newest| newest.is_ended = true);
    }

    /// Locks the kept events, which are consistent even if a thread panicked with the
    /// lock.
    fn kept(&self) -> MutexGuard<'_, Retained> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn note(event_log: &EventLog, count: u64) {
        event_log.note(Event::Untold { count }, Vec::new());
    }

    fn connect(event_log: &EventLog) {
        let rule = RuleText {
            router_id: String::new(),
            protocol: "tcp".into(),
            port: 21,
            helper: "ftp".into(),
        };
        let event = Event::Connection {
            rule,
            source: String::new(),
            destination: String::new(),
            has_helper: HelperState::Yes,
            reason: None,
        };
        event_log.note(event, Vec::new());
    }

    fn numbers(page: &EventPage) -> Vec<u64> {
        page.entries.iter().map(|entry| entry.sequence).collect()
    }

    #[test]
    fn each_is_told_once_in_order() {
        let event_log = EventLog::default();
        assert_eq!(event_log.after(0, 9), EventPage::default());
        note(&event_log, 1);
        connect(&event_log);
        note(&event_log, 3);
        let all = event_log.after(0, 9);
        assert_eq!((numbers(&all), all.missed, all.last), (vec![1, 2, 3], 0, 3));
        let some = event_log.after(1, 1);
        assert_eq!((numbers(&some), some.missed, some.last), (vec![2], 0, 2));
        let none = event_log.after(3, 9);
        assert_eq!((numbers(&none), none.missed, none.last), (vec![], 0, 3));
        // Of a run before this one.
        assert_eq!(event_log.after(4, 9), all);
    }

    #[test]
    fn what_is_not_kept_any_more_is_counted() {
        let event_log = EventLog::default();
        for count in 0..KEPT as u64 + 10 {
            note(&event_log, count);
        }
        let all = event_log.after(0, usize::MAX);
        assert_eq!((all.entries.len(), all.missed), (KEPT, 10));
        assert_eq!(event_log.after(4, usize::MAX).missed, 6);
        assert_eq!(event_log.after(10, usize::MAX).missed, 0);
    }

    #[test]
    fn what_is_about_many_routers_is_kept_for_less_long() {
        let event_log = EventLog::default();
        let router: RouterId = "6ab1c2d3-0a1b-4c2d-8e3f-0123456789ab".parse().unwrap();
        let about = |count| event_log.note(Event::Untold { count: 1 }, vec![router; count]);
        about(1);
        about(ROUTERS - 1);
        assert_eq!(numbers(&event_log.after(0, 9)), [1, 2]);
        about(1);
        assert_eq!(numbers(&event_log.after(0, 9)), [2, 3]);
        about(2 * ROUTERS);
        let newest = event_log.after(0, 9);
        assert_eq!((numbers(&newest), newest.missed), (vec![4], 3));
    }

    #[test]
    fn connections_push_out_no_other_event() {
        let event_log = EventLog::default();
        note(&event_log, 1);
        for _ in 0..2 * KEPT {
            connect(&event_log);
        }
        note(&event_log, 2);
        let all = event_log.after(0, usize::MAX);
        let (first, last) = (all.entries.first().unwrap(), all.entries.last().unwrap());
        let newest = 2 * KEPT as u64 + 2;
        assert_eq!((first.sequence, last.sequence), (1, newest));
        assert_eq!((all.entries.len(), all.missed), (KEPT + 2, KEPT as u64));
        // The first of them is there, and what follows it is not.
        let first = event_log.after(0, 1);
        assert_eq!((first.missed, first.last), (0, 1));
        let next = event_log.after(1, 1);
        assert_eq!((next.missed, next.last), (KEPT as u64, KEPT as u64 + 2));
    }

    /// Without the waking it would hang.
    #[tokio::test]
    async fn who_waits_is_woken_by_news_and_by_the_end() {
        let event_log = Arc::new(EventLog::default());
        let later = Instant::now() + Duration::from_hours(1);
        let wait = |after| {
            let event_log = Arc::clone(&event_log);
            tokio::spawn(async move { event_log.wait(after, later).await })
        };
        let waiting = wait(0);
        tokio::task::yield_now().await;
        note(&event_log, 1);
        assert!(waiting.await.unwrap());
        // There is one already.
        assert!(event_log.wait(0, later).await);
        let waiting = wait(1);
        tokio::task::yield_now().await;
        event_log.end();
        assert!(!waiting.await.unwrap());
        let idle = EventLog::default();
        assert!(!idle.wait(0, Instant::now()).await);
    }
}
