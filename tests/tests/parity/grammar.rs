//! Packets at random, near to what helper rules are about.

use std::net::IpAddr;

use conntrack_agent::model::Helper;
use conntrack_tests::ctnetlink::Tuple;
use conntrack_tests::helpers::{Protocol, Rule};
use fastrand::Rng;

use crate::damage;
use crate::dialogue;
use crate::fragments::cut;
use crate::network::{
    DESTINATION_OPTIONS, Extension, FRAGMENT, HOP_BY_HOP, MOBILITY, Packet, ROUTING, sum_ipv4,
};
use crate::transport::{
    ACK, AH, ESP, FIN, GRE, ICMP, ICMPV6, PSH, Ports, RST, SCTP, SYN, Segment, TCP, UDP, UDP_LITE,
};
use crate::wire::{Family, Frame, HOSTS, ROUTER, Side};

/// As long as a frame may be: more than a page, so that some have their headers
/// outside of the socket buffer's linear part (`packet_alloc_skb`).
pub(crate) const MTU: usize = 9000;

/// Two ends, and what was sent between them first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    pub(crate) from: Side,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) ports: Ports,
    pub(crate) sequence: u32,
}

/// Frames that belong together.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// The ports that its packets are between, in either direction.
    pub(crate) ports: Vec<Ports>,
    pub(crate) frames: Vec<Frame>,
    /// The flow that begins with it and that arrives in fragments, whole.
    pub(crate) fragmented: Option<Flow>,
}

impl Step {
    /// Whether packets of it belong to this connection.
    pub(crate) fn concerns(&self, tuple: &Tuple) -> bool {
        let ports = Ports {
            source: tuple.source_port,
            destination: tuple.destination_port,
        };
        let mut own = self.ports.iter();
        own.any(|own| *own == ports || own.reversed() == ports)
    }
}

/// Makes steps.
pub(crate) struct Grammar<'a> {
    pub(crate) rng: Rng,
    pub(crate) family: Family,
    rules: &'a [Rule],
    flows: Vec<Flow>,
    /// Of fragmented packets: never used twice in a run.
    id: u32,
}

impl<'a> Grammar<'a> {
    pub(crate) fn new(family: Family, rules: &'a [Rule], seed: u64, id: u32) -> Self {
        Self {
            rng: Rng::with_seed(seed),
            family,
            rules,
            flows: Vec::new(),
            id,
        }
    }

    /// Steps with at least so many frames in all.
    pub(crate) fn steps(&mut self, frames: usize) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut made = 0;
        while made < frames {
            let step = self.step();
            made += step.frames.len();
            steps.push(step);
        }
        steps
    }

    fn step(&mut self) -> Step {
        match self.rng.u8(..100) {
            0..60 => self.opening(),
            60..82 => self.continuing(),
            82..88 => self.error(),
            88..96 => self.stranger(),
            96 | 97 => dialogue::ftp(self),
            _ => dialogue::tftp(self),
        }
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.rng.usize(..from.len())]
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.rng.u8(..)).collect()
    }

    /// Its port, if there is a rule for this protocol and helper.
    pub(crate) fn ruled(&mut self, protocol: Protocol, helper: Option<&str>) -> Option<u16> {
        let is_such = |rule: &&Rule| {
            rule.protocol == protocol && helper.is_none_or(|helper| rule.helper == helper)
        };
        let ports: Vec<_> = self
            .rules
            .iter()
            .filter(is_such)
            .map(|rule| rule.port)
            .collect();
        (!ports.is_empty()).then(|| self.pick(&ports))
    }

    /// A port on a rule, near to one, or anywhere.
    fn port(&mut self) -> u16 {
        let ports: Vec<_> = self.rules.iter().map(|rule| rule.port).collect();
        if ports.is_empty() {
            return self.rng.u16(..);
        }
        let ruled = self.pick(&ports);
        match self.rng.u8(..12) {
            0..6 => ruled,
            6 => ruled.wrapping_add(1),
            7 => ruled.wrapping_sub(1),
            8 => ruled.swap_bytes(),
            9 => {
                let [high, low] = ruled.to_be_bytes();
                let byte = self.pick(&[high, low]);
                u16::from_be_bytes([byte, byte])
            }
            _ => self.rng.u16(..),
        }
    }

    fn side(&mut self) -> Side {
        if self.rng.u8(..5) == 0 {
            Side::Server
        } else {
            Side::Client
        }
    }

    pub(crate) fn host(&mut self, side: Side) -> IpAddr {
        let number = self.pick(&HOSTS);
        side.address(self.family, number)
    }

    /// Two ends, nothing sent yet.
    pub(crate) fn flow(&mut self, protocol: u8) -> Flow {
        let from = self.side();
        let destination = if self.rng.u8(..50) == 0 {
            from.address(self.family, ROUTER)
        } else {
            self.host(from.other())
        };
        let source = if self.rng.u8(..16) == 0 {
            self.port()
        } else {
            self.rng.u16(1024..)
        };
        Flow {
            from,
            source: self.host(from),
            destination,
            protocol,
            ports: Ports {
                source,
                destination: self.port(),
            },
            sequence: self.rng.u32(..),
        }
    }

    fn opening(&mut self) -> Step {
        let protocol = if self.rng.u8(..5) < 3 { TCP } else { UDP };
        let flow = self.flow(protocol);
        let segment = if protocol == TCP {
            let flags = match self.rng.u8(..100) {
                0..55 => SYN,
                55..60 => SYN | 0xc0,
                60..70 => ACK,
                70..78 => PSH | ACK,
                78..82 => SYN | ACK,
                82..85 => RST,
                85..87 => RST | ACK,
                87..89 => FIN,
                89..92 => FIN | ACK,
                92..94 => SYN | FIN,
                94 => 0,
                _ => self.rng.u8(..),
            };
            self.tcp(&flow, false, flags)
        } else {
            self.datagram(flow.ports)
        };
        self.flows.push(flow);
        self.sent(&flow, false, segment, true)
    }

    /// A further packet of a flow, in either direction.
    fn continuing(&mut self) -> Step {
        let Some(flow) = self.some_flow() else {
            return self.opening();
        };
        let reply = self.rng.u8(..3) > 0;
        let segment = if flow.protocol == TCP {
            let often = [SYN | ACK, ACK, PSH | ACK, FIN | ACK, RST, RST | ACK];
            let flags = match self.rng.u8(..8) {
                0..3 if reply => SYN | ACK,
                0..7 => self.pick(&often),
                _ => self.rng.u8(..),
            };
            self.tcp(&flow, reply, flags)
        } else {
            let ports = if reply {
                flow.ports.reversed()
            } else {
                flow.ports
            };
            self.datagram(ports)
        };
        self.sent(&flow, reply, segment, false)
    }

    fn some_flow(&mut self) -> Option<Flow> {
        if self.flows.is_empty() {
            return None;
        }
        // Rather a late one: TCP's go on packet by packet.
        let count = self.flows.len();
        let back = if self.rng.bool() { count.min(8) } else { count };
        Some(self.flows[count - 1 - self.rng.usize(..back)])
    }

    fn tcp(&mut self, flow: &Flow, reply: bool, flags: u8) -> Segment {
        // The reply's numbers are derived from the flow's, so that a
        // handshake's fit together.
        let theirs = flow.sequence.rotate_left(7);
        let near = |rng: &mut Rng| u32::from(rng.u8(..) & 1);
        let (ports, [sequence, acknowledged]) = if reply {
            (flow.ports.reversed(), [theirs, flow.sequence])
        } else {
            (flow.ports, [flow.sequence, theirs])
        };
        let sequence = match flags & SYN {
            0 => sequence.wrapping_add(near(&mut self.rng)),
            _ => sequence,
        };
        let acknowledged = match flags & ACK {
            0 => 0,
            _ => acknowledged.wrapping_add(1),
        };
        let options = match self.rng.u8(..8) {
            0 => vec![2, 4, 5, 0xb4],
            1 => vec![2, 4, 5, 0xb4, 4, 2, 1, 1, 1, 3, 3, 7],
            2 => vec![1; 4 * self.rng.usize(..=10)],
            // Whatever it is, a helper rule doesn't look at it.
            3 => {
                let count = 4 * self.rng.usize(..=10);
                self.bytes(count)
            }
            _ => Vec::new(),
        };
        let payload = match flags & SYN {
            0 => self.payload(),
            _ => Vec::new(),
        };
        Segment::tcp(ports, [sequence, acknowledged], flags)
            .options(options)
            .payload(&payload)
    }

    fn datagram(&mut self, ports: Ports) -> Segment {
        let payload = self.payload();
        let segment = Segment::udp(ports, &payload);
        if self.rng.u8(..10) == 0 {
            return segment.unsummed();
        }
        segment
    }

    fn payload(&mut self) -> Vec<u8> {
        let count = match self.rng.u16(..200) {
            0..80 => 0,
            80..195 => self.rng.usize(1..80),
            195..199 => self.rng.usize(1..1200),
            _ => self.rng.usize(4100..8000),
        };
        self.bytes(count)
    }

    /// An ICMP error about a flow, from the other side or from the same.
    fn error(&mut self) -> Step {
        let Some(flow) = self.some_flow() else {
            return self.opening();
        };
        let (from, source, destination) = if self.rng.u8(..6) == 0 {
            (flow.from, flow.source, flow.destination)
        } else {
            (flow.from.other(), flow.destination, flow.source)
        };
        let about_reply = self.rng.u8(..6) == 0;
        let segment = if flow.protocol == TCP {
            self.tcp(&flow, about_reply, SYN)
        } else {
            let ports = if about_reply {
                flow.ports.reversed()
            } else {
                flow.ports
            };
            Segment::udp(ports, &[])
        };
        let quoted = if about_reply {
            Packet::plain(flow.destination, flow.source, segment)
        } else {
            Packet::plain(flow.source, flow.destination, segment)
        };
        let mut quoted = quoted.whole(self.rng.u16(..));
        quoted.truncate(self.rng.usize(24..=quoted.len()));
        let (protocol, kinds) = match self.family {
            Family::V4 => (ICMP, [3, 4, 5, 11, 12]),
            Family::V6 => (ICMPV6, [1, 2, 3, 4, 137]),
        };
        let kind = self.pick(&kinds);
        let mut bytes = vec![kind, self.rng.u8(..4), 0, 0, 0, 0, 0, 0];
        bytes.extend(quoted);
        let error = Flow {
            from,
            source,
            destination,
            protocol,
            ..flow
        };
        self.sent(&error, false, Segment::icmp(protocol, bytes), false)
    }

    /// What no helper rule is about, often with something inside that one would
    /// be about.
    fn stranger(&mut self) -> Step {
        let flow = self.flow(TCP);
        let tag = self.rng.u32(..);
        let inner = match self.rng.u8(..3) {
            0 => self.tcp(&flow, false, SYN),
            1 => Segment::udp(flow.ports, &[]),
            _ => Segment::udp(flow.ports, &[0; 8]),
        };
        let transport = inner.between(flow.source, flow.destination);
        let inner_packet = Packet::plain(flow.source, flow.destination, inner);
        let whole = inner_packet.whole(self.rng.u16(..));
        let in_ip = match self.family {
            Family::V4 => 4,
            Family::V6 => 41,
        };
        let (echo, icmp) = match self.family {
            Family::V4 => (8, ICMP),
            Family::V6 => (128, ICMPV6),
        };
        let segment = match self.rng.u8(..10) {
            0 => Segment::udp_lite(flow.ports, &[0; 4]),
            1 => Segment::sctp(flow.ports, tag | 1),
            2 => Segment::icmp(icmp, vec![echo, 0, 0, 0, 1, 2, 3, 4]),
            // Ports, as it were.
            3 => Segment::icmp(icmp, [vec![echo, 0, 0, 0], transport].concat()),
            4 => {
                let number = if self.rng.bool() { TCP } else { UDP };
                let mut header = vec![number, 4, 0, 0];
                header.extend([0x12; 20]);
                Segment::raw(AH, [header, transport].concat())
            }
            5 => Segment::raw(ESP, transport),
            6 => Segment::raw(GRE, [vec![0, 0, 8, 0], whole].concat()),
            7 => Segment::raw(in_ip, whole),
            8 => Segment::raw(59, transport),
            _ => {
                let number = self.pick(&[2, 33, 89, 103, 112, 200, 253, 255, UDP_LITE, SCTP, GRE]);
                Segment::raw(number, transport)
            }
        };
        self.sent(&flow, false, segment, false)
    }

    /// The step of one packet: in which headers, in how many fragments, how
    /// damaged.
    fn sent(&mut self, flow: &Flow, reply: bool, segment: Segment, opens: bool) -> Step {
        let (from, source, destination) = if reply {
            (flow.from.other(), flow.destination, flow.source)
        } else {
            (flow.from, flow.source, flow.destination)
        };
        let mut packet = Packet::plain(source, destination, segment);
        if self.rng.u8(..4) == 0 {
            match self.family {
                Family::V4 => packet.options = self.options(),
                Family::V6 => packet.chain = self.chain(),
            }
        }
        let is_plain = packet.options.is_empty() && packet.chain.is_empty();
        let tags = self.tags();
        let mut fragmented = None;
        let mut packets = Vec::new();
        let mut may_wait = packet.chain.iter().any(|each| each.number == FRAGMENT);
        if self.rng.u8(..8) == 0 {
            may_wait = true;
            let kept = self.rng.usize(..=packet.chain.len());
            let (_, bytes) = packet.fragmentable(kept);
            let cut = cut(&mut self.rng, &bytes);
            if cut.is_clean && cut.pieces.len() > 1 && is_plain && opens && tags.is_empty() {
                fragmented = Some(*flow);
            }
            let id = self.id;
            self.id = id.wrapping_add(1);
            packets.extend(
                cut.pieces
                    .iter()
                    .map(|piece| packet.fragment(kept, id, piece)),
            );
        } else {
            packets.push(packet.whole(self.rng.u16(..)));
        }
        // Fragments are damaged for long by the lack of one.
        if self.rng.u8(..9) == 0 && !packets.is_empty() {
            let at = self.rng.usize(..packets.len());
            damage::packet(&mut self.rng, self.family, &mut packets[at]);
            fragmented = None;
        }
        let family = self.family;
        let frames = packets
            .iter()
            .map(|packet| Frame {
                may_wait,
                ..Frame::new(from, family, &tags, packet)
            })
            // A packet socket sends nothing that is only an Ethernet header.
            .filter(|frame| (15..=14 + MTU).contains(&frame.bytes.len()));
        Step {
            ports: vec![flow.ports],
            frames: frames.collect(),
            fragmented,
        }
    }

    /// Rarely any. Number 0 says nothing but a priority (IEEE 802.1Q), and the
    /// kernel takes such a frame for an untagged one.
    fn tags(&mut self) -> Vec<(u16, u16)> {
        if self.rng.u8(..25) > 0 {
            return Vec::new();
        }
        let count = if self.rng.u8(..4) == 0 { 2 } else { 1 };
        let tag = |grammar: &mut Self| {
            let kind = grammar.pick(&[0x8100, 0x8100, 0x88a8]);
            let control = grammar.pick(&[0, 0, 0xe000, 5]);
            (kind, control)
        };
        (0..count).map(|_| tag(self)).collect()
    }

    fn options(&mut self) -> Vec<u8> {
        match self.rng.u8(..6) {
            0 | 1 => vec![1; 4 * self.rng.usize(1..=10)],
            // Router alert (RFC 2113), record route, timestamp (RFC 791).
            2 => vec![148, 4, 0, 0],
            3 => vec![7, 7, 4, 0, 0, 0, 0, 0],
            4 => vec![68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            _ => {
                let count = 4 * self.rng.usize(1..=10);
                self.bytes(count)
            }
        }
    }

    fn chain(&mut self) -> Vec<Extension> {
        let count = match self.rng.u8(..12) {
            0..6 => 1,
            6..9 => 2,
            9 | 10 => self.rng.usize(3..8),
            _ => self.rng.usize(8..20),
        };
        (0..count).map(|_| self.extension()).collect()
    }

    fn extension(&mut self) -> Extension {
        let often = [
            HOP_BY_HOP,
            ROUTING,
            DESTINATION_OPTIONS,
            DESTINATION_OPTIONS,
            FRAGMENT,
            AH,
        ];
        let number = match self.rng.u8(..20) {
            0 => self.pick(&[MOBILITY, ESP, 59, 139, 140, 253]),
            _ => self.pick(&often),
        };
        let units = match self.rng.u8(..20) {
            0 => self.rng.u8(4..60),
            _ => self.rng.u8(..3),
        };
        let length = 8 * (usize::from(units) + 1);
        let bytes = match number {
            HOP_BY_HOP | DESTINATION_OPTIONS => {
                let mut bytes = vec![0, units];
                // PadN, as many as it takes (RFC 8200, 4.2); sometimes an option
                // that nobody knows, to be skipped.
                while bytes.len() < length {
                    let left = length - bytes.len();
                    if left == 1 {
                        bytes.push(0);
                    } else {
                        let inner = (left - 2).min(7);
                        let kind = if self.rng.u8(..12) == 0 { 0x1e } else { 1 };
                        bytes.extend([kind, u8::try_from(inner).expect("small")]);
                        bytes.resize(bytes.len() + inner, 0);
                    }
                }
                bytes
            }
            ROUTING => {
                let kind = self.pick(&[0, 2, 4, 253]);
                let left = self.pick(&[0, 0, 1]);
                let mut bytes = vec![0, units, kind, left];
                bytes.resize(length, 0);
                bytes
            }
            // An atomic one (RFC 6946), or one that lacks its others.
            FRAGMENT => {
                let offset = self.pick(&[0, 0, 0, 1, 8, 0x60]);
                let mut bytes = vec![0, 0, 0, offset];
                let id = self.id;
                self.id = id.wrapping_add(1);
                bytes.extend(id.to_be_bytes());
                bytes
            }
            // In units of four bytes, without the first two (RFC 4302, 2.2).
            AH => {
                let mut bytes = vec![0, units * 2 + 1];
                bytes.resize(4 * (usize::from(units) * 2 + 3), 7);
                bytes
            }
            _ => {
                let mut bytes = vec![0, units];
                bytes.resize(length, 1);
                bytes
            }
        };
        Extension { number, bytes }
    }
}

/// A packet whose bytes were changed has another checksum.
pub(crate) fn mended(family: Family, packet: &mut [u8]) {
    if family == Family::V4 && packet.len() >= 20 {
        sum_ipv4(packet);
    }
}

/// Every helper's name.
pub(crate) fn helper_names() -> impl Iterator<Item = &'static str> {
    Helper::all().map(Helper::name)
}
