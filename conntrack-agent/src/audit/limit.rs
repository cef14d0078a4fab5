//! How many refusals are recorded.
//!
//! Each peer may have so many a second and all of them together so many, or ten
//! seconds' worth of that at once. Counted is the time until which a peer has
//! used up its share (the generic cell rate algorithm, ITU-T I.371).

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::access::{Principal, TokenName};

/// How much of its share a peer that was quiet may use at once.
const AT_ONCE: Duration = Duration::from_secs(10);

/// Whose share it is. A process that asks gets a new pid with each fork and a new
/// port with each connection, so neither counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Asker {
    User(u32),
    Token(TokenName),
    Unknown,
}

impl Asker {
    /// None for the operator, who is not limited.
    fn of(peer: &Principal) -> Option<Self> {
        match peer {
            Principal::Local { uid, .. } => Some(Self::User(*uid)),
            Principal::Token { name } => Some(Self::Token(name.clone())),
            Principal::Unknown { .. } | Principal::Scraper { .. } => Some(Self::Unknown),
            Principal::RulesFile => None,
        }
    }
}

/// So many a second.
#[derive(Clone, Copy, Debug)]
struct Rate {
    interval: Duration,
}

impl Rate {
    /// None a second is taken for one.
    fn a_second(count: u32) -> Self {
        Self {
            interval: Duration::from_secs(1) / count.max(1),
        }
    }

    /// Until when a share is used up that was until `used_up`, after one more;
    /// none if it is one too many.
    fn after_one_more(self, used_up: Option<Instant>, now: Instant) -> Option<Instant> {
        let next = used_up.map_or(now, |used_up| used_up.max(now)) + self.interval;
        (next - now <= AT_ONCE).then_some(next)
    }
}

/// Says of each refusal whether it is recorded.
#[derive(Debug)]
pub(super) struct RefusalLimiter {
    per_peer: Rate,
    in_all: Rate,
    /// Only peers that have used something of their share: what all may have
    /// together bounds how many these are.
    peers: HashMap<Asker, Instant>,
    all: Option<Instant>,
}

impl RefusalLimiter {
    /// So many refusals a second.
    pub(super) fn new(per_peer: u32, in_all: u32) -> Self {
        Self {
            per_peer: Rate::a_second(per_peer),
            in_all: Rate::a_second(in_all),
            peers: HashMap::new(),
            all: None,
        }
    }

    /// Whether a refusal of this peer is recorded now; then it counts.
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

    /// How many of very many at one time are allowed.
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
