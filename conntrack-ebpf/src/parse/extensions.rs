//! Walks over IPv6 extension headers.
//!
//! The walk is the kernel's own (`ipv6_find_hdr` and `ipv6_ext_hdr`,
//! `net/ipv6/exthdrs_core.c`), except for its limit: any header that it doesn't
//! know as an extension header ends it, and is neither TCP nor UDP.

use crate::{abi::Protocol, packet::Packet};

use super::{NotOurs, protocol};

/// The number of extension headers that are skipped before a packet is given up.
/// RFC 8200 has seven in the longest chain that makes sense; iptables has no
/// limit.
pub const MOST_HEADERS: usize = 16;

pub(super) const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// The bits of the field that hold the offset, without the lowest three.
const FRAGMENT_OFFSET: u16 = 0xfff8;

/// Returns the transport protocol behind the extension headers that start at
/// `start` with one of this number, and the start of its header; both from
/// `network` on.
///
/// The caller checks where the packet ends: an offset only grows, so what was read
/// from padding leads further into it.
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
        // Each header is at least 8 bytes long, so the first four are enough to
        // know that more has to follow.
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
