//! The events about new connections that the programs write.
//!
//! One ring buffer, and the limits of its use, serve all instances of an agent: a
//! thousand routers need not have a thousand of them.

/// A packet that may be the first of a helper's connection: a TCP SYN, or the
/// first UDP packet of a flow in a while.
///
/// Its fields leave no gaps, as all of it is written to the ring buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Opened {
    /// The time in nanoseconds since the host started (`CLOCK_MONOTONIC`), with the
    /// precision of the kernel's tick.
    pub at: u64,
    /// The router's UUID, as its 16 bytes lie in memory.
    pub router: [u64; 2],
    /// The flow of the packet.
    pub flow: Flow,
    /// The helper mark of the rule.
    pub mark: u32,
    /// The rule slot.
    pub slot: u16,
    /// The transport protocol's number.
    pub protocol: u8,
    /// The IP version: 4 or 6.
    pub family: u8,
}

/// The addresses, ports and interface of a packet. They are words, which cost a
/// program less than bytes. In memory they are as in the packet; an IPv4 address is
/// the first four of its sixteen bytes, and the others are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Flow {
    /// The source address, then the destination address, 16 bytes each.
    pub addresses: [u64; 4],
    /// The source port, then the destination port.
    pub ports: u32,
    /// The number of the interface that the packet arrived on.
    pub interface: u32,
}

impl Opened {
    /// The size of the event in the ring buffer, in bytes.
    pub const SIZE: usize = size_of::<Self>();

    /// Decodes an event read from the ring buffer. Returns `None` if it has another
    /// length.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::SIZE] = bytes.try_into().ok()?;
        let (at, rest) = bytes.split_first_chunk::<8>()?;
        let (words, rest) = rest.split_first_chunk::<48>()?;
        let (words, _) = words.as_chunks::<8>();
        let words: &[[u8; 8]; 6] = words.try_into().ok()?;
        let [r0, r1, addresses @ ..] = words.map(u64::from_ne_bytes);
        let (ports, rest) = rest.split_first_chunk::<4>()?;
        let (interface, rest) = rest.split_first_chunk::<4>()?;
        let (mark, rest) = rest.split_first_chunk::<4>()?;
        let [l0, l1, protocol, family] = *rest.first_chunk::<4>()?;
        Some(Self {
            at: u64::from_ne_bytes(*at),
            router: [r0, r1],
            flow: Flow {
                addresses,
                ports: u32::from_ne_bytes(*ports),
                interface: u32::from_ne_bytes(*interface),
            },
            mark: u32::from_ne_bytes(*mark),
            slot: u16::from_ne_bytes([l0, l1]),
            protocol,
            family,
        })
    }
}

/// The number of events that one CPU may send in one [`WINDOW`]: a thousand a second.
pub const EVENTS_PER_WINDOW: u64 = 100;
/// The length of a window, in nanoseconds.
pub const WINDOW: u64 = 100_000_000;

/// The counts of events that one CPU has sent or could not send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Limiter {
    /// The number of the current window: nanoseconds by [`WINDOW`].
    pub window: u64,
    /// The number of events in it so far.
    pub in_window: u64,
    /// The number of events that were sent.
    pub sent: u64,
    /// The number of events that were not sent because there were too many at once.
    pub limited: u64,
    /// The number of events that were not sent because the ring buffer was full.
    pub full: u64,
    /// The clock as it was read last.
    pub clock: Clock,
    /// The memory in which this CPU's next event is put together: the program's stack
    /// is small.
    pub event: Opened,
}

impl Limiter {
    /// Returns the time in this tick; the clock is read once in each.
    #[inline(always)]
    pub fn now(&mut self, tick: u64, nanoseconds: impl FnOnce() -> u64) -> Clock {
        if self.clock.tick != tick {
            let at = nanoseconds();
            self.clock = Clock { tick, at };
            let window = at / WINDOW;
            if self.window != window {
                self.window = window;
                self.in_window = 0;
            }
        }
        self.clock
    }

    /// Returns whether one more event may be sent at the time of [`Self::now`]; it is
    /// counted either way.
    #[inline(always)]
    pub const fn admits(&mut self) -> bool {
        if self.in_window >= EVENTS_PER_WINDOW {
            self.limited += 1;
            return false;
        }
        self.in_window += 1;
        true
    }
}

/// The uptime of the host, in one tick of the kernel.
///
/// The ticks (`bpf_jiffies64`) and the nanoseconds (`bpf_ktime_get_coarse_ns`)
/// advance together, at the timer's interrupt. Reading the ticks takes no call, but
/// the program doesn't know how long a tick is, so it asks for the nanoseconds once
/// in each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Clock {
    /// The number of the tick.
    pub tick: u64,
    /// The nanoseconds between the host's start and that tick.
    pub at: u64,
}

/// The number of flows that a CPU remembers: a power of two.
pub const RECENT_FLOWS: u32 = 1024;
/// The time for which a flow without packets is remembered, in nanoseconds: as long
/// as conntrack keeps a UDP stream (`nf_conntrack_udp_timeout_stream`, 120 s).
pub const REMEMBERED: u64 = 120_000_000_000;

/// The number of ticks in which a flow that was noted isn't noted again: at most 0.7
/// s, by which [`REMEMBERED`] is then shorter. It takes no clock to tell.
pub const FRESH: u32 = 64;

/// A UDP flow that was seen lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Recent {
    /// The hash of router, addresses and ports; 0 if there is no flow.
    pub flow: u64,
    /// The time since the host's start when it was noted last: nanoseconds by 2³⁰, so
    /// about seconds.
    pub at: u32,
    /// The lower half of the tick when it was noted last.
    pub tick: u32,
}

impl Recent {
    /// Converts nanoseconds to the unit of `at`.
    #[expect(clippy::cast_possible_truncation, reason = "136 years")]
    const fn moment(nanoseconds: u64) -> u32 {
        (nanoseconds >> 30) as u32
    }

    /// Returns whether the flow was noted a few ticks ago: then it is not new, and
    /// needn't be noted.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
    pub const fn is_fresh(&self, flow: u64, tick: u64) -> bool {
        self.flow == flow && (tick as u32).wrapping_sub(self.tick) < FRESH
    }

    /// Notes that the flow was seen. Returns whether it is new here: two flows with
    /// one place replace each other, and are reported again.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
    pub const fn is_new(&mut self, flow: u64, now: Clock) -> bool {
        // Both times are rounded down; with one unit more, nothing is forgotten too
        // early.
        const LONGEST: u32 = Recent::moment(REMEMBERED) + 1;
        let at = Self::moment(now.at);
        let is_new = self.flow != flow || at.wrapping_sub(self.at) > LONGEST;
        *self = Self {
            flow,
            at,
            tick: now.tick as u32,
        };
        is_new
    }
}

/// Returns a hash of a router's flow, never 0: a multiplication by 2⁶⁴ over the
/// golden ratio, and the upper half mixed into the lower, for each word (Knuth, The
/// Art of Computer Programming 3, 6.4).
#[inline(always)]
#[must_use]
pub const fn flow_hash(token: u64, flow: &Flow) -> u64 {
    let [a, b, c, d] = flow.addresses;
    let mut hash = mixed(mixed(mixed(0, token), a), c);
    // IPv4 has no more words.
    if b | d != 0 {
        hash = mixed(mixed(hash, b), d);
    }
    hash = mixed(hash, flow.ports as u64);
    if hash == 0 { 1 } else { hash }
}

#[inline(always)]
const fn mixed(hash: u64, word: u64) -> u64 {
    let product = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ product >> 32
}

/// Returns the place of a flow among those that a CPU remembers.
#[inline(always)]
#[must_use]
pub const fn recent_place(flow: u64) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "some of its bits")]
    let place = flow as u32 & (RECENT_FLOWS - 1);
    place
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_admits_so_many_and_the_next_one_as_many_again() {
        let mut limiter = Limiter::default();
        for window in 1..4 {
            let mut at = |nth| {
                let time = window * WINDOW + nth;
                assert_eq!(limiter.now(time, || time).at, time);
                limiter.admits()
            };
            for nth in 0..EVENTS_PER_WINDOW {
                assert!(at(nth));
            }
            assert!(!at(WINDOW - 1));
            assert_eq!(limiter.limited, window);
        }
    }

    #[test]
    fn the_clock_is_read_once_in_a_tick() {
        let mut limiter = Limiter::default();
        let first = limiter.now(7, || 70);
        assert_eq!(first, Clock { tick: 7, at: 70 });
        assert_eq!(limiter.now(7, || unreachable!()), first);
        assert_eq!(limiter.now(8, || 80).at, 80);
    }

    #[test]
    fn a_flow_is_new_once_until_it_was_silent_for_long() {
        /// What times are kept to, and a bit.
        const UNIT: u64 = 2 << 30;
        let now = |at| Clock { at, tick: 0 };
        let mut place = Recent::default();
        assert!(place.is_new(7, now(1)));
        assert!(!place.is_new(7, now(REMEMBERED)));
        assert!(
            !place.is_new(7, now(2 * REMEMBERED)),
            "since it was seen last"
        );
        assert!(place.is_new(7, now(3 * REMEMBERED + UNIT)));
        assert!(place.is_new(8, now(3 * REMEMBERED + UNIT)), "another one");
        assert!(
            place.is_new(7, now(3 * REMEMBERED + UNIT)),
            "was pushed out"
        );
    }

    #[test]
    fn a_flow_is_fresh_for_some_ticks_after_it_was_noted() {
        for tick in [0, 7, u64::from(u32::MAX), u64::MAX] {
            let mut place = Recent::default();
            assert!(!place.is_fresh(7, tick), "nothing is there");
            place.is_new(7, Clock { at: 1, tick });
            let later = |ticks| tick.wrapping_add(ticks);
            assert!(place.is_fresh(7, tick));
            assert!(place.is_fresh(7, later(u64::from(FRESH) - 1)));
            assert!(!place.is_fresh(7, later(u64::from(FRESH))));
            assert!(!place.is_fresh(8, tick), "another one");
        }
    }

    #[test]
    fn flows_that_differ_in_one_bit_have_other_hashes() {
        let mut seen = std::collections::BTreeSet::new();
        let flow = Flow {
            addresses: [1; 4],
            ports: 3,
            interface: 4,
        };
        seen.insert(flow_hash(1, &flow));
        for bit in 0..256 {
            let mut other = flow;
            other.addresses[bit / 64] ^= 1 << (bit % 64);
            assert!(seen.insert(flow_hash(1, &other)));
        }
        for bit in 0..32 {
            let mut other = flow;
            other.ports ^= 1 << bit;
            assert!(seen.insert(flow_hash(1, &other)));
        }
        for bit in 0..64 {
            assert!(seen.insert(flow_hash(1 ^ 1 << bit, &flow)));
        }
    }

    #[test]
    fn an_event_is_read_as_it_was_written() {
        assert_eq!(Opened::SIZE, 72);
        let mut bytes = [0; Opened::SIZE];
        for (value, byte) in (1..).zip(&mut bytes) {
            *byte = value;
        }
        let event = Opened::from_bytes(&bytes).unwrap();
        assert_eq!(event.at.to_ne_bytes(), bytes[..8]);
        let router = event.router.map(u64::to_ne_bytes);
        assert_eq!(router.as_flattened(), &bytes[8..24]);
        let addresses = event.flow.addresses.map(u64::to_ne_bytes);
        assert_eq!(addresses.as_flattened(), &bytes[24..56]);
        assert_eq!(event.flow.ports.to_ne_bytes(), bytes[56..60]);
        assert_eq!(event.flow.interface.to_ne_bytes(), bytes[60..64]);
        assert_eq!(event.mark.to_ne_bytes(), bytes[64..68]);
        assert_eq!(event.slot.to_ne_bytes(), bytes[68..70]);
        assert_eq!((event.protocol, event.family), (bytes[70], bytes[71]));
        assert_eq!(Opened::from_bytes(&bytes[1..]), None);
    }
}
