//! Remembers connections that were reported already: a client without an answer sends its
//! SYN again (RFC 9293, 3.8.1), and a connection may pass both namespaces of a
//! distributed router.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use crate::{
    kernel::OriginalTuple,
    model::{Protocol, RouterId},
};

/// The shortest time that a connection is remembered, unless more than [`ROOM`] come
/// within it: Linux's last SYN comes after 63 seconds (`net.ipv4.tcp_syn_retries`). The
/// longest is twice as long.
const REMEMBERED: Duration = Duration::from_secs(70);

/// The number of connections in one generation, of about 90 bytes each; at most twice as
/// many are remembered.
const ROOM: usize = 8192;

/// The recent connections: the current generation and the one before.
#[derive(Debug)]
pub(super) struct RecentConnections {
    now: HashSet<(RouterId, OriginalTuple)>,
    before: HashSet<(RouterId, OriginalTuple)>,
    begun: Instant,
}

impl RecentConnections {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            now: HashSet::new(),
            before: HashSet::new(),
            begun: now,
        }
    }

    /// Returns whether a connection was not reported lately, and remembers it.
    pub(super) fn is_new(&mut self, router: RouterId, flow: OriginalTuple, now: Instant) -> bool {
        if self.now.len() >= ROOM || now.saturating_duration_since(self.begun) >= REMEMBERED {
            self.before = std::mem::take(&mut self.now);
            self.begun = now;
        }
        let key = (router, flow);
        if !self.before.contains(&key) {
            return self.now.insert(key);
        }
        // A UDP connection lasts as long as its packets come, and each packet may be
        // reported. A TCP connection that is reported again later is another one, from
        // the same port.
        if flow.protocol == Protocol::Udp {
            self.now.insert(key);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(port: u16) -> OriginalTuple {
        OriginalTuple {
            protocol: Protocol::Tcp,
            source: ([10, 0, 0, 1], port).into(),
            destination: ([10, 0, 0, 2], 21).into(),
        }
    }

    #[test]
    fn each_is_new_once_for_a_while() {
        let router = "6ab1c2d3-0a1b-4c2d-8e3f-0123456789ab".parse().unwrap();
        let other = "7ab1c2d3-0a1b-4c2d-8e3f-0123456789ab".parse().unwrap();
        let begun = Instant::now();
        let mut recent = RecentConnections::new(begun);
        assert!(recent.is_new(router, flow(1), begun));
        assert!(!recent.is_new(router, flow(1), begun));
        assert!(recent.is_new(router, flow(2), begun));
        assert!(recent.is_new(other, flow(1), begun));
        assert!(!recent.is_new(router, flow(1), begun + REMEMBERED));
        assert!(recent.is_new(router, flow(3), begun + REMEMBERED));
        let later = begun + 2 * REMEMBERED;
        assert!(recent.is_new(router, flow(1), later));
        assert!(!recent.is_new(router, flow(3), later));
    }

    #[test]
    fn a_flow_of_udp_is_one_as_long_as_it_goes_on() {
        let router = "6ab1c2d3-0a1b-4c2d-8e3f-0123456789ab".parse().unwrap();
        let flow = OriginalTuple {
            protocol: Protocol::Udp,
            ..flow(1)
        };
        let begun = Instant::now();
        let mut recent = RecentConnections::new(begun);
        assert!(recent.is_new(router, flow, begun));
        for minutes in 1..10 {
            let now = begun + minutes * Duration::from_mins(1);
            assert!(!recent.is_new(router, flow, now), "{minutes}");
        }
        // As long after the last as conntrack forgets it (120 s, an answered one).
        let later = begun + Duration::from_mins(9) + 2 * REMEMBERED;
        let other = OriginalTuple {
            protocol: Protocol::Tcp,
            ..flow
        };
        assert!(recent.is_new(router, other, later));
        assert!(recent.is_new(router, flow, later + REMEMBERED));
    }

    #[test]
    fn there_are_only_so_many() {
        let router = "6ab1c2d3-0a1b-4c2d-8e3f-0123456789ab".parse().unwrap();
        let now = Instant::now();
        let mut recent = RecentConnections::new(now);
        for port in 0..=u16::MAX {
            assert!(recent.is_new(router, flow(port), now));
        }
        assert!(recent.now.len() + recent.before.len() <= 2 * ROOM);
    }
}
