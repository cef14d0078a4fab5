//! Frames from etherparse's builder, which is not the parser under test.

use conntrack_ebpf::{
    abi::{Destination, Protocol},
    parse::ETHERNET_HEADER,
};
use etherparse::{
    IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, PacketBuilder, PacketBuilderStep,
};

pub(super) const fn tcp(port: u16) -> Destination {
    let protocol = Protocol::Tcp;
    Destination { protocol, port }
}

pub(super) const fn udp(port: u16) -> Destination {
    let protocol = Protocol::Udp;
    Destination { protocol, port }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Ip {
    V4,
    V6,
}

pub(super) const BOTH: [Ip; 2] = [Ip::V4, Ip::V6];

impl Ip {
    pub(super) const fn version(self) -> u8 {
        match self {
            Self::V4 => 4,
            Self::V6 => 6,
        }
    }

    /// Where its header without options ends; the least that `BPF_PROG_TEST_RUN`
    /// takes of a frame whose EtherType says IP, a byte elsewhere
    /// (`bpf_prog_test_run_skb`, `net/bpf/test_run.c`). What is shorter goes over a
    /// real interface, in truncated.rs.
    pub(super) const fn end(self) -> usize {
        match self {
            Self::V4 => ETHERNET_HEADER + 20,
            Self::V6 => ETHERNET_HEADER + 40,
        }
    }

    /// Where the number of the next header is.
    pub(super) const fn next_at(self) -> usize {
        match self {
            Self::V4 => ETHERNET_HEADER + 9,
            Self::V6 => ETHERNET_HEADER + 6,
        }
    }
}

/// A source port that has a rule must not matter.
const FROM: u16 = 21;

pub(super) fn frame(ip: Ip, to: Destination, payload: &[u8]) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let packet = match ip {
        Ip::V4 => ethernet.ipv4([10, 0, 1, 2], [10, 0, 2, 2], 64),
        Ip::V6 => ethernet.ipv6([0xfd; 16], [0xfc; 16], 64),
    };
    with_ports(packet, to, payload)
}

/// IPv4 with the header that the caller wants.
pub(super) fn frame_v4(to: Destination, change: impl FnOnce(&mut Ipv4Header)) -> Vec<u8> {
    let [source, destination] = [[10, 0, 1, 2], [10, 0, 2, 2]];
    // The builder puts in the protocol, and the length with these options.
    let mut header = Ipv4Header::new(0, 64, IpNumber::TCP, source, destination).unwrap();
    change(&mut header);
    let ip = IpHeaders::Ipv4(header, Ipv4Extensions::default());
    let ethernet = PacketBuilder::ethernet2([2; 6], [2; 6]);
    with_ports(ethernet.ip(ip), to, &[])
}

fn with_ports(packet: PacketBuilderStep<IpHeaders>, to: Destination, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    match to.protocol {
        Protocol::Tcp => {
            let packet = packet.tcp(FROM, to.port, 1, 1000);
            packet.write(&mut bytes, payload)
        }
        Protocol::Udp => packet.udp(FROM, to.port).write(&mut bytes, payload),
    }
    .unwrap();
    bytes
}

/// IPv6 with extension headers of 8 bytes before the TCP or UDP header: the number
/// of each, and what its last bytes are, from the fragment offset on.
pub(super) fn frame_v6(to: Destination, headers: &[(u8, [u8; 4])]) -> Vec<u8> {
    let bytes = frame(Ip::V6, to, b"payload");
    let (start, transport) = bytes.split_at(Ip::V6.end());
    let mut bytes = start.to_vec();
    let mut next_at = Ip::V6.next_at();
    let last = std::mem::replace(&mut bytes[next_at], 0);
    for (number, [low, rest @ ..]) in headers {
        bytes[next_at] = *number;
        next_at = bytes.len();
        bytes.extend([last, 0, 0, *low, rest[0], rest[1], rest[2], 0]);
    }
    bytes.extend(transport);
    let length = u16::try_from(bytes.len() - Ip::V6.end()).unwrap();
    bytes[ETHERNET_HEADER + 4..ETHERNET_HEADER + 6].copy_from_slice(&length.to_be_bytes());
    bytes
}
