//! The streams of packets: one connection each, in every router the same.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use conntrack_agent::model::{Protocol, protocol_name};
use conntrack_tests::ctnetlink::Tuple;
use etherparse::{IpHeaders, PacketBuilder, PacketBuilderStep};

use crate::network::{CLIENT, ROUTER_INSIDE, ROUTER_OUTSIDE, SERVER, Side, Translation};
use crate::rules;

/// The version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

/// Whether there is a rule for its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meeting {
    Miss,
    Hit,
}

/// One connection, by what tells it from the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stream {
    pub(crate) family: Family,
    pub(crate) protocol: Protocol,
    pub(crate) meeting: Meeting,
}

/// A packet of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The client's first: of TCP a SYN.
    Opening,
    /// The server's: of TCP the SYN and ACK.
    Answer,
    /// The client's from then on: of TCP an ACK without data, the same each time, which
    /// conntrack takes for one that was sent again.
    Established,
}

impl Family {
    pub(crate) const ALL: [Self; 2] = [Self::V4, Self::V6];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    fn address(self, side: &Side) -> IpAddr {
        match self {
            Self::V4 => side.v4.into(),
            Self::V6 => side.v6.into(),
        }
    }
}

impl Stream {
    /// All of them.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let families = Family::ALL.into_iter();
        families.flat_map(|family| {
            [Protocol::Tcp, Protocol::Udp]
                .into_iter()
                .flat_map(move |protocol| {
                    let meetings = [Meeting::Miss, Meeting::Hit].into_iter();
                    meetings.map(move |meeting| Self {
                        family,
                        protocol,
                        meeting,
                    })
                })
        })
    }

    /// What the results call it.
    pub(crate) fn name(self) -> String {
        let family = self.family.name();
        let protocol = protocol_name(self.protocol).to_uppercase();
        let meeting = match self.meeting {
            Meeting::Miss => "miss",
            Meeting::Hit => "hit",
        };
        format!("{family} {protocol} {meeting}")
    }

    /// The port that it goes to.
    pub(crate) const fn port(self) -> u16 {
        match self.meeting {
            Meeting::Miss => rules::missed(self.protocol),
            Meeting::Hit => rules::met(self.protocol),
        }
    }

    /// The client's direction, as the router's conntrack has it.
    pub(crate) fn tuple(self) -> Tuple {
        Tuple {
            source: self.family.address(&CLIENT),
            destination: self.family.address(&SERVER),
            protocol: match self.protocol {
                Protocol::Tcp => 6,
                Protocol::Udp => 17,
            },
            source_port: CLIENT_PORT,
            destination_port: self.port(),
            icmp: [0; 3],
        }
    }

    /// A frame with one of its packets, with right checksums.
    pub(crate) fn frame(self, step: Step, translation: Translation) -> Vec<u8> {
        let client = match translation {
            Translation::None => &CLIENT,
            Translation::Masquerade => &ROUTER_OUTSIDE,
        };
        let (from_client, to_client) = ((CLIENT_PORT, self.port()), (self.port(), CLIENT_PORT));
        let (link, source, destination, ports) = match step {
            Step::Opening | Step::Established => {
                ([&CLIENT, &ROUTER_INSIDE], &CLIENT, &SERVER, from_client)
            }
            Step::Answer => ([&SERVER, &ROUTER_OUTSIDE], &SERVER, client, to_client),
        };
        let [sender, receiver] = link.map(|side| side.mac);
        let link = PacketBuilder::ethernet2(sender, receiver);
        let builder = match self.family {
            Family::V4 => link.ipv4(octets4(source.v4), octets4(destination.v4), HOPS),
            Family::V6 => link.ipv6(octets6(source.v6), octets6(destination.v6), HOPS),
        };
        match self.protocol {
            Protocol::Tcp => segment(builder, step, ports),
            Protocol::Udp => datagram(builder, ports),
        }
    }
}

const CLIENT_PORT: u16 = 40_000;
const HOPS: u8 = 64;
/// Where the client's sequence numbers begin, and the server's.
const BEGINNINGS: [u32; 2] = [1_000, 2_000];
const WINDOW: u16 = 64_000;
/// TFTP's DATA, block 1, empty (RFC 1350): the helper reads the opcode and lets it pass.
const DATA: [u8; 4] = [0, 3, 0, 1];

fn segment(
    builder: PacketBuilderStep<IpHeaders>,
    step: Step,
    (source, destination): (u16, u16),
) -> Vec<u8> {
    let [client, server] = BEGINNINGS;
    let segment = |sequence| builder.tcp(source, destination, sequence, WINDOW);
    let whole = match step {
        Step::Opening => segment(client).syn(),
        Step::Answer => segment(server).syn().ack(client + 1),
        Step::Established => segment(client + 1).ack(server + 1),
    };
    let mut frame = Vec::new();
    whole.write(&mut frame, &[]).expect("room in memory");
    frame
}

fn datagram(builder: PacketBuilderStep<IpHeaders>, (source, destination): (u16, u16)) -> Vec<u8> {
    let mut frame = Vec::new();
    let whole = builder.udp(source, destination);
    whole.write(&mut frame, &DATA).expect("room in memory");
    frame
}

const fn octets4(address: Ipv4Addr) -> [u8; 4] {
    address.octets()
}

const fn octets6(address: Ipv6Addr) -> [u8; 16] {
    address.octets()
}
