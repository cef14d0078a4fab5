//! A queue of connections that are looked up after a delay.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::kernel::NewConnection;

/// The delay from a connection's first packet to its look-up: the connection is in
/// conntrack's table when the packet leaves the host.
const SETTLE: Duration = Duration::from_millis(50);

/// The delay to the second and last attempt, so that in any case the result is reported
/// within a second.
const AGAIN: Duration = Duration::from_millis(400);

/// The maximum number of waiting connections; further ones stay in the ring buffer.
const ROOM: usize = 4096;

/// A connection that is to be looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PendingLookup {
    pub(super) opened: NewConnection,
    is_second: bool,
}

/// The queue of first attempts and of second ones, each in the order of their times.
#[derive(Debug, Default)]
pub(super) struct Queue {
    first: VecDeque<(Instant, PendingLookup)>,
    second: VecDeque<(Instant, PendingLookup)>,
}

impl Queue {
    /// Adds a connection that has begun.
    pub(super) fn add(&mut self, opened: NewConnection, now: Instant) {
        let waiting = PendingLookup {
            opened,
            is_second: false,
        };
        self.first.push_back((now + SETTLE, waiting));
    }

    /// Puts back a connection that was not found, and returns whether it is tried again.
    pub(super) fn put_back(&mut self, waiting: &PendingLookup, now: Instant) -> bool {
        if waiting.is_second {
            return false;
        }
        let waiting = PendingLookup {
            is_second: true,
            ..*waiting
        };
        self.second.push_back((now + AGAIN, waiting));
        true
    }

    /// Takes the connections that are due.
    pub(super) fn take(&mut self, now: Instant) -> Vec<PendingLookup> {
        let mut due = Vec::new();
        for queue in [&mut self.first, &mut self.second] {
            let count = queue.partition_point(|(time, _)| *time <= now);
            due.extend(queue.drain(..count).map(|(_, waiting)| waiting));
        }
        due
    }

    /// Returns the time at which the next connection is due.
    pub(super) fn next(&self) -> Option<Instant> {
        let first = [self.first.front(), self.second.front()].into_iter();
        first.flatten().map(|(time, _)| *time).min()
    }

    /// Returns the number of connections that the queue has room for.
    pub(super) fn room(&self) -> usize {
        ROOM.saturating_sub(self.first.len() + self.second.len())
    }

    pub(super) fn has_room(&self) -> bool {
        self.room() > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Protocol;

    fn opened(port: u16) -> NewConnection {
        NewConnection {
            at: Duration::ZERO,
            router: "6ab1c2d3-0a1b-4c2d-8e3f-0123456789ab".parse().unwrap(),
            interface: 1,
            protocol: Protocol::Tcp,
            source: ([10, 0, 0, 1], port).into(),
            destination: ([10, 0, 0, 2], 21).into(),
            mark: 1,
        }
    }

    #[test]
    fn each_is_looked_up_twice_at_most() {
        let now = Instant::now();
        let mut queue = Queue::default();
        assert_eq!(queue.next(), None);
        queue.add(opened(1), now);
        assert_eq!(queue.next(), Some(now + SETTLE));
        assert_eq!(queue.take(now), []);
        let later = now + SETTLE;
        let [waiting] = queue.take(later)[..] else {
            panic!("its time has come");
        };
        assert_eq!(waiting.opened, opened(1));
        assert!(queue.put_back(&waiting, later));
        queue.add(opened(2), later);
        assert_eq!(queue.next(), Some(later + SETTLE));
        let last = later + AGAIN;
        let [other, again] = queue.take(last)[..] else {
            panic!("both times have come");
        };
        assert_eq!((other.opened, again.opened), (opened(2), opened(1)));
        assert!(!queue.put_back(&again, last));
        assert_eq!(queue.next(), None);
    }

    #[test]
    fn no_more_are_taken_than_there_is_room_for() {
        let now = Instant::now();
        let mut queue = Queue::default();
        for _ in 0..ROOM {
            assert!(queue.has_room());
            queue.add(opened(1), now);
        }
        assert_eq!((queue.room(), queue.has_room()), (0, false));
    }
}
