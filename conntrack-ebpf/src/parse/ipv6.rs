//! Parses IPv6, with or without extension headers.

use crate::packet::Packet;

use super::{Layout, NotOurs, extensions, fixed_header, protocol};

const HEADER: usize = 40;

#[inline(always)]
pub(super) fn layout<P: Packet + ?Sized>(packet: &P, network: usize) -> Result<Layout, NotOurs> {
    // The first eight bytes hold all that is needed.
    let header: u64 = packet.read(network).ok_or(NotOurs::Truncated)?;
    let header = header.to_ne_bytes();
    if header[0] >> 4 != 6 {
        return Err(NotOurs::NotIp);
    }
    let number = header[6];
    let (protocol, transport) = match protocol(number) {
        Some(protocol) => (protocol, HEADER),
        None => extensions::skip(packet, network, number, HEADER)?,
    };
    // This holds for a first fragment too: it has to hold all headers (RFC 8200
    // 4.5), and one that doesn't is passed by reassembly
    // (`ipv6frag_thdr_truncated`, include/net/ipv6_frag.h) and dropped by
    // iptables.
    let needed = transport + fixed_header(protocol);
    let payload = usize::from(u16::from_be_bytes([header[4], header[5]]));
    // A jumbogram gives its length in a hop-by-hop option (RFC 2675), and so do
    // merged segments that are too long; newer kernels leave the option out.
    let is_unsaid = payload == 0 && (number == extensions::HOP_BY_HOP || packet.is_merged(network));
    Ok(Layout {
        protocol,
        transport,
        needed,
        length: if is_unsaid { needed } else { HEADER + payload },
    })
}
