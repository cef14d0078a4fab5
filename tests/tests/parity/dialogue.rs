//! Control connections as they really go, with what they announce.

use std::net::IpAddr;

use conntrack_tests::helpers::Protocol;

use crate::grammar::{Flow, Grammar, Step};
use crate::network::Packet;
use crate::transport::{ACK, PSH, Ports, SYN, Segment, TCP, UDP};
use crate::wire::Frame;

/// Both ends of a TCP connection.
struct Talk {
    flow: Flow,
    /// What each end sends next.
    sequence: [u32; 2],
    frames: Vec<Frame>,
}

impl Talk {
    fn say(&mut self, grammar: &mut Grammar<'_>, reply: bool, flags: u8, payload: &[u8]) {
        let [ours, theirs] = if reply { [1, 0] } else { [0, 1] };
        let ports = if reply {
            self.flow.ports.reversed()
        } else {
            self.flow.ports
        };
        let acknowledged = match flags & ACK {
            0 => 0,
            _ => self.sequence[theirs],
        };
        let segment =
            Segment::tcp(ports, [self.sequence[ours], acknowledged], flags).payload(payload);
        let length = u32::try_from(payload.len()).expect("a line");
        let syn = u32::from(flags & SYN != 0);
        self.sequence[ours] = self.sequence[ours].wrapping_add(length + syn);
        self.frames.push(frame(grammar, &self.flow, reply, segment));
    }
}

fn frame(grammar: &mut Grammar<'_>, flow: &Flow, reply: bool, segment: Segment) -> Frame {
    let (from, source, destination) = if reply {
        (flow.from.other(), flow.destination, flow.source)
    } else {
        (flow.from, flow.source, flow.destination)
    };
    let packet = Packet::plain(source, destination, segment).whole(grammar.rng.u16(..));
    Frame::new(from, grammar.family, &[], &packet)
}

/// An FTP session that announces a data connection to a port that has a rule of
/// its own, more often than not; and the first packets of that.
pub(crate) fn ftp(grammar: &mut Grammar<'_>) -> Step {
    let (mut step, flow) = announced(grammar);
    let mut transfer = Talk {
        flow,
        sequence: [grammar.rng.u32(..), grammar.rng.u32(..)],
        frames: step.frames,
    };
    transfer.say(grammar, false, SYN, b"");
    transfer.say(grammar, true, SYN | ACK, b"");
    step.frames = transfer.frames;
    step
}

/// An FTP session that announces a data connection, and that connection.
pub(crate) fn announced(grammar: &mut Grammar<'_>) -> (Step, Flow) {
    let mut flow = between_hosts(grammar, TCP);
    if let Some(port) = grammar.ruled(Protocol::Tcp, Some("ftp")) {
        flow.ports.destination = port;
    }
    let data = match grammar.ruled(Protocol::Tcp, None) {
        Some(port) if grammar.rng.u8(..4) > 0 => port,
        _ => grammar.rng.u16(1024..),
    };
    let sequence = [grammar.rng.u32(..), grammar.rng.u32(..)];
    let mut talk = Talk {
        flow,
        sequence,
        frames: Vec::new(),
    };
    talk.say(grammar, false, SYN, b"");
    talk.say(grammar, true, SYN | ACK, b"");
    talk.say(grammar, false, ACK, b"");
    // The helper begins to listen behind the first line of each side.
    talk.say(grammar, true, PSH | ACK, b"220 here\r\n");
    talk.say(grammar, false, PSH | ACK, b"USER one\r\n");
    let active = grammar.rng.bool();
    let target = announcement(active, &flow, data);
    talk.say(grammar, !active, PSH | ACK, target.as_bytes());

    // From the server in active mode, to it in passive mode.
    let ports = Ports {
        source: if active { 20 } else { grammar.rng.u16(1024..) },
        destination: data,
    };
    let opened = if active {
        Flow {
            from: flow.from.other(),
            source: flow.destination,
            destination: flow.source,
            ports,
            ..flow
        }
    } else {
        Flow { ports, ..flow }
    };
    let step = Step {
        ports: vec![flow.ports, ports],
        frames: talk.frames,
        fragmented: None,
    };
    (step, opened)
}

/// RFC 959 and RFC 2428.
fn announcement(active: bool, flow: &Flow, port: u16) -> String {
    let end = if active {
        flow.source
    } else {
        flow.destination
    };
    match (end, active) {
        (IpAddr::V4(address), _) => {
            let [a, b, c, d] = address.octets();
            let [high, low] = port.to_be_bytes();
            let place = format!("{a},{b},{c},{d},{high},{low}");
            if active {
                format!("PORT {place}\r\n")
            } else {
                format!("227 Entering Passive Mode ({place})\r\n")
            }
        }
        (IpAddr::V6(address), true) => format!("EPRT |2|{address}|{port}|\r\n"),
        (IpAddr::V6(_), false) => format!("229 Entering Extended Passive Mode (|||{port}|)\r\n"),
    }
}

/// A TFTP request, and the answer from another port of the server's (RFC 1350).
pub(crate) fn tftp(grammar: &mut Grammar<'_>) -> Step {
    let mut flow = between_hosts(grammar, UDP);
    if let Some(port) = grammar.ruled(Protocol::Udp, Some("tftp")) {
        flow.ports.destination = port;
    }
    // The client's port, which is announced, has a rule itself.
    if let Some(port) = grammar.ruled(Protocol::Udp, None) {
        flow.ports.source = port;
    }
    let request = Segment::udp(flow.ports, b"\x00\x01file\x00octet\x00");
    let first = frame(grammar, &flow, false, request);
    let ports = Ports {
        source: grammar.rng.u16(1024..),
        destination: flow.ports.source,
    };
    let answering = Flow { ports, ..flow };
    let answer = Segment::udp(ports, b"\x00\x03\x00\x01data");
    let second = frame(grammar, &answering, true, answer);
    Step {
        ports: vec![flow.ports, ports],
        frames: vec![first, second],
        fragmented: None,
    }
}

/// Not to the router itself, which would answer by itself.
fn between_hosts(grammar: &mut Grammar<'_>, protocol: u8) -> Flow {
    let flow = grammar.flow(protocol);
    let destination = grammar.host(flow.from.other());
    Flow {
        destination,
        ..flow
    }
}
