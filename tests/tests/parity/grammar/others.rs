//! Packets that open no connection with a helper: ICMP errors, and other protocols.

use super::{Flow, Grammar, Step};
use crate::network::Packet;
use crate::transport::{AH, ESP, GRE, ICMP, ICMPV6, SCTP, SYN, Segment, TCP, UDP, UDP_LITE};
use crate::wire::Family;

impl Grammar<'_> {
    /// An ICMP error about a flow, from the other side or from the same.
    pub(super) fn error(&mut self) -> Step {
        let Some(flow) = self.some_flow() else {
            return self.opening();
        };
        let reporter = flow.directed(self.rng.u8(..6) > 0);
        let is_about_reply = self.rng.u8(..6) == 0;
        let about = flow.directed(is_about_reply);
        let segment = if flow.protocol == TCP {
            self.tcp(&flow, is_about_reply, SYN)
        } else {
            Segment::udp(about.ports, &[])
        };
        let quoted = Packet::plain(about.source, about.destination, segment);
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
            protocol,
            ports: flow.ports,
            ..reporter
        };
        self.sent(&error, false, Segment::icmp(protocol, bytes), false)
    }

    /// What no helper rule is about, often with something inside that one would
    /// be about.
    pub(super) fn stranger(&mut self) -> Step {
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
        let (in_ip, echo, icmp) = match self.family {
            Family::V4 => (4, 8, ICMP),
            Family::V6 => (41, 128, ICMPV6),
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
}
