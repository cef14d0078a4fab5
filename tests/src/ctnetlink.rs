//! A namespace's conntrack table, asked for without a process.
//!
//! `conntrack -L` prints what is read here as it came: numbers, not text, so
//! that two tables of thousands of connections are compared in milliseconds.
//! Messages and attributes: `include/uapi/linux/netfilter/nfnetlink_conntrack.h`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

use crate::netns::Netns;

const CTNETLINK: u16 = 1;
const CTNETLINK_EXP: u16 = 2;
const GET: u16 = 1;
const DELETE: u16 = 2;

/// As much as the kernel puts into one datagram of a dump (`netlink_dump`).
const DATAGRAM: usize = 32 * 1024;

/// One direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tuple {
    /// Where its packets come from.
    pub source: IpAddr,
    /// Where they go.
    pub destination: IpAddr,
    /// The IP protocol's number.
    pub protocol: u8,
    /// The source port; 0 where the protocol has none.
    pub source_port: u16,
    /// The destination port; 0 where the protocol has none.
    pub destination_port: u16,
    /// What else tells ICMP's exchanges apart: id, type and code.
    pub icmp: [u16; 3],
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            source,
            destination,
            protocol,
            source_port,
            destination_port,
            icmp,
        } = self;
        write!(
            f,
            "protocol {protocol} {source} port {source_port} -> {destination} port {destination_port}"
        )?;
        if *icmp == [0; 3] {
            return Ok(());
        }
        write!(f, " icmp {icmp:?}")
    }
}

/// What conntrack knows about a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The direction back.
    pub reply: Tuple,
    /// `IPS_…` bits (`nf_conntrack_common.h`).
    pub status: u32,
    /// The helper that it has.
    pub helper: Option<String>,
    /// The connection that it was announced by.
    pub master: Option<Tuple>,
}

/// Whether a connection was announced by another (`IPS_EXPECTED`).
const EXPECTED: u32 = 1;

impl State {
    /// Whether it was announced by another connection.
    #[must_use]
    pub fn is_expected(&self) -> bool {
        self.status & EXPECTED != 0
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.helper {
            Some(helper) => write!(f, "helper {helper}")?,
            None => write!(f, "no helper")?,
        }
        write!(f, ", status {:#x}", self.status)?;
        match &self.master {
            Some(master) => write!(f, ", announced by {master}"),
            None => Ok(()),
        }
    }
}

/// All connections, by their original direction.
pub type Connections = BTreeMap<Tuple, State>;

/// What is expected: the tuple, which parts of it count, and which connection
/// announced it.
pub type Expectations = BTreeSet<(Tuple, Tuple, Tuple)>;

/// A socket to one namespace's conntrack.
pub struct Conntrack {
    socket: OwnedFd,
    family: u8,
}

impl Conntrack {
    /// Opens one for the connections of a family: `AddressFamily::Inet`, or
    /// `AddressFamily::Inet6`.
    #[must_use]
    pub fn open(netns: &Netns, family: AddressFamily) -> Self {
        let socket = netns.run(|| {
            let flags = SockFlag::SOCK_CLOEXEC;
            let protocol = SockProtocol::NetlinkNetFilter;
            socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)
        });
        Self {
            socket: socket.expect("a netlink socket"),
            family: u8::try_from(family as i32).expect("a small number"),
        }
    }

    /// All connections that there are.
    #[must_use]
    pub fn connections(&self) -> Connections {
        let mut found = Connections::new();
        self.dump(CTNETLINK, |message| {
            let (mut original, mut reply, mut master) = (None, None, None);
            let (mut status, mut helper) = (0, None);
            for (kind, value) in Attributes(message) {
                match kind {
                    1 => original = Some(tuple(value)),
                    2 => reply = Some(tuple(value)),
                    3 => status = u32::from_be_bytes(array(value)),
                    5 => helper = Attributes(value).find(|a| a.0 == 1).map(|a| text(a.1)),
                    14 => master = Some(tuple(value)),
                    _ => {}
                }
            }
            let state = State {
                reply: reply.expect("CTA_TUPLE_REPLY"),
                status,
                helper,
                master,
            };
            found.insert(original.expect("CTA_TUPLE_ORIG"), state);
        });
        found
    }

    /// All that is expected.
    #[must_use]
    pub fn expectations(&self) -> Expectations {
        let mut found = Expectations::new();
        self.dump(CTNETLINK_EXP, |message| {
            let part = |wanted| {
                let found = Attributes(message).find(|(kind, _)| *kind == wanted);
                tuple(found.expect("CTA_EXPECT_…").1)
            };
            found.insert((part(2), part(3), part(1)));
        });
        found
    }

    /// Forgets all connections.
    pub fn flush(&self) {
        self.ask(CTNETLINK, DELETE, libc::NLM_F_ACK);
        let mut answered = false;
        while !answered {
            self.receive(|kind, payload| {
                assert_eq!(i32::from(kind), libc::NLMSG_ERROR);
                assert_eq!(array(&payload[..4]), [0; 4], "conntrack can't be flushed");
                answered = true;
            });
        }
    }

    fn dump(&self, subsystem: u16, mut each: impl FnMut(&[u8])) {
        self.ask(subsystem, GET, libc::NLM_F_DUMP);
        let mut done = false;
        while !done {
            self.receive(|kind, payload| match i32::from(kind) {
                libc::NLMSG_DONE => done = true,
                libc::NLMSG_ERROR => panic!("conntrack can't be listed: {payload:?}"),
                // Behind struct nfgenmsg.
                _ => each(&payload[4..]),
            });
        }
    }

    fn ask(&self, subsystem: u16, what: u16, flags: i32) {
        const LENGTH: u32 = 20;
        let flags = u16::try_from(libc::NLM_F_REQUEST | flags).expect("two bytes");
        let mut message = LENGTH.to_ne_bytes().to_vec();
        message.extend((subsystem << 8 | what).to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        // Sequence and port: only one question is open at a time.
        message.extend([0; 8]);
        message.extend([self.family, 0, 0, 0]);
        let sent = send(self.socket.as_raw_fd(), &message, MsgFlags::empty());
        assert_eq!(sent, Ok(message.len()));
    }

    /// One datagram, message by message.
    fn receive(&self, mut each: impl FnMut(u16, &[u8])) {
        let mut buffer = vec![0; DATAGRAM];
        let length = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_TRUNC);
        let length = length.expect("an answer");
        let mut rest = &buffer[..length];
        while let (Some(length), Some(kind)) = (rest.first_chunk(), rest.get(4..6)) {
            let length = u32::from_ne_bytes(*length) as usize;
            let kind = u16::from_ne_bytes(array(kind));
            each(kind, &rest[16..length]);
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

/// Netlink attributes: each a length, a kind and a value.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        const NESTED: u16 = 0x8000;
        let [a, b, c, d] = *self.0.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = &self.0[4..length];
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([c, d]) & !NESTED, value))
    }
}

fn tuple(value: &[u8]) -> Tuple {
    let mut found = Tuple {
        source: Ipv4Addr::UNSPECIFIED.into(),
        destination: Ipv4Addr::UNSPECIFIED.into(),
        protocol: 0,
        source_port: 0,
        destination_port: 0,
        icmp: [0; 3],
    };
    for (kind, value) in Attributes(value) {
        match kind {
            1 => {
                for (kind, value) in Attributes(value) {
                    match kind {
                        1 | 3 => found.source = address(value),
                        _ => found.destination = address(value),
                    }
                }
            }
            2 => {
                for (kind, value) in Attributes(value) {
                    match (kind, value) {
                        (1, [number, ..]) => found.protocol = *number,
                        (2, _) => found.source_port = u16::from_be_bytes(array(value)),
                        (3, _) => found.destination_port = u16::from_be_bytes(array(value)),
                        (4 | 7, _) => found.icmp[0] = u16::from_be_bytes(array(value)),
                        (5 | 8, [number, ..]) => found.icmp[1] = u16::from(*number),
                        (6 | 9, [number, ..]) => found.icmp[2] = u16::from(*number),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    found
}

fn address(value: &[u8]) -> IpAddr {
    match value.len() {
        4 => Ipv4Addr::from(array(value)).into(),
        _ => Ipv6Addr::from(array(value)).into(),
    }
}

fn array<const N: usize>(value: &[u8]) -> [u8; N] {
    value.try_into().expect("the attribute's size")
}

fn text(value: &[u8]) -> String {
    let value = value.strip_suffix(&[0]).unwrap_or(value);
    String::from_utf8_lossy(value).into_owned()
}
