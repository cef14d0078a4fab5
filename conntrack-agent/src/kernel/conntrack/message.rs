//! Encodes and decodes ctnetlink messages.
//!
//! Layouts: `include/uapi/linux/netlink.h`, `linux/netfilter/nfnetlink.h` and
//! `linux/netfilter/nfnetlink_conntrack.h`. Numbers in attributes are big-endian.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netlink_packet_core::{DecodeError, NLA_F_NESTED, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};

use super::OriginalTuple;
use crate::{kernel::netlink::attribute, model::Protocol};

/// The size of `struct nfgenmsg`: family, version and `res_id`.
pub(super) const GENERAL: usize = 4;

/// The subsystems `NFNL_SUBSYS_CTNETLINK` and `…_EXP`, the upper byte of a
/// message's type.
const CONNECTIONS: u16 = 1 << 8;
const EXPECTATIONS: u16 = 2 << 8;
/// The messages `IPCTNL_MSG_CT_GET`, `IPCTNL_MSG_EXP_GET`, and
/// `IPCTNL_MSG_CT_GET_STATS`.
const GET: u16 = 1;
const GET_STATS: u16 = 5;

/// The families `AF_UNSPEC`, `AF_INET` and `AF_INET6`.
const ANY: u8 = 0;
const INET: u8 = 2;
const INET6: u8 = 10;

/// The attributes `CTA_TUPLE_ORIG`, `CTA_STATUS`, `CTA_HELP` and
/// `CTA_STATUS_MASK` of `enum ctattr_type`.
const ORIGINAL: u16 = 1;
const STATUS: u16 = 3;
const HELP: u16 = 5;
const STATUS_MASK: u16 = 26;
/// The attribute `CTA_HELP_NAME`.
const HELPER_NAME: u16 = 1;
/// The attributes `CTA_TUPLE_IP` and `CTA_TUPLE_PROTO` of `enum ctattr_tuple`.
const ADDRESSES: u16 = 1;
const TRANSPORT: u16 = 2;
/// The attributes `CTA_PROTO_NUM`, `CTA_PROTO_SRC_PORT` and `…_DST_PORT` of `enum
/// ctattr_l4proto`.
const NUMBER: u16 = 1;
const SOURCE_PORT: u16 = 2;
const DESTINATION_PORT: u16 = 3;
/// The attributes `CTA_STATS_GLOBAL_ENTRIES` and `CTA_STATS_GLOBAL_MAX_ENTRIES`.
const ENTRIES: u16 = 1;
const MOST_ENTRIES: u16 = 2;

/// The status bit `IPS_HELPER`: the ruleset attached a helper
/// (`nf_conntrack_common.h`).
const HAS_HELPER: u32 = 1 << 13;

/// A query to conntrack.
#[derive(Clone, Copy, Debug)]
pub(super) enum ConntrackQuery<'a> {
    /// Asks for the connection with this original tuple.
    Connection(&'a OriginalTuple),
    /// Asks for the connections that the ruleset gave a helper.
    WithHelper,
    /// Asks for the number of connections.
    Usage,
    /// Asks for all expectations.
    Expectations,
}

/// An entry of conntrack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracked {
    /// The connection's helper.
    pub helper: Option<String>,
}

/// The fill level of a namespace's connection table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The number of connections.
    pub entries: u32,
    /// The limit of connections, `net.netfilter.nf_conntrack_max`: one number for
    /// the whole host, and each namespace may have as many.
    pub most: u32,
}

impl Tracked {
    /// Reads an entry. Returns `None` if the attributes are not a connection's.
    pub(super) fn read(attributes: &[u8]) -> Result<Option<Self>, DecodeError> {
        if attribute(attributes, ORIGINAL)?.is_none() {
            return Ok(None);
        }
        let help = attribute(attributes, HELP)?.unwrap_or_default();
        let name = attribute(help, HELPER_NAME)?;
        let name = name.map(|name| name.strip_suffix(b"\0").unwrap_or(name));
        Ok(Some(Self {
            helper: name.map(|name| String::from_utf8_lossy(name).into_owned()),
        }))
    }
}

impl Usage {
    pub(super) fn read(attributes: &[u8]) -> Result<Self, DecodeError> {
        let number = |kind| -> Result<u32, DecodeError> {
            let value = attribute(attributes, kind)?.and_then(|value| value.first_chunk());
            Ok(value.map_or(0, |bytes| u32::from_be_bytes(*bytes)))
        };
        Ok(Self {
            entries: number(ENTRIES)?,
            most: number(MOST_ENTRIES)?,
        })
    }
}

/// Returns the original tuple of a connection, or `None` if it is neither TCP nor
/// UDP.
pub(super) fn flow(attributes: &[u8]) -> Result<Option<OriginalTuple>, DecodeError> {
    let tuple = attribute(attributes, ORIGINAL)?.unwrap_or_default();
    let addresses = attribute(tuple, ADDRESSES)?.unwrap_or_default();
    let transport = attribute(tuple, TRANSPORT)?.unwrap_or_default();
    let protocol = match attribute(transport, NUMBER)? {
        Some([6]) => Protocol::Tcp,
        Some([17]) => Protocol::Udp,
        _ => return Ok(None),
    };
    let end = |addresses_of: [u16; 2], port| -> Result<Option<SocketAddr>, DecodeError> {
        let [v4, v6] = addresses_of;
        let port = attribute(transport, port)?.and_then(|port| port.first_chunk());
        let v4 = attribute(addresses, v4)?.and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
        let v6 = attribute(addresses, v6)?.and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
        let v4 = v4.map(|bytes| IpAddr::from(Ipv4Addr::from(bytes)));
        let ip = v4.or_else(|| v6.map(|bytes| Ipv6Addr::from(bytes).into()));
        let port = port.map(|port| u16::from_be_bytes(*port));
        Ok(ip.zip(port).map(|(ip, port)| SocketAddr::new(ip, port)))
    };
    let source = end([1, 3], SOURCE_PORT)?;
    let destination = end([2, 4], DESTINATION_PORT)?;
    let ends = source.zip(destination);
    Ok(ends.map(|(source, destination)| OriginalTuple {
        protocol,
        source,
        destination,
    }))
}

/// Returns the message for a query.
pub(super) fn question(what: ConntrackQuery<'_>, sequence: u32) -> Vec<u8> {
    // An answer of one message is followed by an acknowledgement, which says that
    // it was all.
    let (kind, flags, family, attributes) = match what {
        ConntrackQuery::Connection(flow) => {
            let family = if flow.destination.is_ipv4() {
                INET
            } else {
                INET6
            };
            (CONNECTIONS | GET, NLM_F_ACK, family, tuple(flow))
        }
        ConntrackQuery::WithHelper => {
            let bits = HAS_HELPER.to_be_bytes();
            let status = [one(STATUS, &bits), one(STATUS_MASK, &bits)].concat();
            (CONNECTIONS | GET, NLM_F_DUMP, ANY, status)
        }
        ConntrackQuery::Usage => (CONNECTIONS | GET_STATS, NLM_F_ACK, ANY, Vec::new()),
        ConntrackQuery::Expectations => (EXPECTATIONS | GET, NLM_F_DUMP, ANY, Vec::new()),
    };
    // `struct nlmsghdr`, whose port the kernel fills in, and `struct nfgenmsg`.
    let mut message = vec![0; 4];
    message.extend(kind.to_ne_bytes());
    message.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend([0; 4]);
    message.extend([family, 0, 0, 0]);
    message.extend(attributes);
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    message[..4].copy_from_slice(&length.to_ne_bytes());
    message
}

/// Returns the attribute `CTA_TUPLE_ORIG` for a connection.
fn tuple(flow: &OriginalTuple) -> Vec<u8> {
    let address = |[v4, v6]: [u16; 2], of: SocketAddr| match of.ip() {
        IpAddr::V4(ip) => one(v4, &ip.octets()),
        IpAddr::V6(ip) => one(v6, &ip.octets()),
    };
    let addresses = [
        address([1, 3], flow.source),
        address([2, 4], flow.destination),
    ];
    let transport = [
        one(NUMBER, &[flow.protocol as u8]),
        one(SOURCE_PORT, &flow.source.port().to_be_bytes()),
        one(DESTINATION_PORT, &flow.destination.port().to_be_bytes()),
    ];
    let parts = [
        one(ADDRESSES | NLA_F_NESTED, &addresses.concat()),
        one(TRANSPORT | NLA_F_NESTED, &transport.concat()),
    ];
    one(ORIGINAL | NLA_F_NESTED, &parts.concat())
}

/// Returns one attribute, padded to a multiple of four bytes.
fn one(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow_of(source: &str, destination: &str) -> OriginalTuple {
        OriginalTuple {
            protocol: Protocol::Tcp,
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        }
    }

    #[test]
    fn what_is_asked_for_is_read_back() {
        for flow in [
            flow_of("10.0.0.1:40000", "10.0.0.2:21"),
            flow_of("[fd00::1]:40000", "[fd00::2]:21"),
        ] {
            let asked = question(ConntrackQuery::Connection(&flow), 7);
            assert_eq!(asked.len() % 4, 0);
            let length = u32::from_ne_bytes(*asked.first_chunk().unwrap());
            assert_eq!(usize::try_from(length).unwrap(), asked.len());
            let family = if flow.source.is_ipv4() { INET } else { INET6 };
            assert_eq!(asked[16], family);
            let attributes = &asked[20..];
            assert_eq!(super::flow(attributes).unwrap(), Some(flow));
            let tracked = Tracked::read(attributes).unwrap();
            assert_eq!(tracked, Some(Tracked { helper: None }));
        }
    }

    #[test]
    fn a_helper_has_a_name() {
        let flow = flow_of("10.0.0.1:40000", "10.0.0.2:21");
        let help = one(HELP | NLA_F_NESTED, &one(HELPER_NAME, b"ftp\0"));
        let tracked = Tracked::read(&[tuple(&flow), help].concat()).unwrap();
        assert_eq!(tracked.unwrap().helper.as_deref(), Some("ftp"));
        assert_eq!(Tracked::read(&[]).unwrap(), None);
    }

    #[test]
    fn usage_is_two_numbers() {
        let both = [
            one(ENTRIES, &5_u32.to_be_bytes()),
            one(MOST_ENTRIES, &262_144_u32.to_be_bytes()),
        ];
        let usage = Usage {
            entries: 5,
            most: 262_144,
        };
        assert_eq!(Usage::read(&both.concat()).unwrap(), usage);
    }

    #[test]
    fn an_answer_that_is_cut_off_is_no_panic() {
        let flow = flow_of("[fd00::1]:40000", "[fd00::2]:21");
        let whole = tuple(&flow);
        for length in 0..whole.len() {
            let cut = &whole[..length];
            drop((super::flow(cut), Tracked::read(cut), Usage::read(cut)));
        }
    }
}
