//! The result that the XDP program leaves for the tc program in a packet's metadata.
//!
//! The metadata belongs to whoever writes it (`bpf_xdp_adjust_meta`, bpf-helpers(7)):
//! it may be another XDP program's, or may still be what an earlier hop wrote for the
//! same packet. So the hand-over carries the instance's token and the number of the
//! interface, and other readers ignore it.

use crate::{
    abi::{Destination, NO_SLOT, Slot},
    parse::Control,
};

/// The hand-over: the result of one packet's parse and lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handover {
    /// The token of the instance's [`Identity`](crate::abi::Identity).
    pub token: u64,
    /// The number of the interface that the packet arrived on.
    pub interface: u32,
    /// The result of the lookup; `None` if the packet has no rule.
    pub found: Option<Found>,
}

/// The rule of a packet, and the facts about the packet that are needed with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The key of the lookup. The rule is looked up again: it may have gone since.
    pub destination: Destination,
    /// The rule slot.
    pub slot: u16,
    /// The start of the transport header, in bytes from the network header.
    pub transport: u16,
    /// Whether the packet may be the first of a connection.
    pub opens: bool,
}

impl Handover {
    /// The size of the hand-over in the metadata, in bytes: a multiple of 4, and at
    /// most 32 (`bpf_xdp_adjust_meta`, net/core/filter.c).
    pub const SIZE: usize = size_of::<Raw>();

    /// Encodes the hand-over as it lies in the metadata.
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

    /// Decodes the hand-over to the instance with this token, on this interface.
    /// Returns `None` if the metadata is not for it.
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

/// The metadata itself: numbers without gaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Raw {
    /// The token of the [`Handover`].
    pub token: u64,
    /// The bits with which a [`Slot`] names its destination, and the number of the
    /// slot in place of the mark; 0 if nothing was found.
    pub key: u64,
    /// The interface of the [`Handover`].
    pub interface: u32,
    /// The start of the transport header of what was [`Found`].
    pub transport: u16,
    /// Whether the packet of what was [`Found`] may open a connection; not 0 if so.
    pub opens: u16,
}

impl Raw {
    /// Encodes it in the words that a program writes.
    #[inline(always)]
    #[must_use]
    pub const fn to_words(self) -> [u64; 3] {
        let [i0, i1, i2, i3] = self.interface.to_ne_bytes();
        let [t0, t1] = self.transport.to_ne_bytes();
        let [o0, o1] = self.opens.to_ne_bytes();
        let rest = u64::from_ne_bytes([i0, i1, i2, i3, t0, t1, o0, o1]);
        [self.token, self.key, rest]
    }

    /// Decodes it from the words that a program reads.
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
    /// Returns the parser's result as if the packet had just been parsed. Where the
    /// packet ends is no longer known; the length only says whether it may open a
    /// connection.
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
