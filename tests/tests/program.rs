//! The loaded program itself, packet by packet, by `BPF_PROG_TEST_RUN`.
//!
//! After each run everything is checked: the mark, every rule's counters, that
//! the frame is as it was, and that the host's parser says the same.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "program/frames.rs"]
mod frames;
#[path = "program/loaded.rs"]
mod loaded;

use std::cell::RefCell;

use conntrack_agent::port_table::Wanted;
use conntrack_ebpf::{
    abi::{Destination, Protocol},
    parse::{ETHERNET_HEADER, MOST_HEADERS},
};
use etherparse::{IpFragOffset, Ipv4Options};
use proptest::{prelude::*, test_runner::TestRunner};

use frames::{BOTH, Ip, frame, frame_v4, frame_v6, tcp, udp};
use loaded::{Loaded, MASK, RULES};

#[test]
fn a_ruled_port_is_hit_and_its_neighbours_are_not() {
    let mut loaded = Loaded::new();
    let rules = RULES.map(|(rule, _)| rule);
    for (ip, port) in BOTH
        .iter()
        .flat_map(|ip| rules.map(|rule| (*ip, rule.port)))
    {
        let [before, after] = [port.wrapping_sub(1), port.wrapping_add(1)];
        for port in [port, before, after, port ^ 0x0100, port.swap_bytes(), 0] {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let to = Destination { protocol, port };
                let expected = rules.contains(&to).then_some(to);
                loaded.check(
                    &format!("{ip:?} {to:?}"),
                    &frame(ip, to, b"payload"),
                    expected,
                );
            }
        }
    }
}

/// An address can start as an IP header does: the program looks twice then,
/// whether there is an Ethernet header at all (`conntrack_ebpf::skb::network`).
#[test]
fn an_address_like_an_ip_header_is_an_address() {
    let mut loaded = Loaded::new();
    for ip in BOTH {
        for first in [0x45, 0x4f, 0x60, 0x6e, 0xfa] {
            for to in [tcp(21), udp(69), tcp(22)] {
                for payload in [0, 1, 64, 1400] {
                    let mut bytes = frame(ip, to, &vec![0; payload]);
                    bytes[0] = first;
                    let what = format!("{ip:?} {to:?}, address {first:#04x}, {payload} bytes");
                    loaded.check(&what, &bytes, (to.port != 22).then_some(to));
                }
            }
        }
    }
}

#[test]
fn a_packet_that_ends_in_a_header_is_nobodys() {
    let mut loaded = Loaded::new();
    for ip in BOTH {
        for (to, header) in [(tcp(21), 20), (udp(69), 8)] {
            let whole = frame(ip, to, &[]);
            let full = ip.end() + header;
            assert_eq!(whole.len(), full);
            for length in ip.end()..=full {
                let what = format!("{ip:?} {to:?}, {length} bytes");
                loaded.check(&what, &whole[..length], (length == full).then_some(to));
            }
            for length in 0..ip.end() {
                let refused = loaded.try_run(&whole[..length], 0);
                assert!(refused.is_err(), "{length} bytes: no longer too short?");
                assert_eq!(loaded.on_host(&whole[..length]), 0);
            }
        }
    }
}

#[test]
fn only_a_first_fragment_has_a_port() {
    let mut loaded = Loaded::new();
    for to in [tcp(21), udp(69)] {
        for (offset, more) in [
            (0, false),
            (0, true),
            (1, true),
            (1, false),
            (0x1fff, false),
        ] {
            let bytes = frame_v4(to, |header| {
                header.fragment_offset = IpFragOffset::try_new(offset).unwrap();
                header.more_fragments = more;
            });
            let what = format!("{to:?}, fragment at {offset}, more {more}");
            loaded.check(&what, &bytes, (offset == 0).then_some(to));
        }
        let what = format!("{to:?}, don't fragment");
        loaded.check(&what, &frame_v4(to, |h| h.dont_fragment = true), Some(to));
    }
    // IPv6 fragments have a header of their own.
    for (field, expected) in [(0, Some(udp(69))), (1, Some(udp(69))), (8, None), (9, None)] {
        let bytes = frame_v6(udp(69), &[(44, [field, 0, 0, 1])]);
        let what = format!("IPv6 fragment, offset and more {field:#x}");
        loaded.check(&what, &bytes, expected);
    }
}

#[test]
fn ip_options_move_the_ports() {
    let mut loaded = Loaded::new();
    for words in 1..=10_usize {
        for to in [tcp(21), udp(69), tcp(22)] {
            let bytes = frame_v4(to, |header| {
                header.options = Ipv4Options::try_from(&vec![1; words * 4][..]).unwrap();
            });
            let expected = (to.port != 22).then_some(to);
            loaded.check(&format!("{to:?}, {words} option words"), &bytes, expected);
        }
    }
    for words in 0..5 {
        let mut bytes = frame(Ip::V4, tcp(21), b"payload");
        bytes[ETHERNET_HEADER] = 0x40 | words;
        loaded.check(&format!("header of {words} words"), &bytes, None);
    }
}

#[test]
fn ipv6_extension_headers_move_the_ports() {
    let mut loaded = Loaded::new();
    // Hop-by-hop, routing, fragment, destination options; 135 is mobility.
    for number in [0, 43, 44, 60, 135] {
        for count in 1..=MOST_HEADERS + 1 {
            for to in [tcp(21), udp(69), tcp(22)] {
                let bytes = frame_v6(to, &vec![(number, [0; 4]); count]);
                let is_ours = to.port != 22 && number != 135 && count <= MOST_HEADERS;
                let what = format!("{to:?}, {count} of {number}");
                loaded.check(&what, &bytes, is_ours.then_some(to));
            }
        }
    }
}

#[test]
fn what_is_not_tcp_or_udp_over_ip_is_nobodys() {
    let mut loaded = Loaded::new();
    for ip in BOTH {
        let good = frame(ip, tcp(21), b"payload");
        let mut check_with = |what: String, at: usize, damage: &[u8]| {
            let mut bytes = good.clone();
            bytes[at..at + damage.len()].copy_from_slice(damage);
            loaded.check(&format!("{ip:?}, {what}"), &bytes, None);
        };
        for number in (0..=255).filter(|number| ![6, 17].contains(number)) {
            check_with(format!("protocol {number}"), ip.next_at(), &[number]);
        }
        // ARP, IEEE 802.1Q and 802.1ad, MPLS, PPPoE, IEEE 802.2, the other IP.
        let other = match ip {
            Ip::V4 => 0x86dd,
            Ip::V6 => 0x0800,
        };
        for ethertype in [0x0806_u16, 0x8847, 0x8864, 0x0040, 0, 0xffff, other] {
            let what = format!("EtherType {ethertype:#06x}");
            check_with(what, 12, &ethertype.to_be_bytes());
        }
        for version in (0..16).filter(|version| *version != ip.version()) {
            let first = (version << 4) | (good[ETHERNET_HEADER] & 0x0f);
            check_with(format!("version {version}"), ETHERNET_HEADER, &[first]);
        }
    }
}

/// Counters are kept in groups, and a slot's go on counting when another rule
/// takes it: each rule sees its own packets all the same.
#[test]
fn every_rule_counts_from_its_own_beginning() {
    let mut loaded = Loaded::new();
    for (what, ports, sends, kept, new) in [
        ("the first rules", 100..131, true, 1, 1),
        ("half of the slots get other rules", 116..147, false, 1, 0),
        ("packets to all of them", 116..147, true, 2, 1),
    ] {
        loaded.put(&ports.clone().map(|port| (tcp(port), 1)).collect());
        for port in ports.clone().filter(|_| sends) {
            for _ in 0..port % 7 {
                loaded.run(&frame(Ip::V4, tcp(port), b"x"), 0);
            }
        }
        for port in ports {
            let times = if port < 131 { kept } else { new };
            let counters = loaded.instance.counters(tcp(port)).unwrap();
            let packets = counters.map(|counters| counters.packets);
            assert_eq!(packets, Some(u64::from(port % 7) * times), "{what}: {port}");
        }
    }
    assert_eq!(loaded.instance.counters(tcp(115)).unwrap(), None);
}

#[test]
fn an_empty_port_table_hits_nothing() {
    let mut loaded = Loaded::new();
    loaded.put(&Wanted::new());
    for (rule, _) in RULES {
        assert_eq!(loaded.run(&frame(Ip::V4, rule, b"x"), MASK | 5), 5);
        assert_eq!(loaded.instance.counters(rule).unwrap(), None);
    }
}

/// A frame that is good but for a few bytes, or its end.
fn nearly_good() -> impl Strategy<Value = Vec<u8>> {
    proptest::sample::select(&BOTH[..]).prop_flat_map(|ip| {
        let damage = proptest::collection::vec((12_usize..64, any::<u8>()), 0..4);
        let end = ip.end()..80;
        (0..RULES.len(), any::<bool>(), damage, end).prop_map(move |(rule, hit, damage, end)| {
            let mut to = RULES[rule].0;
            to.port = if hit { to.port } else { to.port ^ 1 };
            let mut bytes = frame(ip, to, &[0; 16]);
            for (at, value) in damage {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            bytes.truncate(end);
            bytes
        })
    })
}

#[test]
fn program_and_host_agree_on_damaged_frames() {
    let loaded = RefCell::new(Loaded::new());
    let mut runner = TestRunner::new(ProptestConfig::with_cases(4096));
    let outcome = runner.run(&nearly_good(), |bytes| {
        // A VLAN tag is taken off before the program sees the packet, so
        // what the program is asked about is not what the frame says.
        prop_assume!(![[0x81, 0x00], [0x88, 0xa8]].contains(&[bytes[12], bytes[13]]));
        let v6 = [bytes[12], bytes[13]] == [0x86, 0xdd];
        prop_assume!(!v6 || bytes.len() >= Ip::V6.end());
        let mut loaded = loaded.borrow_mut();
        let expected = loaded.on_host(&bytes);
        prop_assert_eq!(loaded.run(&bytes, 0) >> 24, expected);
        Ok(())
    });
    outcome.unwrap();
}
