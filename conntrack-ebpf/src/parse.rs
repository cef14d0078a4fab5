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

const ETHERTYPE_IPV4: u16 = 0x0800;
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

/// The destination of an Ethernet frame whose EtherType (host byte order, after
/// any VLAN tag) is `ethertype` and whose network header starts at `network`.
///
/// # Errors
/// [`NotOurs`] says why the packet has none.
#[inline(always)]
pub fn destination<P: Packet + ?Sized>(
    packet: &P,
    ethertype: u16,
    network: usize,
) -> Result<Destination, NotOurs> {
    match ethertype {
        ETHERTYPE_IPV4 => ipv4(packet, network),
        ETHERTYPE_IPV6 => ipv6(packet, network),
        _ => Err(NotOurs::NotIp),
    }
}

#[inline(always)]
fn ipv4<P: Packet + ?Sized>(packet: &P, network: usize) -> Result<Destination, NotOurs> {
    let header: [u8; IPV4_MIN_HEADER] = packet.read(network).ok_or(NotOurs::Truncated)?;
    if header[0] >> 4 != 4 {
        return Err(NotOurs::NotIp);
    }
    let header_length = usize::from(header[0] & 0x0f) * 4;
    if header_length < IPV4_MIN_HEADER {
        return Err(NotOurs::Truncated);
    }
    // Ports before the fragment test: almost no packet is a fragment.
    let protocol = protocol(header[9])?;
    if u16::from_be_bytes([header[6], header[7]]) & IPV4_FRAGMENT_OFFSET != 0 {
        return Err(NotOurs::LaterFragment);
    }
    transport(packet, protocol, network + header_length)
}

#[inline(always)]
fn ipv6<P: Packet + ?Sized>(packet: &P, network: usize) -> Result<Destination, NotOurs> {
    if !packet.has(network + IPV6_HEADER) {
        return Err(NotOurs::Truncated);
    }
    // The first eight bytes hold all that is looked at.
    let header: [u8; 8] = packet.read(network).ok_or(NotOurs::Truncated)?;
    if header[0] >> 4 != 6 {
        return Err(NotOurs::NotIp);
    }
    let protocol = protocol(header[6])?;
    transport(packet, protocol, network + IPV6_HEADER)
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
    offset: usize,
) -> Result<Destination, NotOurs> {
    let header_length = match protocol {
        Protocol::Tcp => TCP_MIN_HEADER,
        Protocol::Udp => UDP_HEADER,
    };
    if !packet.has(offset + header_length) {
        return Err(NotOurs::Truncated);
    }
    let ports: [u8; 4] = packet.read(offset).ok_or(NotOurs::Truncated)?;
    Ok(Destination {
        protocol,
        port: u16::from_be_bytes([ports[2], ports[3]]),
    })
}
