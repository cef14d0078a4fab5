//! What a packet is for, read the long way.
//!
//! A second reading of RFC 791, 8200, 4302 and of what the kernel does before
//! iptables sees a packet (`ip_rcv_core`, `ip6_rcv_core`), as straight as it can
//! be: cut the packet where the kernel cuts it, then take one header after the
//! other off its front. It shares nothing with the parser that it judges.

/// A packet that has a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// 6 or 17.
    pub protocol: u8,
    /// The destination port.
    pub port: u16,
    /// How many bytes are before the transport header, from the IP header on.
    pub before: usize,
    /// Whether it is UDP, or a SYN without an ACK.
    pub opens: bool,
}

/// A frame as it is on the wire, with one VLAN tag or none before its packet, or
/// with two that name no VLAN.
#[must_use]
pub fn of_frame(frame: &[u8]) -> Option<Reading> {
    let mut untagged = without_tag(frame);
    let names_none = |frame: &[u8]| number(frame, 14).is_some_and(|control| control % 0x1000 == 0);
    if untagged != frame && names_none(frame) && names_none(&untagged) {
        untagged = without_tag(&untagged);
    }
    of_packet(number(&untagged, 12)?, untagged.get(14..)?)
}

/// The frame as the kernel leaves it for tc: without its first VLAN tag.
#[must_use]
pub fn without_tag(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    if let Some(0x8100 | 0x88a8) = number(&frame, 12) {
        let end = frame.len().min(16);
        frame.drain(12..end);
    }
    frame
}

/// A packet of this EtherType.
#[must_use]
pub fn of_packet(ethertype: u16, packet: &[u8]) -> Option<Reading> {
    match ethertype {
        0x0800 => of_ipv4(packet),
        0x86dd => of_ipv6(packet),
        _ => None,
    }
}

fn of_ipv4(packet: &[u8]) -> Option<Reading> {
    let first = *packet.first()?;
    let header = usize::from(first % 16) * 4;
    if first / 16 != 4 || header < 20 || packet.len() < header {
        return None;
    }
    let mut length = usize::from(number(packet, 2)?);
    if length == 0 && is_beyond_any_field(packet) {
        length = packet.len();
    }
    // Padding goes; what is missing, or not even the header, is an error.
    let packet = packet.get(..length)?;
    let data = packet.get(header..)?;
    let fragment = number(packet, 6)?;
    let (offset, has_more) = (fragment % 0x2000, fragment & 0x2000 != 0);
    if offset != 0 {
        return None;
    }
    let protocol = packet[9];
    if has_more && data.len() < 8 {
        return None;
    }
    if !has_more && data.len() < fixed(protocol)? {
        return None;
    }
    transport(protocol, data, header)
}

fn of_ipv6(packet: &[u8]) -> Option<Reading> {
    if packet.len() < 40 || packet[0] / 16 != 6 {
        return None;
    }
    let mut next = packet[6];
    let payload = usize::from(number(packet, 4)?);
    let end = if payload == 0 && (next == 0 || is_beyond_any_field(packet)) {
        packet.len()
    } else {
        40 + payload
    };
    let mut rest = packet.get(40..end)?;
    let mut passed = 0;
    while next != 6 && next != 17 {
        let length = match next {
            // Hop-by-hop options, routing, destination options.
            0 | 43 | 60 => 8 + 8 * usize::from(*rest.get(1)?),
            // Authentication.
            51 => 8 + 4 * usize::from(*rest.get(1)?),
            // Fragment: the first alone has what follows.
            44 if number(rest, 2)? / 8 == 0 => 8,
            _ => return None,
        };
        next = rest[0];
        rest = rest.get(length..)?;
        passed += 1;
        if passed > 16 {
            return None;
        }
    }
    if rest.len() < fixed(next)? {
        return None;
    }
    transport(next, rest, end - rest.len())
}

/// Many segments in one packet, whose length fields then are 0.
const fn is_beyond_any_field(packet: &[u8]) -> bool {
    packet.len() > 65535
}

fn fixed(protocol: u8) -> Option<usize> {
    match protocol {
        6 => Some(20),
        17 => Some(8),
        _ => None,
    }
}

fn transport(protocol: u8, data: &[u8], before: usize) -> Option<Reading> {
    let is_whole = data.len() >= fixed(protocol)?;
    let opens = protocol == 17 || (is_whole && data[13] & 0x12 == 0x02);
    Some(Reading {
        protocol,
        port: number(data, 2)?,
        before,
        opens,
    })
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}
