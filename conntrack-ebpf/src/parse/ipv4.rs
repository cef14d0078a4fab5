//! Parses IPv4: options and first fragments.

use crate::packet::Packet;

use super::{Layout, NotOurs, fixed_header, protocol};

const MIN_HEADER: usize = 20;
const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;

/// The least that the first of several fragments holds. iptables sees the
/// reassembled packet, with the first fragment's mark (`inet_frag_reasm_prepare`,
/// `net/ipv4/inet_fragment.c`), so the rest of the transport header may come with
/// the next fragment. But the kernel takes whole units of 8 bytes from it, and
/// discards one that has none (`ip_frag_queue`, `net/ipv4/ip_fragment.c`).
const FIRST_FRAGMENT: usize = 8;

#[inline(always)]
pub(super) fn layout<P: Packet + ?Sized>(packet: &P, network: usize) -> Result<Layout, NotOurs> {
    // The first sixteen bytes hold all that is needed.
    let [first, second]: [u64; 2] = packet.read(network).ok_or(NotOurs::Truncated)?;
    let (header, [_, number, ..]) = (first.to_ne_bytes(), second.to_ne_bytes());
    if header[0] >> 4 != 4 {
        return Err(NotOurs::NotIp);
    }
    let transport = usize::from(header[0] & 0x0f) * 4;
    if transport < MIN_HEADER {
        return Err(NotOurs::Truncated);
    }
    // The protocol is checked before the fragment: almost no packet is a
    // fragment.
    let protocol = protocol(number).ok_or(NotOurs::OtherProtocol)?;
    let fragment = u16::from_be_bytes([header[6], header[7]]);
    if fragment & FRAGMENT_OFFSET != 0 {
        return Err(NotOurs::LaterFragment);
    }
    let needed = if fragment & MORE_FRAGMENTS == 0 {
        transport + fixed_header(protocol)
    } else {
        transport + FIRST_FRAGMENT
    };
    let said = usize::from(u16::from_be_bytes([header[2], header[3]]));
    // Merged segments may be more than the field can express: then it is 0
    // (`iph_set_totlen`, include/linux/ip.h).
    let length = if said == 0 && packet.is_merged(network) {
        needed
    } else {
        said
    };
    Ok(Layout {
        protocol,
        transport,
        needed,
        length,
    })
}
