//! What is on the wire: addresses, frames, and who sends them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The IP version of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

/// From which side of the router a frame comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::Client, Self::Server];

    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }

    /// The last byte of the MAC address of hosts on this side.
    const fn host(self) -> u8 {
        match self {
            Self::Client => 0xc1,
            Self::Server => 0x52,
        }
    }

    /// The last byte of the MAC address of the router on this side.
    const fn router(self) -> u8 {
        match self {
            Self::Client => 0x01,
            Self::Server => 0x02,
        }
    }

    pub(crate) const fn host_mac(self) -> [u8; 6] {
        [2, 0, 0, 0, 0, self.host()]
    }

    pub(crate) const fn router_mac(self) -> [u8; 6] {
        [2, 0, 0, 0, 0, self.router()]
    }

    const fn network(self) -> u8 {
        match self {
            Self::Client => 1,
            Self::Server => 2,
        }
    }

    /// The address with this number on this side; the router's is 1.
    pub(crate) fn address(self, family: Family, number: u8) -> IpAddr {
        let network = self.network();
        match family {
            Family::V4 => Ipv4Addr::new(10, network, 0, number).into(),
            Family::V6 => {
                let number = u16::from(number);
                Ipv6Addr::new(0xfd00, u16::from(network), 0, 0, 0, 0, 0, number).into()
            }
        }
    }
}

/// The router's own number on each side.
pub(crate) const ROUTER: u8 = 1;
/// The hosts' numbers on each side.
pub(crate) const HOSTS: [u8; 4] = [10, 11, 12, 13];
/// The host that only the last frame of a run comes from.
pub(crate) const LAST: u8 = 99;

pub(crate) const ETHERTYPE_IPV4: u16 = 0x0800;
pub(crate) const ETHERTYPE_IPV6: u16 = 0x86dd;

/// One frame, and where it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) from: Side,
    /// Whether the kernel may keep it until others come.
    pub(crate) may_wait: bool,
    pub(crate) bytes: Vec<u8>,
}

impl Frame {
    /// An IP packet on its way into the router, behind these VLAN tags
    /// (EtherType and tag control information each).
    pub(crate) fn new(from: Side, family: Family, tags: &[(u16, u16)], packet: &[u8]) -> Self {
        let ethertype = match family {
            Family::V4 => ETHERTYPE_IPV4,
            Family::V6 => ETHERTYPE_IPV6,
        };
        let mut bytes = [from.router_mac(), from.host_mac()].concat();
        for (kind, control) in tags {
            bytes.extend(kind.to_be_bytes());
            bytes.extend(control.to_be_bytes());
        }
        bytes.extend(ethertype.to_be_bytes());
        bytes.extend(packet);
        Self {
            from,
            may_wait: false,
            bytes,
        }
    }
}
