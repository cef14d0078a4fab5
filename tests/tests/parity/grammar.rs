//! Packets at random, near to what helper rules are about.

#[path = "grammar/headers.rs"]
mod headers;
#[path = "grammar/others.rs"]
mod others;

use std::net::IpAddr;

use conntrack_agent::model::Helper;
use conntrack_tests::ctnetlink::Tuple;
use conntrack_tests::helpers::{Protocol, Rule};
use fastrand::Rng;

use crate::damage;
use crate::dialogue;
use crate::fragments::cut;
use crate::network::{FRAGMENT, Packet, sum_ipv4};
use crate::transport::{ACK, FIN, PSH, Ports, RST, SYN, Segment, TCP, UDP};
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

impl Flow {
    /// The flow, or the way back for a reply.
    fn directed(self, is_reply: bool) -> Self {
        if !is_reply {
            return self;
        }
        Self {
            from: self.from.other(),
            source: self.destination,
            destination: self.source,
            ports: self.ports.reversed(),
            ..self
        }
    }
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

    /// A number for the fragments of a packet.
    fn next_id(&mut self) -> u32 {
        let id = self.id;
        self.id = id.wrapping_add(1);
        id
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.rng.usize(..from.len())]
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.rng.u8(..)).collect()
    }

    /// Its port, if there is a rule for this protocol and helper.
    pub(crate) fn ruled(&mut self, protocol: Protocol, helper: Option<&str>) -> Option<u16> {
        let rules = self.rules.iter().filter(|rule| {
            rule.protocol == protocol && helper.is_none_or(|helper| rule.helper == helper)
        });
        let ports: Vec<_> = rules.map(|rule| rule.port).collect();
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
            self.datagram(flow.directed(reply).ports)
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
        let mut numbers = [flow.sequence, flow.sequence.rotate_left(7)];
        if reply {
            numbers.reverse();
        }
        if flags & SYN == 0 {
            numbers[0] = numbers[0].wrapping_add(u32::from(self.rng.u8(..) & 1));
        }
        numbers[1] = match flags & ACK {
            0 => 0,
            _ => numbers[1].wrapping_add(1),
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
        Segment::tcp(flow.directed(reply).ports, numbers, flags)
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

    /// The step of one packet: in which headers, in how many fragments, how
    /// damaged.
    fn sent(&mut self, flow: &Flow, reply: bool, segment: Segment, opens: bool) -> Step {
        let way = flow.directed(reply);
        let mut packet = Packet::plain(way.source, way.destination, segment);
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
            let id = self.next_id();
            let pieces = cut.pieces.iter();
            packets.extend(pieces.map(|piece| packet.fragment(kept, id, piece)));
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
                ..Frame::new(way.from, family, &tags, packet)
            })
            // A packet socket sends nothing that is only an Ethernet header.
            .filter(|frame| (15..=14 + MTU).contains(&frame.bytes.len()));
        Step {
            ports: vec![flow.ports],
            frames: frames.collect(),
            fragmented,
        }
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
