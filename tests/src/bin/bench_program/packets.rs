//! The packets, and what the program should find in each.

use conntrack_ebpf::abi::{Carrier, Destination, Protocol};
use conntrack_tests::packets::shape::{Extension, Family, Shape, tcp, udp};

/// Which program runs, and what is in front of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// The tc program, as the kernel repeats it: what the first repetition writes
    /// to the packet's metadata the others find there.
    Tc,
    /// The tc program, behind one that puts the metadata back; it writes to this
    /// carrier.
    TcAnew(Carrier),
    /// The XDP program, behind one that takes its metadata away.
    Xdp,
}

pub(crate) const WAYS: [Way; 4] = [
    Way::Tc,
    Way::TcAnew(Carrier::Priority),
    Way::TcAnew(Carrier::Mark),
    Way::Xdp,
];

impl Way {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tc => "tc",
            Self::TcAnew(Carrier::Priority) => "tc, writes the priority each time",
            Self::TcAnew(Carrier::Mark) => "tc, writes the mark each time",
            Self::Xdp => "xdp, hands over each time",
        }
    }

    /// The carrier, where the program writes to one.
    pub(crate) const fn carrier(self) -> Carrier {
        match self {
            Self::TcAnew(carrier) => carrier,
            Self::Tc | Self::Xdp => Carrier::Priority,
        }
    }

    /// How many times a call runs it: for some 0.2 ms, or 2 ms.
    pub(crate) const fn times(self) -> u32 {
        match self {
            Self::Tc | Self::TcAnew(_) => 4_000,
            Self::Xdp => 40_000,
        }
    }

    /// Whether it takes part in this round. Each call for XDP waits for grace periods
    /// of RCU, some 20 ms (`bpf_prog_change_xdp`, `net/bpf/test_run.c`).
    pub(crate) const fn is_in(self, round: usize) -> bool {
        match self {
            Self::Tc | Self::TcAnew(_) => true,
            Self::Xdp => round.is_multiple_of(25),
        }
    }
}

/// One way through the program.
pub(crate) struct Path {
    pub(crate) what: &'static str,
    pub(crate) way: Way,
    pub(crate) frame: Vec<u8>,
    /// How many of its bytes lie in the linear part, where not all do.
    pub(crate) linear: Option<usize>,
    /// The rule that it has to hit, if any.
    pub(crate) rule: Option<Destination>,
    /// Nanoseconds over an empty program that the issue allows, if it says so.
    pub(crate) limit: Option<f64>,
}

pub(crate) const FTP: Destination = Destination {
    protocol: Protocol::Tcp,
    port: 21,
};
pub(crate) const TFTP: Destination = Destination {
    protocol: Protocol::Udp,
    port: 69,
};

const MISS_IPV4: f64 = 8.0;
const MISS_IPV6: f64 = 12.0;
const HIT: f64 = 15.0;

const TCP: u8 = 6;
const UDP: u8 = 17;
const ACK: u8 = 0x10;
const SYN: u8 = 0x02;
/// A client's.
const FROM: u16 = 40_000;
/// In the page of the rules' ports.
const BESIDE: u16 = 80;
/// In one that no rule has a port in.
const ELSEWHERE: u16 = 443;

fn to_tcp(family: Family, port: u16, flags: u8) -> Shape {
    Shape::plain(family, TCP, tcp(FROM, port, flags))
}

fn to_udp(family: Family, port: u16) -> Shape {
    Shape::plain(family, UDP, udp(FROM, port, &[0; 32]))
}

fn other(family: Family, protocol: u8) -> Shape {
    Shape::plain(family, protocol, vec![8; 64])
}

/// Hop-by-hop, destination options, routing, destination options, by RFC 8200's
/// order; each of 8 bytes.
fn extended(count: usize) -> Shape {
    let extensions = [0, 60, 43, 60].map(|number| Extension::new(number, 8));
    Shape {
        extensions: extensions.into_iter().take(count).collect(),
        ..to_tcp(Family::V6, ELSEWHERE, ACK)
    }
}

fn tagged(shape: Shape, vlan: u8) -> Shape {
    Shape {
        tags: vec![(0x8100, vlan)],
        ..shape
    }
}

fn path(way: Way, what: &'static str, shape: &Shape) -> Path {
    Path {
        what,
        way,
        frame: shape.frame(),
        linear: None,
        rule: None,
        limit: None,
    }
}

/// Bytes of Ethernet header and IPv4 header.
const HEADERS: usize = 34;

/// All of them, in the order of the table.
pub(crate) fn all() -> Vec<Path> {
    let mut all = misses();
    for way in WAYS.into_iter().filter(|way| *way != Way::Xdp) {
        all.extend(hits(way));
    }
    all.extend(by_xdp());
    all
}

fn misses() -> Vec<Path> {
    use Family::{V4, V6};
    let tc = |what, shape: Shape, limit| Path {
        limit,
        ..path(Way::Tc, what, &shape)
    };
    let options = Shape {
        options: vec![1; 8],
        ..to_tcp(V4, ELSEWHERE, ACK)
    };
    let arp = Shape {
        ethertype: Some(0x0806),
        ..other(V4, 1)
    };
    let like_ip = Shape {
        stations: [[0x45; 6], [2; 6]],
        ..to_tcp(V4, ELSEWHERE, ACK)
    };
    let (v4, v6) = (Some(MISS_IPV4), Some(MISS_IPV6));
    vec![
        tc("ARP", arp, None),
        tc("IPv4 ICMP", other(V4, 1), v4),
        tc("IPv4 TCP, no page", to_tcp(V4, ELSEWHERE, ACK), v4),
        tc("IPv4 TCP, page", to_tcp(V4, BESIDE, ACK), v4),
        tc("IPv4 UDP, no page", to_udp(V4, ELSEWHERE), v4),
        tc("IPv4 UDP, page", to_udp(V4, BESIDE), v4),
        tc("IPv4 TCP, 8 bytes of options", options, None),
        tc("IPv4 TCP, address like an IP header", like_ip, None),
        tc(
            "priority tag, IPv4 TCP",
            tagged(to_tcp(V4, ELSEWHERE, ACK), 0),
            None,
        ),
        Path {
            linear: Some(HEADERS),
            ..tc(
                "IPv4 TCP, ports not linear",
                to_tcp(V4, ELSEWHERE, ACK),
                None,
            )
        },
        tc("IPv6 ICMPv6", other(V6, 58), v6),
        tc("IPv6 TCP, no page", to_tcp(V6, ELSEWHERE, ACK), v6),
        tc("IPv6 TCP, page", to_tcp(V6, BESIDE, ACK), v6),
        tc("IPv6 UDP, no page", to_udp(V6, ELSEWHERE), v6),
        tc("IPv6 TCP, 1 extension header", extended(1), None),
        tc("IPv6 TCP, 4 extension headers", extended(4), None),
    ]
}

fn hits(way: Way) -> Vec<Path> {
    use Family::{V4, V6};
    // Where the helper mark stays, the write is missing.
    let limit = (way != Way::Tc).then_some(HIT);
    let hit = |what, rule, shape: Shape| Path {
        rule: Some(rule),
        limit,
        ..path(way, what, &shape)
    };
    let mut all = vec![
        hit("IPv4 TCP, hit", FTP, to_tcp(V4, FTP.port, ACK)),
        hit("IPv4 TCP SYN, hit", FTP, to_tcp(V4, FTP.port, SYN)),
        hit("IPv4 UDP, hit", TFTP, to_udp(V4, TFTP.port)),
        hit("IPv6 TCP, hit", FTP, to_tcp(V6, FTP.port, ACK)),
        hit("IPv6 UDP, hit", TFTP, to_udp(V6, TFTP.port)),
    ];
    if way == Way::Tc {
        all.push(Path {
            linear: Some(HEADERS),
            ..hit(
                "IPv4 TCP, hit, ports not linear",
                FTP,
                to_tcp(V4, FTP.port, ACK),
            )
        });
    }
    all
}

fn by_xdp() -> Vec<Path> {
    use Family::{V4, V6};
    let miss = |what, shape: Shape| path(Way::Xdp, what, &shape);
    let hit = |what, rule, shape: Shape| Path {
        rule: Some(rule),
        ..miss(what, shape)
    };
    vec![
        miss("IPv4 ICMP", other(V4, 1)),
        miss("IPv4 TCP, no page", to_tcp(V4, ELSEWHERE, ACK)),
        miss("IPv4 TCP, page", to_tcp(V4, BESIDE, ACK)),
        miss("tag, IPv4 TCP", tagged(to_tcp(V4, ELSEWHERE, ACK), 7)),
        miss("IPv6 TCP, no page", to_tcp(V6, ELSEWHERE, ACK)),
        hit("IPv4 TCP, hit", FTP, to_tcp(V4, FTP.port, ACK)),
        hit("IPv4 UDP, hit", TFTP, to_udp(V4, TFTP.port)),
        hit("IPv6 TCP, hit", FTP, to_tcp(V6, FTP.port, ACK)),
        Path {
            linear: Some(HEADERS),
            ..miss(
                "IPv4 TCP, ports in the second buffer",
                to_tcp(V4, ELSEWHERE, ACK),
            )
        },
    ]
}
