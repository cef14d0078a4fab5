//! Parses a packet to its protocol and destination port.
//!
//! The reference is the iptables rule that a lookup replaces: what `-p tcp
//! --dport` would match in the raw table, behind the kernel's own checks of the
//! IP header and its reassembly. A packet that the kernel drops before it has a
//! connection may have any result here; it has none where that costs nothing.
//!
//! Header layouts: RFC 791 (IPv4), RFC 8200 (IPv6), RFC 4302 (AH), RFC 9293
//! (TCP), RFC 768 (UDP), IEEE 802.1Q.

mod ethernet;
mod extensions;
mod ipv4;
mod ipv6;
#[cfg(test)]
mod tests;

use crate::{
    abi::{Destination, Protocol},
    packet::Packet,
};

pub use ethernet::{
    ETHERNET_HEADER, ETHERTYPE_IPV4, ETHERTYPE_IPV6, behind_priority_tag, ethernet, is_tag,
};
pub use extensions::MOST_HEADERS;

const TCP_MIN_HEADER: usize = 20;
const UDP_HEADER: usize = 8;

/// The reason why a packet has no destination to look up. None of these is an
/// error: such a packet gets no helper mark, and passes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotOurs {
    /// The packet is neither IPv4 nor IPv6, or its version field contradicts the
    /// EtherType.
    NotIp,
    /// The packet ends before the end of a header, by its own length field or in
    /// fact.
    Truncated,
    /// The packet is a fragment other than the first, and has no ports.
    LaterFragment,
    /// The packet has neither TCP nor UDP behind the IP header and its
    /// extensions.
    OtherProtocol,
    /// The packet has more than [`MOST_HEADERS`] IPv6 extension headers.
    TooManyHeaders,
}

/// The destination of a packet, and the place of its other parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    /// The key of the lookup.
    pub destination: Destination,
    /// The start of the transport header, in bytes from the network header.
    pub transport: usize,
    /// The end of the packet, in bytes from the network header.
    pub length: usize,
}

impl Control {
    /// Returns whether the whole fixed transport header is there: a first
    /// fragment may hold less.
    #[inline(always)]
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.length >= self.transport + fixed_header(self.destination.protocol)
    }
}

/// Returns the destination of an Ethernet frame whose EtherType (host byte
/// order, after any VLAN tag) is `ethertype` and whose network header starts at
/// `network`.
///
/// # Errors
/// [`NotOurs`] gives the reason why the packet has none.
#[inline(always)]
pub fn control<P: Packet + ?Sized>(
    packet: &P,
    ethertype: u16,
    network: usize,
) -> Result<Control, NotOurs> {
    let layout = match ethertype {
        ETHERTYPE_IPV4 => ipv4::layout(packet, network)?,
        ETHERTYPE_IPV6 => ipv6::layout(packet, network)?,
        _ => return Err(NotOurs::NotIp),
    };
    if layout.length < layout.needed || !packet.has(network + layout.length) {
        return Err(NotOurs::Truncated);
    }
    let port: u16 = packet
        .read(network + layout.transport + 2)
        .ok_or(NotOurs::Truncated)?;
    Ok(Control {
        destination: Destination {
            protocol: layout.protocol,
            port: u16::from_be(port),
        },
        transport: layout.transport,
        length: layout.length,
    })
}

/// The layout of a packet by its IP header, in bytes from the network header.
struct Layout {
    /// The transport protocol.
    protocol: Protocol,
    /// The start of the transport header.
    transport: usize,
    /// The length that the packet must have at least.
    needed: usize,
    /// The length of the packet. The rest is padding, which the kernel cuts off,
    /// and if the packet is shorter, the kernel drops it (`ip_rcv_core`,
    /// `ip6_rcv_core`). Where the header can't give the length, the whole frame
    /// counts, and this is `needed`.
    length: usize,
}

/// Returns whether a packet may be the first of its connection: a TCP SYN
/// without an ACK, or any UDP packet, as UDP has no such sign.
#[inline(always)]
pub fn opens<P: Packet + ?Sized>(packet: &P, network: usize, control: &Control) -> bool {
    const OFFSET_AND_FLAGS: usize = 12;
    const SYN: u8 = 0x02;
    const ACK: u8 = 0x10;
    match control.destination.protocol {
        Protocol::Udp => true,
        Protocol::Tcp => {
            let at = network + control.transport + OFFSET_AND_FLAGS;
            let [_, flags] = packet.read_or_zero::<u16>(at).to_ne_bytes();
            control.is_complete() && flags & (SYN | ACK) == SYN
        }
    }
}

#[inline(always)]
const fn protocol(number: u8) -> Option<Protocol> {
    const TCP: u8 = Protocol::Tcp as u8;
    const UDP: u8 = Protocol::Udp as u8;
    match number {
        TCP => Some(Protocol::Tcp),
        UDP => Some(Protocol::Udp),
        _ => None,
    }
}

/// Returns the length of the fixed part of a transport header, in bytes. A whole
/// packet needs all of it, not only the ports: iptables' `--dport` drops one
/// that has less (`tcp_mt`, `udp_mt`, `net/netfilter/xt_tcpudp.c`).
#[inline(always)]
const fn fixed_header(protocol: Protocol) -> usize {
    match protocol {
        Protocol::Tcp => TCP_MIN_HEADER,
        Protocol::Udp => UDP_HEADER,
    }
}
