//! Walks over IPv6 extension headers.
//!
//! The kernel's own (`ipv6_find_hdr` and `ipv6_ext_hdr`,
//! `net/ipv6/exthdrs_core.c`), but for its length: whatever it doesn't know as an
//! extension header ends it, and that is neither TCP nor UDP.

use crate::{abi::Protocol, packet::Packet};

use super::{NotOurs, protocol};

/// How many extension headers are passed over before a packet is given up. RFC
/// 8200 has seven in the longest chain that makes sense; iptables knows no bound.
pub const MOST_HEADERS: usize = 16;

pub(super) const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// The lowest three bits of the field are none of the offset.
const FRAGMENT_OFFSET: u16 = 0xfff8;

/// The transport protocol behind the extension headers that start at `start` with
/// one of this number, and where its header starts; both from `network` on.
///
/// Where the packet ends is for the caller to see: an offset only grows, so what
/// was read from padding leads further into it.
#[inline(always)]
pub(super) fn skip<P: Packet + ?Sized>(
    packet: &P,
    network: usize,
    number: u8,
    start: usize,
) -> Result<(Protocol, usize), NotOurs> {
    let (mut number, mut offset) = (number, start);
    for _ in 0..=MOST_HEADERS {
        if let Some(protocol) = protocol(number) {
            return Ok((protocol, offset));
        }
        if !matches!(
            number,
            HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS
        ) {
            return Err(NotOurs::OtherProtocol);
        }
        // Each is at least 8 bytes long, so that the first four are enough to know
        // that more has to follow.
        let header: u32 = packet.copy(network + offset).ok_or(NotOurs::Truncated)?;
        let [next, units, high, low] = header.to_ne_bytes();
        let length = match number {
            FRAGMENT if u16::from_be_bytes([high, low]) & FRAGMENT_OFFSET != 0 => {
                return Err(NotOurs::LaterFragment);
            }
            FRAGMENT => 8,
            AUTHENTICATION => (usize::from(units) + 2) * 4,
            _ => (usize::from(units) + 1) * 8,
        };
        offset = packet.forget(offset + length, header);
        number = next;
    }
    Err(NotOurs::TooManyHeaders)
}
