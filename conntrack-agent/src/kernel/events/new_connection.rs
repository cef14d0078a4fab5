//! Decodes an entry of the ring buffer: a packet that may begin a connection.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use conntrack_ebpf::event;

use crate::model::{Destination, Protocol, RouterId};

/// A packet that matches a rule and may be the first of its connection: a TCP SYN,
/// or the first UDP packet of a flow in two minutes, as far as the CPU remembers the
/// flows that it met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewConnection {
    /// The time of its arrival: the time since the host started, without suspended
    /// time (`CLOCK_MONOTONIC`), with the precision of the kernel's tick.
    pub at: Duration,
    /// The router that it arrived at.
    pub router: RouterId,
    /// The number of the interface that it arrived on, in that interface's
    /// namespace.
    pub interface: u32,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The packet's source, before the router translates any address.
    pub source: SocketAddr,
    /// The packet's destination, likewise untranslated.
    pub destination: SocketAddr,
    /// The helper mark of its rule.
    pub mark: u32,
}

impl NewConnection {
    /// Returns the destination of its rule.
    #[must_use]
    pub const fn rule(&self) -> Destination {
        Destination {
            protocol: self.protocol,
            port: self.destination.port(),
        }
    }
}

/// The reason why an entry of the ring buffer is none that a program of this ABI
/// writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnreadableEvent {
    /// The entry is too long or too short.
    #[error("it has {0} bytes and not {size}", size = event::Opened::SIZE)]
    Length(usize),
    /// The entry's family is neither 4 nor 6.
    #[error("it is of IP version {0}")]
    Family(u8),
    /// The entry's protocol carries no helper's control connection.
    #[error("it is of IP protocol {0}, and TCP is 6, UDP 17")]
    Protocol(u8),
}

impl TryFrom<&[u8]> for NewConnection {
    type Error = UnreadableEvent;

    fn try_from(entry: &[u8]) -> Result<Self, UnreadableEvent> {
        let event = event::Opened::from_bytes(entry).ok_or(UnreadableEvent::Length(entry.len()))?;
        let [s0, s1, d0, d1] = event.flow.addresses;
        let address = |words: [u64; 2]| address(event.family, words);
        let [f0, f1, t0, t1] = event.flow.ports.to_ne_bytes();
        let (from, to) = (u16::from_be_bytes([f0, f1]), u16::from_be_bytes([t0, t1]));
        Ok(Self {
            at: Duration::from_nanos(event.at),
            router: RouterId::from_words(event.router),
            interface: event.flow.interface,
            protocol: match event.protocol {
                TCP => Protocol::Tcp,
                UDP => Protocol::Udp,
                other => return Err(UnreadableEvent::Protocol(other)),
            },
            source: SocketAddr::new(address([s0, s1])?, from),
            destination: SocketAddr::new(address([d0, d1])?, to),
            mark: event.mark,
        })
    }
}

const TCP: u8 = Protocol::Tcp as u8;
const UDP: u8 = Protocol::Udp as u8;

/// Returns the address in the words that hold its bytes; IPv4 uses the first four
/// bytes.
fn address(family: u8, words: [u64; 2]) -> Result<IpAddr, UnreadableEvent> {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(words.map(u64::to_ne_bytes).as_flattened());
    match family {
        4 => {
            let [a, b, c, d, ..] = bytes;
            Ok(Ipv4Addr::new(a, b, c, d).into())
        }
        6 => Ok(Ipv6Addr::from(bytes).into()),
        other => Err(UnreadableEvent::Family(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTER: &str = "6ab1c2d3-0a1b-4c2d-8e3f-0123456789ab";

    /// As the program writes it: the fields of `event::Opened`, in memory.
    fn entry(family: u8, protocol: u8, source: [u8; 16], destination: [u8; 16]) -> Vec<u8> {
        let router: RouterId = ROUTER.parse().unwrap();
        let mut bytes = 1_500_000_000_u64.to_ne_bytes().to_vec();
        bytes.extend(router.to_words().map(u64::to_ne_bytes).as_flattened());
        bytes.extend(source);
        bytes.extend(destination);
        bytes.extend(40_000_u16.to_be_bytes());
        bytes.extend(2121_u16.to_be_bytes());
        bytes.extend(7_u32.to_ne_bytes());
        bytes.extend(3_u32.to_ne_bytes());
        bytes.extend(9_u16.to_ne_bytes());
        bytes.extend([protocol, family]);
        bytes
    }

    fn v4(address: [u8; 4]) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&address);
        bytes
    }

    #[test]
    fn an_entry_says_who_talks_to_whom() {
        let opened = NewConnection::try_from(&*entry(4, 6, v4([10, 0, 1, 2]), v4([10, 0, 2, 2])));
        let expected = NewConnection {
            at: Duration::from_millis(1_500),
            router: ROUTER.parse().unwrap(),
            interface: 7,
            protocol: Protocol::Tcp,
            source: "10.0.1.2:40000".parse().unwrap(),
            destination: "10.0.2.2:2121".parse().unwrap(),
            mark: 3,
        };
        assert_eq!(opened, Ok(expected));
        let (protocol, port) = (Protocol::Tcp, 2121);
        assert_eq!(expected.rule(), Destination { protocol, port });

        let [client, server] = ["fd00:1::2", "fd00:2::2"].map(|ip| ip.parse::<Ipv6Addr>().unwrap());
        let datagram = entry(6, 17, client.octets(), server.octets());
        let opened = NewConnection::try_from(&*datagram).unwrap();
        assert_eq!(opened.protocol, Protocol::Udp);
        assert_eq!(opened.source, "[fd00:1::2]:40000".parse().unwrap());
        assert_eq!(opened.destination, "[fd00:2::2]:2121".parse().unwrap());
    }

    #[test]
    fn what_no_program_writes_is_no_event() {
        let good = entry(4, 17, [1; 16], [2; 16]);
        assert!(NewConnection::try_from(&*good).is_ok());
        let refused = |entry: &[u8]| NewConnection::try_from(entry).unwrap_err();
        assert_eq!(refused(&[]), UnreadableEvent::Length(0));
        assert_eq!(refused(&good[1..]), UnreadableEvent::Length(71));
        let longer = [&good[..], &[0]].concat();
        assert_eq!(refused(&longer), UnreadableEvent::Length(73));
        for family in [0, 5, 7, 255] {
            let other = entry(family, 17, [1; 16], [2; 16]);
            assert_eq!(refused(&other), UnreadableEvent::Family(family));
        }
        for protocol in [0, 1, 132, 136] {
            let other = entry(6, protocol, [1; 16], [2; 16]);
            assert_eq!(refused(&other), UnreadableEvent::Protocol(protocol));
        }
        let text = UnreadableEvent::Length(3).to_string();
        assert_eq!(text, "it has 3 bytes and not 72");
    }
}
