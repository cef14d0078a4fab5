//! From a packet to what it is looked up by.
//!
//! Header layouts: RFC 791 (IPv4), RFC 8200 (IPv6), RFC 9293 (TCP), RFC 768
//! (UDP).

use crate::{
    abi::{Destination, Protocol},
    packet::Packet,
};

/// Length of an Ethernet header, in bytes: where the network header starts.
pub const ETHERNET_HEADER: usize = 14;

/// IEEE 802's number of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;

const IPV4_MIN_HEADER: usize = 20;
const IPV4_FRAGMENT_OFFSET: u16 = 0x1fff;
const IPV6_HEADER: usize = 40;

const TCP_MIN_HEADER: usize = 20;
const UDP_HEADER: usize = 8;

/// Why a packet has no destination to look up. None of these is an error: such
/// a packet gets no helper mark, and goes its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotOurs {
    /// Neither IPv4 nor IPv6, or a version field that contradicts the EtherType.
    NotIp,
    /// It ends before the end of a header.
    Truncated,
    /// An IPv4 fragment other than the first: it has no ports.
    LaterFragment,
    /// Neither TCP nor UDP directly behind the IP header.
    OtherProtocol,
}

/// The EtherType of an Ethernet frame (host byte order) and where its network
/// header starts, behind one VLAN tag if it has any: so a tc program sees it,
/// from which the kernel takes one tag off (`skb_vlan_untag`, net/core/dev.c).
#[inline(always)]
pub fn ethernet<P: Packet + ?Sized>(frame: &P) -> (u16, usize) {
    const ETHERTYPE_AT: usize = 12;
    const CUSTOMER_TAG: u16 = 0x8100;
    const SERVICE_TAG: u16 = 0x88a8;
    const TAG: usize = 4;
    let ethertype = |at| frame.read(at).map_or(0, u16::from_be);
    match ethertype(ETHERTYPE_AT) {
        CUSTOMER_TAG | SERVICE_TAG => (ethertype(ETHERTYPE_AT + TAG), ETHERNET_HEADER + TAG),
        plain => (plain, ETHERNET_HEADER),
    }
}

/// What a packet is looked up by, and where the rest of it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    /// What it is looked up by.
    pub destination: Destination,
    /// Where the transport header starts, from the network header on, in bytes.
    pub transport: u16,
}

/// The destination of an Ethernet frame whose EtherType (host byte order, after
/// any VLAN tag) is `ethertype` and whose network header starts at `network`.
///
/// # Errors
/// [`NotOurs`] says why the packet has none.
#[inline(always)]
pub fn control<P: Packet + ?Sized>(
    packet: &P,
    ethertype: u16,
    network: usize,
) -> Result<Control, NotOurs> {
    match ethertype {
        ETHERTYPE_IPV4 => ipv4(packet, network),
        ETHERTYPE_IPV6 => ipv6(packet, network),
        _ => Err(NotOurs::NotIp),
    }
}

#[inline(always)]
fn ipv4<P: Packet + ?Sized>(packet: &P, network: usize) -> Result<Control, NotOurs> {
    if !packet.has(network + IPV4_MIN_HEADER) {
        return Err(NotOurs::Truncated);
    }
    // The first sixteen bytes hold all that is looked at.
    let [first, second]: [u64; 2] = packet.read(network).ok_or(NotOurs::Truncated)?;
    let (header, [_, number, ..]) = (first.to_ne_bytes(), second.to_ne_bytes());
    if header[0] >> 4 != 4 {
        return Err(NotOurs::NotIp);
    }
    let header_length = usize::from(header[0] & 0x0f) * 4;
    if header_length < IPV4_MIN_HEADER {
        return Err(NotOurs::Truncated);
    }
    // Ports before the fragment test: almost no packet is a fragment.
    let protocol = protocol(number)?;
    if u16::from_be_bytes([header[6], header[7]]) & IPV4_FRAGMENT_OFFSET != 0 {
        return Err(NotOurs::LaterFragment);
    }
    transport(packet, protocol, network, header_length)
}

#[inline(always)]
fn ipv6<P: Packet + ?Sized>(packet: &P, network: usize) -> Result<Control, NotOurs> {
    if !packet.has(network + IPV6_HEADER) {
        return Err(NotOurs::Truncated);
    }
    // The first eight bytes hold all that is looked at.
    let header: u64 = packet.read(network).ok_or(NotOurs::Truncated)?;
    let header = header.to_ne_bytes();
    if header[0] >> 4 != 6 {
        return Err(NotOurs::NotIp);
    }
    let protocol = protocol(header[6])?;
    transport(packet, protocol, network, IPV6_HEADER)
}

#[inline(always)]
const fn protocol(number: u8) -> Result<Protocol, NotOurs> {
    const TCP: u8 = Protocol::Tcp as u8;
    const UDP: u8 = Protocol::Udp as u8;
    match number {
        TCP => Ok(Protocol::Tcp),
        UDP => Ok(Protocol::Udp),
        _ => Err(NotOurs::OtherProtocol),
    }
}

/// Wants the whole fixed header, not only the ports: iptables' `--dport` drops
/// a packet that has less, and conntrack calls it invalid.
#[inline(always)]
fn transport<P: Packet + ?Sized>(
    packet: &P,
    protocol: Protocol,
    network: usize,
    transport: usize,
) -> Result<Control, NotOurs> {
    let offset = network + transport;
    let header_length = match protocol {
        Protocol::Tcp => TCP_MIN_HEADER,
        Protocol::Udp => UDP_HEADER,
    };
    if !packet.has(offset + header_length) {
        return Err(NotOurs::Truncated);
    }
    let port: u16 = packet.read(offset + 2).ok_or(NotOurs::Truncated)?;
    #[expect(clippy::cast_possible_truncation, reason = "at most 60")]
    let transport = transport as u16;
    Ok(Control {
        destination: Destination {
            protocol,
            port: u16::from_be(port),
        },
        transport,
    })
}

/// Whether a packet may be the first of its connection: a TCP SYN without an
/// ACK, or any of UDP, which has no such sign.
#[inline(always)]
pub fn opens<P: Packet + ?Sized>(packet: &P, network: usize, control: Control) -> bool {
    const OFFSET_AND_FLAGS: usize = 12;
    const SYN: u8 = 0x02;
    const ACK: u8 = 0x10;
    match control.destination.protocol {
        Protocol::Udp => true,
        Protocol::Tcp => packet
            .read::<u16>(network + usize::from(control.transport) + OFFSET_AND_FLAGS)
            .is_some_and(|bytes| bytes.to_ne_bytes()[1] & (SYN | ACK) == SYN),
    }
}
