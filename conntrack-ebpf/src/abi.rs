//! The ABI between the classifier and the agent: maps, their values, globals.
//!
//! Everything here is pinned in bpffs and outlives the agent that wrote it, so
//! a change to any layout or meaning needs a new [`VERSION`].

/// The version of this ABI; part of the pin path, so that two never mix.
pub const VERSION: u32 = 2;

/// The array map of [`Page`]s: the two-level port table.
pub const PAGES: &str = "PAGES";
/// The array map of [`Slot`]s as `u64`, by rule slot.
pub const SLOTS: &str = "SLOTS";
/// The per-CPU array map of [`CounterGroup`]s: the counters of packets, slot
/// after slot. Only the program ever writes to it.
pub const COUNTERS: &str = "COUNTERS";
/// The array map of [`Counters`], by rule slot: what the slot had counted when
/// its rule got it. The rule has matched the difference, modulo 2⁶⁴. The program
/// doesn't use this map.
pub const BASES: &str = "BASES";
/// The array map of one [`Identity`]: which instance this is, and which carrier
/// it uses. It is written before the first packet; only the carrier ever changes.
pub const IDENTITY: &str = "IDENTITY";
/// The ring buffer of [`event::Opened`](crate::event::Opened)s, one for all
/// instances.
pub const EVENTS: &str = "EVENTS";
/// The per-CPU array map of one [`event::Limiter`](crate::event::Limiter), one
/// for all instances.
pub const LIMITER: &str = "LIMITER";
/// The per-CPU array map of [`event::Recent`](crate::event::Recent)s, one for all
/// instances: UDP flows that were seen lately.
pub const RECENT: &str = "RECENT";
/// The program's one global, a [`Globals`].
pub const GLOBALS: &str = "GLOBALS";
/// The read-only data section that holds [`GLOBALS`] and nothing else: the
/// compiler puts constants of its own into `.rodata` proper.
pub const GLOBALS_SECTION: &str = ".rodata.globals";

/// The globals that an agent sets when it loads an instance.
///
/// They are the same in all versions: by them an agent tells what another one has
/// pinned, and whose it is, before it knows anything of that one's ABI. Additions
/// of a later version go into a section of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Globals {
    /// The bits of `skb->mark` that belong to the classifier.
    pub mark_mask: u32,
    /// The number of bits by which a helper mark is shifted left to lie in the
    /// mask.
    pub mark_shift: u32,
    /// The id of the agent that loaded the program. The program doesn't read
    /// it; it tells an agent its own instances from another's.
    pub agent: [u8; 16],
    /// SHA-256 of the object that the program comes from. The program doesn't
    /// read it; it tells an agent a program of its own edition from another's.
    pub object: [u8; 32],
}

impl Globals {
    /// The size of the globals in the map, in bytes.
    pub const SIZE: usize = size_of::<Self>();

    /// Encodes the globals as the map holds them.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..4].copy_from_slice(&self.mark_mask.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.mark_shift.to_ne_bytes());
        bytes[8..24].copy_from_slice(&self.agent);
        bytes[24..].copy_from_slice(&self.object);
        bytes
    }

    /// Decodes globals read from the map.
    #[must_use]
    pub fn from_bytes(bytes: [u8; Self::SIZE]) -> Self {
        let [m0, m1, m2, m3, s0, s1, s2, s3, rest @ ..] = bytes;
        let (mut agent, mut object) = ([0; 16], [0; 32]);
        let (first, last) = rest.split_at(agent.len());
        agent.copy_from_slice(first);
        object.copy_from_slice(last);
        Self {
            mark_mask: u32::from_ne_bytes([m0, m1, m2, m3]),
            mark_shift: u32::from_ne_bytes([s0, s1, s2, s3]),
            agent,
            object,
        }
    }
}

/// The identity of an instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Identity {
    /// A random number, never 0 once it is written. The tc program takes only
    /// those hand-overs of an XDP program that carry it.
    pub token: u64,
    /// The router's UUID, as its 16 bytes lie in memory.
    pub router: [u64; 2],
    /// The number of a [`Carrier`].
    pub carrier: u64,
}

impl Identity {
    /// The size of the identity in the map, in bytes.
    pub const SIZE: usize = size_of::<Self>();

    /// Encodes the identity as the map holds it.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..8].copy_from_slice(&self.token.to_ne_bytes());
        let [r0, r1] = self.router;
        bytes[8..16].copy_from_slice(&r0.to_ne_bytes());
        bytes[16..24].copy_from_slice(&r1.to_ne_bytes());
        bytes[24..].copy_from_slice(&self.carrier.to_ne_bytes());
        bytes
    }

    /// Decodes an identity read from the map.
    #[must_use]
    pub fn from_bytes(bytes: [u8; Self::SIZE]) -> Self {
        let (words, _) = bytes.as_chunks();
        let word = |index: usize| words.get(index).copied().map_or(0, u64::from_ne_bytes);
        Self {
            token: word(0),
            router: [word(1), word(2)],
            carrier: word(3),
        }
    }
}

/// The field of a packet's metadata that carries the helper mark from the
/// classifier to the binding.
///
/// The classifier owns both fields whichever it uses: a packet that comes in with
/// its bits set goes on without them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Carrier {
    /// The bits of `skb->mark` in [`Globals::mark_mask`].
    Mark = 0,
    /// All of `skb->priority`, as encoded by [`in_priority`].
    Priority = 1,
}

/// The tag of a priority that carries a helper mark. Both halves of a traffic
/// class's handle are in `skb->priority`; the tag would be the handle of a qdisc
/// that tc does not reach by itself: its numbers begin at 8000:, and 16,384
/// qdiscs would have to be made (`qdisc_alloc_handle`, `net/sched/sch_api.c`).
const PRIORITY_TAG: u32 = 0xc000_0000;
/// The position of a helper mark in the priority. The lowest four bits are 0, as
/// in a packet without a priority: they choose the band of `pfifo_fast` and prio
/// (`TC_PRIO_MAX`, `include/uapi/linux/pkt_sched.h`). IPv6 forwarding leaves the
/// field as it is, so queues behind the router see it.
const PRIORITY_SHIFT: u32 = 4;
const PRIORITY_BITS: u32 = 0xff << PRIORITY_SHIFT;

/// Returns a helper mark as `skb->priority` carries it.
#[must_use]
#[inline]
pub const fn in_priority(helper_mark: u32) -> u32 {
    PRIORITY_TAG | ((helper_mark << PRIORITY_SHIFT) & PRIORITY_BITS)
}

/// Returns whether a value of `skb->priority` carries a helper mark.
#[must_use]
#[inline]
pub const fn is_in_priority(priority: u32) -> bool {
    priority & !PRIORITY_BITS == PRIORITY_TAG
}

/// The number of entries of a page; a port's high byte chooses the page, its low
/// byte the entry.
pub const PAGE_ENTRIES: usize = 256;

/// A page of the port table. In a root page an entry is the index of a leaf
/// page; in a leaf page it is a rule slot. 0 means "none" in both: page 0 is
/// empty, and slot 0 is never used.
pub type Page = [u16; PAGE_ENTRIES];

/// The page that has no entry and never changes.
pub const EMPTY_PAGE: u16 = 0;
/// The first page that can be a leaf; those before it are page 0 and the roots.
pub const FIRST_LEAF_PAGE: u16 = 3;
/// The slot that stands for "no rule".
pub const NO_SLOT: u16 = 0;

/// A transport protocol that can carry a helper's control connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Protocol {
    /// TCP, IP protocol 6.
    Tcp = 6,
    /// UDP, IP protocol 17.
    Udp = 17,
}

impl Protocol {
    /// Returns the page at which a lookup for this protocol starts.
    #[must_use]
    #[inline]
    pub const fn root_page(self) -> u16 {
        match self {
            Self::Tcp => 1,
            Self::Udp => 2,
        }
    }
}

/// The key by which the classifier looks a packet up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Destination {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The destination port, in host byte order.
    pub port: u16,
}

/// A rule slot: a helper mark, and the destination that it is for.
///
/// A slot names its own destination so that a lookup which raced with a change of
/// the pages can be told from a true hit: a reader takes a mark only from a slot
/// that names the packet's destination. It is one 8-byte value, written whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Slot(u64);

impl Slot {
    const PORT_SHIFT: u32 = 32;
    const PROTOCOL_SHIFT: u32 = 48;

    /// Makes a slot that gives `mark` to packets for `destination`.
    #[must_use]
    pub const fn new(destination: Destination, mark: u32) -> Self {
        Self(Self::key(destination) | mark as u64)
    }

    /// Returns the bits that name `destination`; the others are the mark's.
    #[inline]
    pub(crate) const fn key(destination: Destination) -> u64 {
        ((destination.port as u64) << Self::PORT_SHIFT)
            | ((destination.protocol as u64) << Self::PROTOCOL_SHIFT)
    }

    /// Returns the slot as the map holds it.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// Decodes a slot read from the map.
    #[must_use]
    #[inline]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Returns the slot's destination and the mark that it gives, or `None` if it
    /// is unused, or holds what no agent writes.
    #[must_use]
    #[inline]
    pub const fn content(self) -> Option<(Destination, u32)> {
        const TCP: u64 = Protocol::Tcp as u64;
        const UDP: u64 = Protocol::Udp as u64;
        let protocol = match self.0 >> Self::PROTOCOL_SHIFT {
            TCP => Protocol::Tcp,
            UDP => Protocol::Udp,
            _ => return None,
        };
        #[expect(clippy::cast_possible_truncation, reason = "fields of 16 and 32 bits")]
        let (port, mark) = ((self.0 >> Self::PORT_SHIFT) as u16, self.0 as u32);
        Some((Destination { protocol, port }, mark))
    }

    /// Returns the helper mark, if this slot is for `destination`.
    #[must_use]
    #[inline]
    pub const fn mark_for(self, destination: Destination) -> Option<u32> {
        let mark = self.0 ^ Self::key(destination);
        // Any bit left above the mark is one in which the keys differ.
        if mark >> Self::PORT_SHIFT == 0 {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "the upper half is zero here"
            )]
            Some(mark as u32)
        } else {
            None
        }
    }
}

/// The counts of a rule's packets, on one CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counters {
    /// The number of packets; one that GRO merged counts as one, as in iptables.
    pub packets: u64,
    /// The number of bytes from the network header to the end of the frame.
    /// iptables counts the same except for the padding of frames shorter than
    /// Ethernet's 60 bytes.
    pub bytes: u64,
}

/// The number of rule slots whose counters share one element of their map. The
/// kernel allocates each element of a per-CPU map separately, which takes nearly
/// a microsecond.
pub const COUNTER_GROUP: u16 = 16;

/// An element of the map of counters, on one CPU.
pub type CounterGroup = [Counters; COUNTER_GROUP as usize];

/// Returns where a slot's counters are: the element, and the place in it.
#[must_use]
#[inline]
pub const fn counter_place(slot: u16) -> (u32, usize) {
    let (element, place) = (slot / COUNTER_GROUP, slot % COUNTER_GROUP);
    (element as u32, place as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn to(protocol: Protocol, port: u16) -> Destination {
        Destination { protocol, port }
    }

    const FTP: Destination = to(Protocol::Tcp, 21);

    #[test]
    fn a_slot_gives_its_mark_to_its_own_destination_alone() {
        let slot = Slot::from_bits(Slot::new(FTP, u32::MAX).to_bits());
        assert_eq!(slot.mark_for(FTP), Some(u32::MAX));
        assert_eq!(slot.content(), Some((FTP, u32::MAX)));
        assert_eq!(Slot::default().content(), None);
        for other in [
            to(Protocol::Tcp, 22),
            to(Protocol::Tcp, 21 << 8),
            to(Protocol::Tcp, 0),
            to(Protocol::Udp, 21),
        ] {
            assert_eq!(slot.mark_for(other), None, "{other:?}");
        }
    }

    #[test]
    fn a_priority_with_a_helper_mark_is_known_and_no_other() {
        for mark in 0..=0xff {
            let priority = in_priority(mark);
            assert!(is_in_priority(priority), "{mark}");
            assert_eq!(priority & 0xf, 0, "no band of its own");
            assert_eq!(priority >> PRIORITY_SHIFT & 0xff, mark);
            assert!(!is_in_priority(priority | 1), "{mark}");
            assert!(!is_in_priority(priority & !0x8000_0000), "{mark}");
            assert!(!is_in_priority(priority | 0x1000), "{mark}");
        }
        for other in [0, 6, 0x8001_0000, 0xffff_ffff, 0xc001_0010] {
            assert!(!is_in_priority(other), "{other:#x}");
        }
    }

    #[test]
    fn an_identity_survives_the_map() {
        let identity = Identity {
            token: 1 << 63 | 7,
            router: [2, u64::MAX],
            carrier: Carrier::Priority as u64,
        };
        assert_eq!(Identity::from_bytes(identity.to_bytes()), identity);
    }

    #[test]
    fn globals_survive_the_map() {
        let globals = Globals {
            mark_mask: 0xff00_0000,
            mark_shift: 24,
            agent: *b"0123456789abcdef",
            object: *b"0123456789abcdef0123456789ABCDEF",
        };
        assert_eq!(Globals::from_bytes(globals.to_bytes()), globals);
    }

    #[test]
    fn an_unused_slot_matches_nothing() {
        for port in 0..=u16::MAX {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                assert_eq!(Slot::default().mark_for(to(protocol, port)), None);
            }
        }
    }
}
