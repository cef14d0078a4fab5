//! Limits the rate of recorded refusals, for each peer and in all.
//!
//! The limiter is the generic cell rate algorithm (ITU-T I.371) with bursts of ten
//! seconds' worth: it keeps the time until which a peer has used up its rate.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::access::{Principal, TokenName};

/// The largest burst, as the time in which the rate allows it.
const AT_ONCE: Duration = Duration::from_secs(10);

/// The account of a peer. A process gets a new pid with each fork and a new port with each
/// connection, so neither is part of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Asker {
    User(u32),
    Token(TokenName),
    Unknown,
}

impl Asker {
    /// Returns the account of a peer; `None` for the operator, who is not limited.
    fn of(peer: &Principal) -> Option<Self> {
        match peer {
            Principal::Local { uid, .. } => Some(Self::User(*uid)),
            Principal::Token { name } => Some(Self::Token(name.clone())),
            Principal::Unknown { .. } | Principal::Scraper { .. } => Some(Self::Unknown),
            Principal::RulesFile => None,
        }
    }
}

/// A rate of refusals.
#[derive(Clone, Copy, Debug)]
struct Rate {
    interval: Duration,
}

impl Rate {
    /// Returns a rate of this many a second, at least one.
    fn a_second(count: u32) -> Self {
        Self {
            interval: Duration::from_secs(1) / count.max(1),
        }
    }

    /// Returns the time until which the rate is used up after one more refusal, or `None` if
    /// that exceeds the burst.
    fn after_one_more(self, used_up: Option<Instant>, now: Instant) -> Option<Instant> {
        let next = used_up.map_or(now, |used_up| used_up.max(now)) + self.interval;
        (next - now <= AT_ONCE).then_some(next)
    }
}

/// The limiter of recorded refusals.
#[derive(Debug)]
pub(super) struct RefusalLimiter {
    per_peer: Rate,
    in_all: Rate,
    /// The time until which each peer has used up its rate. Only peers that have used part
    /// of theirs are kept, so that the rate in all bounds their number.
    peers: HashMap<Asker, Instant>,
    /// The time until which all peers together have used up their rate.
    all: Option<Instant>,
}

impl RefusalLimiter {
    /// Returns a limiter with these rates, in refusals a second.
    pub(super) fn new(per_peer: u32, in_all: u32) -> Self {
        Self {
            per_peer: Rate::a_second(per_peer),
            in_all: Rate::a_second(in_all),
            peers: HashMap::new(),
            all: None,
        }
    }

    /// Returns whether a refusal of this peer is recorded now, and counts it if so.
    pub(super) fn allows(&mut self, peer: &Principal, now: Instant) -> bool {
        let Some(asker) = Asker::of(peer) else {
            return true;
        };
        let used_up = self.peers.get(&asker).copied();
        let (Some(peer), Some(all)) = (
            self.per_peer.after_one_more(used_up, now),
            self.in_all.after_one_more(self.all, now),
        ) else {
            return false;
        };
        self.peers.retain(|_, used_up| *used_up > now);
        self.peers.insert(asker, peer);
        self.all = Some(all);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(pid: i32, uid: u32) -> Principal {
        Principal::Local { pid, uid, gid: 0 }
    }

    fn token(name: &str) -> Principal {
        Principal::Token {
            name: TokenName::new(name).unwrap(),
        }
    }

    /// Counts how many of very many simultaneous refusals are allowed.
    fn allowed(limiter: &mut RefusalLimiter, peer: &Principal, now: Instant) -> usize {
        (0..5000).filter(|_| limiter.allows(peer, now)).count()
    }

    #[test]
    fn a_peer_has_ten_seconds_worth_at_once_and_then_its_rate() {
        let mut limiter = RefusalLimiter::new(2, 1000);
        let start = Instant::now();
        let peer = local(1, 1000);
        assert_eq!(allowed(&mut limiter, &peer, start), 20);
        let later = |milliseconds| start + Duration::from_millis(milliseconds);
        assert_eq!(allowed(&mut limiter, &peer, later(499)), 0);
        assert_eq!(allowed(&mut limiter, &peer, later(500)), 1);
        assert_eq!(allowed(&mut limiter, &peer, later(2500)), 4);
        assert_eq!(allowed(&mut limiter, &peer, later(3_600_000)), 20);
    }

    #[test]
    fn one_peer_does_not_use_up_the_share_of_another() {
        let mut limiter = RefusalLimiter::new(1, 1000);
        let now = Instant::now();
        for peer in [local(1, 1000), token("a"), token("b"), local(1, 0)] {
            assert_eq!(allowed(&mut limiter, &peer, now), 10, "{peer:?}");
            assert_eq!(allowed(&mut limiter, &peer, now), 0, "{peer:?}");
        }
    }

    #[test]
    fn a_new_process_or_connection_is_no_new_peer() {
        let mut limiter = RefusalLimiter::new(1, 1000);
        let now = Instant::now();
        let unknown = |port| Principal::Unknown {
            address: ([127, 0, 0, 1], port).into(),
        };
        assert_eq!(allowed(&mut limiter, &local(1, 1000), now), 10);
        assert_eq!(allowed(&mut limiter, &local(2, 1000), now), 0);
        assert_eq!(allowed(&mut limiter, &unknown(1), now), 10);
        assert_eq!(allowed(&mut limiter, &unknown(2), now), 0);
    }

    #[test]
    fn all_peers_together_have_a_limit_and_it_bounds_what_is_remembered() {
        let mut limiter = RefusalLimiter::new(5, 3);
        let start = Instant::now();
        let mut count = 0;
        for uid in 0..1000 {
            count += usize::from(limiter.allows(&local(1, uid), start));
        }
        assert_eq!(count, 30);
        assert_eq!(limiter.peers.len(), 30);
        assert_eq!(allowed(&mut limiter, &local(1, 5000), start), 0);
        // What all have used up is not taken from one that got nothing for it.
        let later = start + Duration::from_mins(1);
        assert_eq!(allowed(&mut limiter, &local(1, 5000), later), 30);
        assert_eq!(limiter.peers.len(), 1);
    }

    #[test]
    fn the_operator_is_not_limited() {
        let mut limiter = RefusalLimiter::new(1, 1);
        let now = Instant::now();
        assert_eq!(allowed(&mut limiter, &local(1, 1), now), 10);
        assert_eq!(allowed(&mut limiter, &Principal::RulesFile, now), 5000);
        assert_eq!(allowed(&mut limiter, &local(1, 2), now), 0);
    }
}
