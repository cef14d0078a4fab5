//! Each shape of packet by its name, with the twin beside it that has the other
//! result. That the parser agrees with another one on all kinds of packets is
//! tested in conntrack-tests, over what its `packets` module generates.

use super::*;

const TCP: u8 = 6;
const UDP: u8 = 17;
const UDP_LITE: u8 = 136;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const ESP: u8 = 50;
const AUTHENTICATION: u8 = 51;
const NONE: u8 = 59;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// A TCP header to port 21.
fn tcp(flags: u8) -> Vec<u8> {
    let mut header = vec![0xc0, 0, 0, 21];
    header.extend([0; 8]);
    header.extend([0x50, flags, 0, 0, 0, 0, 0, 0]);
    header
}

/// A UDP header to port 69.
fn udp() -> Vec<u8> {
    vec![0xc0, 0, 0, 69, 0, 8, 0, 0]
}

/// An IPv4 packet with so many words of options.
fn v4(words: u8, protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let length = 20 + usize::from(words) * 4 + payload.len();
    let [high, low] = u16::try_from(length).unwrap_or(0).to_be_bytes();
    let [flags, offset] = fragment.to_be_bytes();
    let mut packet = vec![0x45 + words, 0, high, low, 1, 2, flags, offset];
    packet.extend([64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    packet.extend(vec![1; usize::from(words) * 4]);
    packet.extend(payload);
    packet
}

/// An IPv6 packet.
fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    let mut packet = vec![0x60, 0, 0, 0, high, low, next, 64];
    packet.extend([0xfd; 32]);
    packet.extend(payload);
    packet
}

/// Extension headers of these numbers and sizes in bytes, in a packet with this
/// behind them.
fn chained(headers: &[(u8, usize)], number: u8, payload: &[u8]) -> Vec<u8> {
    let mut chain = Vec::new();
    for (index, (this, size)) in headers.iter().enumerate() {
        let next = headers.get(index + 1).map_or(number, |(next, _)| *next);
        let units = match *this {
            FRAGMENT => 0,
            AUTHENTICATION => size / 4 - 2,
            _ => size / 8 - 1,
        };
        let start = chain.len();
        chain.extend([next, u8::try_from(units).unwrap()]);
        chain.resize(start + size, 0);
    }
    chain.extend(payload);
    v6(headers.first().map_or(number, |(first, _)| *first), &chain)
}

/// An IPv6 fragment: its offset field, and what it carries.
fn fragment6(offset_and_more: u16, number: u8, payload: &[u8]) -> Vec<u8> {
    let [high, low] = offset_and_more.to_be_bytes();
    let mut chain = vec![number, 0, high, low, 0, 0, 0, 1];
    chain.extend(payload);
    v6(FRAGMENT, &chain)
}

/// Parses a network packet; its version says the EtherType.
fn parsed(packet: &[u8]) -> Result<Control, NotOurs> {
    let ethertype = if packet[0] >> 4 == 6 { 0x86dd } else { 0x0800 };
    let mut frame = vec![0; ETHERNET_HEADER];
    frame.extend(packet);
    control(frame.as_slice(), ethertype, ETHERNET_HEADER)
}

fn result(packet: &[u8]) -> Result<(Protocol, u16, usize), NotOurs> {
    parsed(packet).map(|control| {
        let Destination { protocol, port } = control.destination;
        (protocol, port, control.transport)
    })
}

/// Of a packet to the port of [`tcp`] whose transport header starts there.
macro_rules! ftp {
    ($transport:expr) => {
        Ok((Protocol::Tcp, 21, $transport))
    };
}

/// Likewise for [`udp`].
macro_rules! tftp {
    ($transport:expr) => {
        Ok((Protocol::Udp, 69, $transport))
    };
}

fn opening(packet: &[u8]) -> bool {
    let control = parsed(packet).expect("a destination");
    opens(packet, 0, &control)
}

#[test]
fn ipv4_options_move_the_ports() {
    for words in 0..=10 {
        let at = 20 + usize::from(words) * 4;
        assert_eq!(result(&v4(words, TCP, 0, &tcp(ACK))), ftp!(at));
        assert_eq!(result(&v4(words, UDP, 0, &udp())), tftp!(at));
    }
    for words in 0..5 {
        let mut packet = v4(0, TCP, 0, &tcp(ACK));
        packet[0] = 0x40 | words;
        assert_eq!(result(&packet), Err(NotOurs::Truncated), "{words} words");
    }
}

#[test]
fn the_version_is_that_of_the_ethertype() {
    for (ethertype, mut packet) in [
        (ETHERTYPE_IPV4, v4(0, TCP, 0, &tcp(ACK))),
        (ETHERTYPE_IPV6, v6(TCP, &tcp(ACK))),
    ] {
        let of = |packet: &[u8]| control(packet, ethertype, 0).map(drop);
        assert_eq!(of(&packet), Ok(()));
        packet[0] ^= 0x20;
        assert_eq!(of(&packet), Err(NotOurs::NotIp));
        packet[0] ^= 0x20;
        assert_eq!(control(packet.as_slice(), 0x0806, 0), Err(NotOurs::NotIp));
    }
}

#[test]
fn only_tcp_and_udp_have_ports() {
    let extensions = [
        HOP_BY_HOP,
        ROUTING,
        FRAGMENT,
        AUTHENTICATION,
        DESTINATION_OPTIONS,
    ];
    for number in 0..=u8::MAX {
        let (v4, v6) = (
            result(&v4(0, number, 0, &tcp(ACK))),
            result(&v6(number, &tcp(ACK))),
        );
        match number {
            TCP => assert_eq!((v4, v6), (ftp!(20), ftp!(40))),
            UDP => assert!(v4.is_ok() && v6.is_ok()),
            _ => {
                assert_eq!(v4, Err(NotOurs::OtherProtocol), "{number}");
                if !extensions.contains(&number) {
                    assert_eq!(v6, Err(NotOurs::OtherProtocol), "{number}");
                }
            }
        }
    }
}

/// Both say how long the packet is: a frame's end, and the length field.
#[test]
fn a_header_has_to_be_whole_by_both_lengths() {
    type Make = fn(&[u8]) -> Vec<u8>;
    let shapes: [(Make, &[u8], usize); 6] = [
        (|payload| v4(0, TCP, 0, payload), &tcp(ACK), 2),
        (|payload| v4(10, UDP, 0, payload), &udp(), 2),
        (|payload| v6(TCP, payload), &tcp(ACK), 4),
        (|payload| v6(UDP, payload), &udp(), 4),
        (
            |payload| chained(&[(ROUTING, 24)], TCP, payload),
            &tcp(ACK),
            4,
        ),
        (
            |payload| fragment6(1, UDP, payload), // more fragments
            &udp(),
            4,
        ),
    ];
    for (make, transport, length_at) in shapes {
        let whole = make(transport);
        assert!(parsed(&whole).is_ok());
        // Ends too early, whatever its length field says.
        for end in 1..whole.len() {
            assert_eq!(result(&whole[..end]), Err(NotOurs::Truncated), "{end}");
        }
        for missing in 1..=transport.len() {
            // Says less, and the rest is padding.
            let mut padded = make(&transport[..transport.len() - missing]);
            padded.resize(60.max(whole.len()), 0);
            let start = whole.len() - transport.len();
            padded[start..whole.len()].copy_from_slice(transport);
            assert_eq!(result(&padded), Err(NotOurs::Truncated), "-{missing}");
        }
        // Says more than there is.
        let mut more = whole.clone();
        more[length_at + 1] += 1;
        assert_eq!(result(&more), Err(NotOurs::Truncated));
        // Its twin is padded to what it says.
        more.push(0);
        assert!(parsed(&more).is_ok());
    }
}

#[test]
fn an_ipv4_first_fragment_needs_its_ports_alone() {
    const MORE: u16 = 0x2000;
    let header = tcp(SYN);
    for length in 8..=20 {
        let packet = v4(0, TCP, MORE, &header[..length]);
        assert_eq!(result(&packet), ftp!(20), "{length}");
        let is_complete = length == 20;
        assert_eq!(parsed(&packet).unwrap().is_complete(), is_complete);
        // What isn't there is not read from padding.
        let mut padded = packet.clone();
        padded.extend(&header[length..]);
        assert_eq!(opening(&padded), is_complete, "{length}");
    }
    for length in 0..8 {
        let packet = v4(0, TCP, MORE, &header[..length]);
        assert_eq!(result(&packet), Err(NotOurs::Truncated), "{length}");
    }
    // "Don't fragment" and the reserved bit are no fragment's.
    for flags in [0x4000, 0x8000] {
        assert_eq!(result(&v4(0, TCP, flags, &header)), ftp!(20));
        let half = v4(0, TCP, flags, &header[..8]);
        assert_eq!(result(&half), Err(NotOurs::Truncated));
    }
}

#[test]
fn a_later_fragment_has_no_ports() {
    for offset in (0..13).map(|bit| 1 << bit) {
        for flags in [0, 0x2000] {
            let packet = v4(0, UDP, flags | offset, &udp());
            assert_eq!(result(&packet), Err(NotOurs::LaterFragment));
        }
        for more in [0, 1] {
            let packet = fragment6(offset << 3 | more, UDP, &udp());
            assert_eq!(result(&packet), Err(NotOurs::LaterFragment));
        }
    }
}

#[test]
fn an_ipv6_first_fragment_holds_the_whole_header() {
    // First of several, atomic, and with the reserved bits set.
    for offset_and_more in [1, 0, 6, 7] {
        assert_eq!(
            result(&fragment6(offset_and_more, TCP, &tcp(SYN))),
            ftp!(48)
        );
        let half = fragment6(offset_and_more, TCP, &tcp(SYN)[..16]);
        assert_eq!(result(&half), Err(NotOurs::Truncated));
    }
}

#[test]
fn every_extension_header_is_passed_over() {
    for (number, size) in [
        (HOP_BY_HOP, 8),
        (HOP_BY_HOP, 2048),
        (ROUTING, 24),
        (FRAGMENT, 8),
        (AUTHENTICATION, 8),
        (AUTHENTICATION, 24),
        (AUTHENTICATION, 1028),
        (DESTINATION_OPTIONS, 16),
    ] {
        let at = 40 + size;
        let header = [(number, size)];
        assert_eq!(result(&chained(&header, TCP, &tcp(ACK))), ftp!(at));
        assert_eq!(result(&chained(&header, UDP, &udp())), tftp!(at));
        let lite = chained(&header, UDP_LITE, &udp());
        assert_eq!(result(&lite), Err(NotOurs::OtherProtocol));
    }
    let all = [
        (HOP_BY_HOP, 8),
        (DESTINATION_OPTIONS, 8),
        (ROUTING, 24),
        (FRAGMENT, 8),
        (AUTHENTICATION, 24),
        (DESTINATION_OPTIONS, 24),
    ];
    assert_eq!(result(&chained(&all, TCP, &tcp(ACK))), ftp!(40 + 96));
    for end in [ESP, NONE, MOBILITY, 41, 58] {
        let packet = chained(&all, end, &tcp(ACK));
        assert_eq!(result(&packet), Err(NotOurs::OtherProtocol), "{end}");
    }
}

#[test]
fn the_walk_has_an_end() {
    let longest = [(DESTINATION_OPTIONS, 2048); MOST_HEADERS];
    assert_eq!(
        result(&chained(&longest, TCP, &tcp(ACK))),
        ftp!(40 + 16 * 2048)
    );
    let too_many = [(DESTINATION_OPTIONS, 8); MOST_HEADERS + 1];
    assert_eq!(
        result(&chained(&too_many, TCP, &tcp(ACK))),
        Err(NotOurs::TooManyHeaders)
    );
}

/// A payload length of 0 is a jumbogram's if there are hop-by-hop options.
#[test]
fn a_jumbogram_is_as_long_as_its_frame() {
    let mut jumbo = chained(&[(HOP_BY_HOP, 8)], TCP, &tcp(ACK));
    jumbo[4..6].fill(0);
    assert_eq!(result(&jumbo), ftp!(48));
    let end = jumbo.len() - 1;
    assert_eq!(result(&jumbo[..end]), Err(NotOurs::Truncated));
    let mut empty = chained(&[(DESTINATION_OPTIONS, 8)], TCP, &tcp(ACK));
    empty[4..6].fill(0);
    assert_eq!(result(&empty), Err(NotOurs::Truncated));
}

/// BIG TCP: more than the length field can say, which then is 0.
#[test]
fn merged_segments_are_as_long_as_they_are() {
    let mut payload = tcp(ACK);
    payload.resize(70_000, 0);
    assert_eq!(result(&v4(0, TCP, 0, &payload)), ftp!(20));
    assert_eq!(result(&v6(TCP, &payload)), ftp!(40));
    // Their twins are no longer than others, and 0 is what they say.
    for mut packet in [v4(0, TCP, 0, &tcp(ACK)), v6(TCP, &tcp(ACK))] {
        let at = if packet[0] >> 4 == 4 { 2 } else { 4 };
        packet[at..at + 2].fill(0);
        assert_eq!(result(&packet), Err(NotOurs::Truncated));
    }
}

#[test]
fn a_tunnel_is_judged_by_its_outer_header() {
    let inner = v4(0, TCP, 0, &tcp(ACK));
    for number in [4, 41, 47, ESP, AUTHENTICATION] {
        let packet = v4(0, number, 0, &inner);
        assert_eq!(result(&packet), Err(NotOurs::OtherProtocol), "{number}");
    }
    let mut vxlan = udp();
    vxlan.extend([8, 0, 0, 0, 0, 0, 1, 0]);
    vxlan.extend(inner);
    assert_eq!(result(&v4(0, UDP, 0, &vxlan)), tftp!(20));
}

#[test]
fn one_vlan_tag_is_taken_off() {
    let tagged = |tags: &[u16]| {
        let mut frame = vec![2; 12];
        for tag in tags {
            frame.extend(tag.to_be_bytes());
            frame.extend([0, 5]);
        }
        frame.extend(ETHERTYPE_IPV4.to_be_bytes());
        frame.extend(v4(0, TCP, 0, &tcp(ACK)));
        let (ethertype, network) = ethernet(frame.as_slice());
        control(frame.as_slice(), ethertype, network).map(|control| (network, control.transport))
    };
    assert_eq!(tagged(&[]), Ok((14, 20)));
    assert_eq!(tagged(&[0x8100]), Ok((18, 20)));
    assert_eq!(tagged(&[0x88a8]), Ok((18, 20)));
    assert_eq!(tagged(&[0x88a8, 0x8100]), Err(NotOurs::NotIp));
    assert_eq!(tagged(&[0x8100, 0x8100]), Err(NotOurs::NotIp));
    assert_eq!(tagged(&[0x9100]), Err(NotOurs::NotIp));
    for length in 0..14 {
        assert_eq!(ethernet(&[0x81; 14][..length]).0, 0, "{length}");
    }
}

#[test]
fn a_syn_without_an_ack_opens() {
    for flags in 0..=u8::MAX {
        let expected = flags & (SYN | ACK) == SYN;
        assert_eq!(opening(&v4(3, TCP, 0, &tcp(flags))), expected, "{flags:#x}");
        let behind_options = chained(&[(DESTINATION_OPTIONS, 2048)], TCP, &tcp(flags));
        assert_eq!(opening(&behind_options), expected, "{flags:#x}");
    }
    assert!(opening(&v6(UDP, &udp())));
}
