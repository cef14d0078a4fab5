//! The loaded program itself, packet by packet, by `BPF_PROG_TEST_RUN`.
//!
//! Frames come from etherparse's builder, which is not the parser under test.
//! After each run everything is checked: the mark, every rule's counters, that
//! the frame is as it was, and that the host's parser says the same.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use aya::programs::{ProgramError, TestRun as _, TestRunOptions};
use conntrack_agent::{
    kernel::{AgentId, Build, Carrier, Instance, MarkBits, Object, Usable},
    port_table::{Capacity, Image, Wanted, plan},
};
use conntrack_ebpf::{
    abi::{Counters, Destination, Protocol},
    lookup::lookup,
    parse::{self, ETHERNET_HEADER, MOST_HEADERS},
};
use conntrack_tests::lab::Lab;
use etherparse::{
    IpFragOffset, IpNumber, Ipv4Extensions, Ipv4Header, Ipv4Options, PacketBuilder, TcpHeader,
    UdpHeader,
};
use proptest::prelude::*;
use uuid::Uuid;

const MASK: u32 = 0xff00_0000;

/// The least that `BPF_PROG_TEST_RUN` takes: an IP header without options where
/// the EtherType says IP, a byte elsewhere (`bpf_prog_test_run_skb`,
/// `net/bpf/test_run.c`). What is shorter goes over a real interface,
/// in truncated.rs.
fn shortest(ip: Ip) -> usize {
    match ip {
        Ip::V4 => ETHERNET_HEADER + 20,
        Ip::V6 => ETHERNET_HEADER + 40,
    }
}

const fn tcp(port: u16) -> Destination {
    Destination {
        protocol: Protocol::Tcp,
        port,
    }
}

const fn udp(port: u16) -> Destination {
    Destination {
        protocol: Protocol::Udp,
        port,
    }
}

/// Ports at both ends, on both sides of a page boundary, and one that both
/// protocols have; each with a mark of its own.
const RULES: [(Destination, u32); 9] = [
    (tcp(1), 1),
    (tcp(21), 2),
    (tcp(255), 3),
    (tcp(256), 4),
    (tcp(65535), 5),
    (udp(69), 6),
    (udp(5060), 7),
    (tcp(5060), 8),
    (udp(65535), 12),
];

/// A loaded instance in a bpffs of its own.
struct Loaded {
    instance: Instance,
    image: Image,
    /// Dropped last: its bpffs holds the pins.
    _lab: Lab,
}

impl Loaded {
    fn new() -> Self {
        let lab = Lab::new();
        let folder = lab.dir().bpf_dir().join("instance");
        let router = Uuid::new_v4().to_string().parse().unwrap();
        let mut object = Object::new(
            Build::built_in(),
            AgentId::random(),
            MarkBits::new(MASK).unwrap(),
            lab.dir().bpf_dir().join("shared"),
        );
        Instance::create(
            &mut object,
            &folder,
            router,
            Capacity::DEFAULT,
            Carrier::Mark,
        )
        .unwrap();
        let Usable::Whole(mut instance) = Instance::open(&folder).unwrap() else {
            panic!("the instance that was just made isn't whole");
        };
        let wanted = Wanted::from(RULES);
        let edit = plan(&instance.image().unwrap(), &wanted).unwrap();
        instance.edit(&edit).unwrap();
        let image = instance.image().unwrap();
        Self {
            instance,
            image,
            _lab: lab,
        }
    }

    fn counters(&self) -> Vec<Counters> {
        RULES
            .iter()
            .map(|(rule, _)| self.instance.counters(*rule).unwrap().expect("a rule"))
            .collect()
    }

    /// Runs the program on a frame that arrives with `mark`; what it leaves in
    /// the mark, where it leaves the priority alone. The frame must come out as
    /// it went in.
    fn run(&mut self, frame: &[u8], mark: u32) -> u32 {
        self.try_run(frame, mark).unwrap()
    }

    /// The same, where the kernel may find the frame too short to run on.
    fn try_run(&mut self, frame: &[u8], mark: u32) -> Result<u32, ProgramError> {
        const PRIORITY: u32 = 0x0102_0304;
        let (mark, priority) = self.run_with(frame, mark, PRIORITY)?;
        assert_eq!(priority, PRIORITY, "the priority was changed");
        Ok(mark)
    }

    /// Runs it on a frame with this mark and this priority; what becomes of them.
    fn run_with(
        &mut self,
        frame: &[u8],
        mark: u32,
        priority: u32,
    ) -> Result<(u32, u32), ProgramError> {
        const MARK_AT: usize = 8; // offsetof(struct __sk_buff, mark)
        const PRIORITY_AT: usize = 32; // offsetof(struct __sk_buff, priority)
        const CB_AT: usize = 48; // offsetof(struct __sk_buff, cb)
        const CB_END: usize = 68;
        const TSTAMP_AT: usize = 152; // offsetof(struct __sk_buff, tstamp)
        const UNSPEC: u32 = u32::MAX; // TC_ACT_UNSPEC, -1
        let mut context = [0; 256];
        context[MARK_AT..MARK_AT + 4].copy_from_slice(&mark.to_ne_bytes());
        // The other metadata that a test may set, each to something of its own.
        context[PRIORITY_AT..PRIORITY_AT + 4].copy_from_slice(&priority.to_ne_bytes());
        context[CB_AT..CB_END].copy_from_slice(&[0xcb; CB_END - CB_AT]);
        context[TSTAMP_AT..TSTAMP_AT + 8].copy_from_slice(&0x0506_0708_u64.to_ne_bytes());
        let mut context_out = [0; 256];
        let mut frame_out = vec![0; frame.len()];
        let result = self.instance.program().test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut frame_out),
            ctx_in: Some(&context[..TSTAMP_AT + 8]),
            ctx_out: Some(&mut context_out),
            ..TestRunOptions::default()
        })?;
        assert_eq!(result.return_value, UNSPEC, "the verdict is never ours");
        assert_eq!(frame_out, frame, "the frame was changed");
        for part in [CB_AT..CB_END, TSTAMP_AT..TSTAMP_AT + 8] {
            let (before, after) = (&context[part.clone()], &context_out[part.clone()]);
            assert_eq!(before, after, "metadata at {part:?} was changed");
        }
        let word = |at: usize| {
            let word = context_out[at..at + 4].try_into().unwrap();
            u32::from_ne_bytes(word)
        };
        Ok((word(MARK_AT), word(PRIORITY_AT)))
    }

    /// One row: this frame belongs to this rule, or to none.
    fn check(&mut self, what: &str, frame: &[u8], expected: Option<Destination>) {
        let helper_mark = expected.map_or(0, |at| Wanted::from(RULES)[&at]);
        for arriving in [0, 0x0400_0002 & !MASK, MASK, 0x7f00_0001, u32::MAX] {
            let before = self.counters();
            let left = self.run(frame, arriving);
            assert_eq!(
                left,
                (arriving & !MASK) | (helper_mark << 24),
                "{what}: mark {arriving:#x} became {left:#x}"
            );
            let after = self.counters();
            for (index, (rule, _)) in RULES.iter().enumerate() {
                let mut wanted = before[index];
                if expected == Some(*rule) {
                    wanted.packets += 1;
                    wanted.bytes += (frame.len() - ETHERNET_HEADER) as u64;
                }
                assert_eq!(after[index], wanted, "{what}: counters of {rule:?}");
            }
        }
        assert_eq!(self.on_host(frame), helper_mark, "{what}: on the host");
        self.check_carriers(what, frame, helper_mark);
    }

    /// Whichever carrier is used: the helper mark is in that one, and neither has
    /// a bit of ours beyond that, whatever the frame has brought along. What is
    /// anybody's stays.
    fn check_carriers(&mut self, what: &str, frame: &[u8], helper_mark: u32) {
        const FORGED: u32 = 0xc000_0030;
        for carrier in [Carrier::Mark, Carrier::Priority] {
            self.instance.set_carrier(carrier).unwrap();
            for (mark, priority, left) in [
                (0, 0, 0),
                (MASK, FORGED, 0),
                (0, 0xc000_0000, 0),
                (0, 0xc000_0ff0, 0),
                (0x12, 6, 6),
                (0, 0xc000_0031, 0xc000_0031),
                (0, 0xc000_1030, 0xc000_1030),
                (0, 0x4000_0030, 0x4000_0030),
                (u32::MAX, u32::MAX, u32::MAX),
            ] {
                let wanted = match carrier {
                    Carrier::Mark => ((mark & !MASK) | (helper_mark << 24), left),
                    Carrier::Priority if helper_mark == 0 => (mark & !MASK, left),
                    Carrier::Priority => (mark & !MASK, 0xc000_0000 | (helper_mark << 4)),
                };
                assert_eq!(
                    self.run_with(frame, mark, priority).unwrap(),
                    wanted,
                    "{what}: mark {mark:#x}, priority {priority:#x}, by {carrier:?}"
                );
            }
        }
        self.instance.set_carrier(Carrier::Mark).unwrap();
    }

    /// The same parser and lookup, outside of the kernel; 0 for no rule.
    fn on_host(&self, frame: &[u8]) -> u32 {
        let ethertype = frame
            .get(12..14)
            .map_or(0, |bytes| u16::from_be_bytes(bytes.try_into().unwrap()));
        parse::control(frame, ethertype, ETHERNET_HEADER)
            .ok()
            .and_then(|control| lookup(&self.image, control.destination))
            .map_or(0, |hit| hit.mark.get())
    }
}

#[derive(Clone, Copy, Debug)]
enum Ip {
    V4,
    V6,
}

const BOTH: [Ip; 2] = [Ip::V4, Ip::V6];

fn frame(ip: Ip, to: Destination, payload: &[u8]) -> Vec<u8> {
    // A source port that has a rule must not matter.
    const FROM: u16 = 21;
    let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let packet = match ip {
        Ip::V4 => ethernet.ipv4([10, 0, 1, 2], [10, 0, 2, 2], 64),
        Ip::V6 => ethernet.ipv6([0xfd; 16], [0xfc; 16], 64),
    };
    let mut bytes = Vec::new();
    match to.protocol {
        Protocol::Tcp => packet
            .tcp(FROM, to.port, 1, 1000)
            .write(&mut bytes, payload),
        Protocol::Udp => packet.udp(FROM, to.port).write(&mut bytes, payload),
    }
    .unwrap();
    bytes
}

/// IPv4 with the header that the caller wants, around a TCP or UDP header.
fn frame_v4(to: Destination, change: impl FnOnce(&mut Ipv4Header)) -> Vec<u8> {
    let mut transport = Vec::new();
    let number = match to.protocol {
        Protocol::Tcp => {
            let header = TcpHeader::new(21, to.port, 1, 1000);
            header.write(&mut transport).unwrap();
            IpNumber::TCP
        }
        Protocol::Udp => {
            let header = UdpHeader::without_ipv4_checksum(21, to.port, 0).unwrap();
            header.write(&mut transport).unwrap();
            IpNumber::UDP
        }
    };
    let mut header = Ipv4Header::new(0, 64, number, [10, 0, 1, 2], [10, 0, 2, 2]).unwrap();
    change(&mut header);
    // Behind the options that it has now.
    header.set_payload_len(transport.len()).unwrap();
    let mut bytes = vec![2; 12];
    bytes.extend(0x0800_u16.to_be_bytes());
    header.write_raw(&mut bytes).unwrap();
    Ipv4Extensions::default()
        .write(&mut bytes, header.protocol)
        .unwrap();
    bytes.extend(transport);
    bytes
}

/// IPv6 with extension headers of 8 bytes before the TCP or UDP header: the number
/// of each, and what its last bytes are, from the fragment offset on.
fn frame_v6(to: Destination, headers: &[(u8, [u8; 4])]) -> Vec<u8> {
    let bytes = frame(Ip::V6, to, b"payload");
    let (start, transport) = bytes.split_at(ETHERNET_HEADER + 40);
    let mut bytes = start.to_vec();
    let mut next_at = ETHERNET_HEADER + 6;
    let last = std::mem::replace(&mut bytes[next_at], 0);
    for (number, [low, rest @ ..]) in headers {
        bytes[next_at] = *number;
        next_at = bytes.len();
        bytes.extend([last, 0, 0, *low, rest[0], rest[1], rest[2], 0]);
    }
    bytes.extend(transport);
    let length = u16::try_from(bytes.len() - ETHERNET_HEADER - 40).unwrap();
    bytes[ETHERNET_HEADER + 4..ETHERNET_HEADER + 6].copy_from_slice(&length.to_be_bytes());
    bytes
}

fn header_length(ip: Ip, protocol: Protocol) -> usize {
    let network = match ip {
        Ip::V4 => 20,
        Ip::V6 => 40,
    };
    let transport = match protocol {
        Protocol::Tcp => 20,
        Protocol::Udp => 8,
    };
    ETHERNET_HEADER + network + transport
}

#[test]
fn a_ruled_port_is_hit_and_its_neighbours_are_not() {
    let mut loaded = Loaded::new();
    let rules = RULES.map(|(rule, _)| rule);
    for ip in BOTH {
        for rule in rules {
            let neighbours = [
                rule.port.wrapping_sub(1),
                rule.port.wrapping_add(1),
                rule.port ^ 0x0100,
                rule.port.swap_bytes(),
                0,
            ];
            for port in [rule.port].into_iter().chain(neighbours) {
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    let to = Destination { protocol, port };
                    let expected = rules.contains(&to).then_some(to);
                    let what = format!("{ip:?} {to:?}");
                    loaded.check(&what, &frame(ip, to, b"payload"), expected);
                }
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
            for (to, expected) in [
                (tcp(21), Some(tcp(21))),
                (udp(69), Some(udp(69))),
                (tcp(22), None),
            ] {
                for payload in [0, 1, 64, 1400] {
                    let mut bytes = frame(ip, to, &vec![0; payload]);
                    bytes[0] = first;
                    let what = format!("{ip:?} {to:?}, address {first:#04x}, {payload} bytes");
                    loaded.check(&what, &bytes, expected);
                }
            }
        }
    }
}

#[test]
fn a_packet_that_ends_in_a_header_is_nobodys() {
    let mut loaded = Loaded::new();
    for ip in BOTH {
        for to in [tcp(21), udp(69)] {
            let whole = frame(ip, to, &[]);
            let full = header_length(ip, to.protocol);
            assert_eq!(whole.len(), full);
            for length in shortest(ip)..=full {
                let what = format!("{ip:?} {to:?}, {length} bytes");
                loaded.check(&what, &whole[..length], (length == full).then_some(to));
            }
            for length in 0..shortest(ip) {
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
        for (offset, more, expected) in [
            (0, false, Some(to)),
            (0, true, Some(to)),
            (1, true, None),
            (1, false, None),
            (0x1fff, false, None),
        ] {
            let bytes = frame_v4(to, |header| {
                header.fragment_offset = IpFragOffset::try_new(offset).unwrap();
                header.more_fragments = more;
            });
            let what = format!("{to:?}, fragment at {offset}, more {more}");
            loaded.check(&what, &bytes, expected);
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
        let at = match ip {
            Ip::V4 => ETHERNET_HEADER + 9,
            Ip::V6 => ETHERNET_HEADER + 6,
        };
        for number in (0..=255).filter(|number| ![6, 17].contains(number)) {
            let mut bytes = good.clone();
            bytes[at] = number;
            loaded.check(&format!("{ip:?}, protocol {number}"), &bytes, None);
        }
        // ARP, IEEE 802.1Q and 802.1ad, MPLS, PPPoE, IEEE 802.2, the other IP.
        let other = match ip {
            Ip::V4 => 0x86dd,
            Ip::V6 => 0x0800,
        };
        for ethertype in [0x0806_u16, 0x8847, 0x8864, 0x0040, 0, 0xffff, other] {
            let mut bytes = good.clone();
            bytes[12..14].copy_from_slice(&ethertype.to_be_bytes());
            loaded.check(&format!("{ip:?}, EtherType {ethertype:#06x}"), &bytes, None);
        }
        for version in (0..16).filter(|version| match ip {
            Ip::V4 => *version != 4,
            Ip::V6 => *version != 6,
        }) {
            let mut bytes = good.clone();
            bytes[ETHERNET_HEADER] = (version << 4) | (bytes[ETHERNET_HEADER] & 0x0f);
            loaded.check(&format!("{ip:?}, version {version}"), &bytes, None);
        }
    }
}

/// Counters are kept in groups, and a slot's go on counting when another rule
/// takes it: each rule sees its own packets all the same.
#[test]
fn every_rule_counts_from_its_own_beginning() {
    let to = |port| Destination {
        protocol: Protocol::Tcp,
        port,
    };
    let mut loaded = Loaded::new();
    let put = |loaded: &mut Loaded, ports: std::ops::Range<u16>| {
        let wanted: Wanted = ports.map(|port| (to(port), 1)).collect();
        let edit = plan(&loaded.instance.image().unwrap(), &wanted).unwrap();
        loaded.instance.edit(&edit).unwrap();
    };
    let send = |loaded: &mut Loaded, ports: std::ops::Range<u16>| {
        for port in ports {
            for _ in 0..port % 7 {
                loaded.run(&frame(Ip::V4, to(port), b"x"), 0);
            }
        }
    };
    let packets = |loaded: &Loaded, port| {
        let counters = loaded.instance.counters(to(port)).unwrap();
        counters.map(|counters| counters.packets)
    };
    put(&mut loaded, 100..131);
    send(&mut loaded, 100..131);
    for port in 100..131 {
        assert_eq!(packets(&loaded, port), Some(u64::from(port % 7)), "{port}");
    }
    // Half of the slots get other rules.
    put(&mut loaded, 116..147);
    for port in 116..147 {
        let before = if port < 131 { port % 7 } else { 0 };
        assert_eq!(packets(&loaded, port), Some(u64::from(before)), "{port}");
    }
    send(&mut loaded, 116..147);
    for port in 116..147 {
        let times = if port < 131 { 2 } else { 1 };
        assert_eq!(
            packets(&loaded, port),
            Some(u64::from(port % 7) * times),
            "{port}"
        );
    }
    assert_eq!(packets(&loaded, 115), None);
}

#[test]
fn an_empty_port_table_hits_nothing() {
    let mut loaded = Loaded::new();
    let edit = plan(&loaded.image, &Wanted::new()).unwrap();
    loaded.instance.edit(&edit).unwrap();
    for (rule, _) in RULES {
        assert_eq!(loaded.run(&frame(Ip::V4, rule, b"x"), MASK | 5), 5);
        assert_eq!(loaded.instance.counters(rule).unwrap(), None);
    }
}

/// A frame that is good but for a few bytes, or its end.
fn nearly_good() -> impl Strategy<Value = Vec<u8>> {
    proptest::sample::select(&BOTH[..]).prop_flat_map(|ip| {
        let damage = proptest::collection::vec((12_usize..64, any::<u8>()), 0..4);
        let end = shortest(ip)..80;
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
    let mut loaded = Loaded::new();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(4096));
    let loaded = std::cell::RefCell::new(&mut loaded);
    runner
        .run(&nearly_good(), |bytes| {
            // A VLAN tag is taken off before the program sees the packet, so
            // what the program is asked about is not what the frame says.
            prop_assume!(![[0x81, 0x00], [0x88, 0xa8]].contains(&[bytes[12], bytes[13]]));
            let v6 = [bytes[12], bytes[13]] == [0x86, 0xdd];
            prop_assume!(!v6 || bytes.len() >= shortest(Ip::V6));
            let mut loaded = loaded.borrow_mut();
            let expected = loaded.on_host(&bytes);
            prop_assert_eq!(loaded.run(&bytes, 0) >> 24, expected);
            Ok(())
        })
        .unwrap();
}
