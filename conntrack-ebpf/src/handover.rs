//! The result that the XDP program leaves for the tc program in a packet's metadata.
//!
//! The metadata belongs to whoever writes it (`bpf_xdp_adjust_meta`, bpf-helpers(7)):
//! another XDP program's can be there, and what an earlier hop of the same packet
//! wrote can still be. So it carries the instance's token and the number of the
//! interface, and is for nobody else.

use crate::{
    abi::{Destination, NO_SLOT, Slot},
    parse::Control,
};

/// One packet's parse and lookup, done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handover {
    /// That of the instance's [`Identity`](crate::abi::Identity).
    pub token: u64,
    /// The number of the interface that it came in by.
    pub interface: u32,
    /// What was found; none if the packet has no rule.
    pub found: Option<Found>,
}

/// A packet's rule, and what is needed of the packet beyond it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it was looked up by. It is looked up again: the rule may have gone since.
    pub destination: Destination,
    /// The rule slot.
    pub slot: u16,
    /// Where the transport header starts, from the network header on, in bytes.
    pub transport: u16,
    /// Whether it may be the first of a connection.
    pub opens: bool,
}

impl Handover {
    /// Its size in the metadata, in bytes: a multiple of 4, and at most 32
    /// (`bpf_xdp_adjust_meta`, net/core/filter.c).
    pub const SIZE: usize = size_of::<Raw>();

    /// As it lies in the metadata.
    #[inline(always)]
    #[must_use]
    pub const fn to_raw(self) -> Raw {
        let (key, transport, opens) = match self.found {
            Some(found) => (
                Slot::key(found.destination) | found.slot as u64,
                found.transport,
                found.opens as u16,
            ),
            None => (0, 0, 0),
        };
        Raw {
            token: self.token,
            key,
            interface: self.interface,
            transport,
            opens,
        }
    }

    /// What was handed over to the instance with this token, on this interface;
    /// none if it is for somebody else, or nobody.
    #[inline(always)]
    #[must_use]
    pub fn from_raw(raw: Raw, token: u64, interface: u32) -> Option<Self> {
        if token == 0 || raw.token != token || raw.interface != interface {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, reason = "the lowest 16 bits")]
        let slot = raw.key as u16;
        let found = match Slot::from_bits(raw.key).content() {
            Some((destination, _)) if slot != NO_SLOT => Some(Found {
                destination,
                slot,
                transport: raw.transport,
                opens: raw.opens != 0,
            }),
            _ => None,
        };
        Some(Self {
            token,
            interface,
            found,
        })
    }
}

/// The metadata itself: numbers without a gap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Raw {
    /// That of the [`Handover`].
    pub token: u64,
    /// What a [`Slot`] names its destination by, and the number of the slot in
    /// the place of the mark; 0 if nothing was found.
    pub key: u64,
    /// That of the [`Handover`].
    pub interface: u32,
    /// That of what was [`Found`].
    pub transport: u16,
    /// Likewise; not 0 if so.
    pub opens: u16,
}

impl Raw {
    /// In the words that a program writes.
    #[inline(always)]
    #[must_use]
    pub const fn to_words(self) -> [u64; 3] {
        let [i0, i1, i2, i3] = self.interface.to_ne_bytes();
        let [t0, t1] = self.transport.to_ne_bytes();
        let [o0, o1] = self.opens.to_ne_bytes();
        let rest = u64::from_ne_bytes([i0, i1, i2, i3, t0, t1, o0, o1]);
        [self.token, self.key, rest]
    }

    /// From the words that a program reads.
    #[inline(always)]
    #[must_use]
    pub const fn from_words([token, key, rest]: [u64; 3]) -> Self {
        let [i0, i1, i2, i3, t0, t1, o0, o1] = rest.to_ne_bytes();
        Self {
            token,
            key,
            interface: u32::from_ne_bytes([i0, i1, i2, i3]),
            transport: u16::from_ne_bytes([t0, t1]),
            opens: u16::from_ne_bytes([o0, o1]),
        }
    }
}

impl Found {
    /// As if the packet had just been parsed. Where it ends nobody knows any more;
    /// the length only says whether it may open a connection.
    #[inline(always)]
    #[must_use]
    pub const fn control(&self) -> Control {
        Control {
            destination: self.destination,
            transport: self.transport as usize,
            length: if self.opens { u16::MAX as usize } else { 0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::abi::Protocol;

    fn found() -> impl Strategy<Value = Found> {
        let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)];
        (protocol, any::<u16>(), 1u16.., any::<u16>(), any::<bool>()).prop_map(
            |(protocol, port, slot, transport, opens)| Found {
                destination: Destination { protocol, port },
                slot,
                transport,
                opens,
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_handed_over_is_taken_by_whom_it_is_for(
            token in 1u64..,
            interface: u32,
            found in proptest::option::of(found()),
        ) {
            let handover = Handover { token, interface, found };
            let raw = handover.to_raw();
            prop_assert_eq!(Raw::from_words(raw.to_words()), raw);
            prop_assert_eq!(Handover::from_raw(raw, token, interface), Some(handover));
            let (other, another) = (token ^ 1 << 63, interface ^ 1);
            prop_assert_eq!(Handover::from_raw(raw, other, interface), None);
            prop_assert_eq!(Handover::from_raw(raw, token, another), None);
        }

        #[test]
        fn an_instance_without_a_token_takes_nothing(key: u64, interface: u32) {
            let raw = Raw { key, interface, ..Raw::default() };
            prop_assert_eq!(Handover::from_raw(raw, 0, interface), None);
        }
    }
}
