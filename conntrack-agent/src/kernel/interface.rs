//! Lists the interfaces of a namespace.

use std::io;

use netlink_packet_core::{DecodeError, parse_u32};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkExtentMask, LinkHeader, LinkLayerType, LinkMessage},
};

use super::{
    XdpProgram,
    netlink::{Route, attribute},
};

/// The attribute `IFLA_IFNAME`, `include/uapi/linux/if_link.h`.
const IFLA_IFNAME: u16 = 3;
/// The attributes `IFLA_MTU` and `IFLA_XDP` there.
const IFLA_MTU: u16 = 4;
const IFLA_XDP: u16 = 43;

/// The size of `struct ifinfomsg`, include/uapi/linux/rtnetlink.h.
const HEADER: usize = 16;

/// A network interface of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The interface's number, unique only inside its namespace.
    pub index: u32,
    /// The interface's name at the time of the query.
    pub name: String,
    /// The kind of its link.
    pub kind: LinkKind,
}

/// The kind of a link's layer 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// Packets start with an Ethernet header.
    Ethernet,
    /// The link is the loopback, where nothing of a router's traffic enters.
    Loopback,
    /// The link is of any other kind, such as a tunnel.
    Other,
}

/// An interface as the kernel lists it.
pub(super) struct Listed {
    pub(super) interface: Interface,
    pub(super) mtu: u32,
    /// The interface's XDP program, if it has one.
    pub(super) xdp: Option<XdpProgram>,
}

/// Returns the interfaces of the socket's namespace, by rising index.
///
/// # Errors
/// The errors of [`Route::dump`].
pub(super) fn interfaces(route: &mut Route) -> io::Result<Vec<Listed>> {
    let mut ask = LinkMessage::default();
    // Counters of every kind would otherwise be most of the answer.
    ask.attributes
        .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    let mut found = route.dump(&RouteNetlinkMessage::GetLink(ask), |link| {
        read(link).map(Some)
    })?;
    found.sort_by_key(|listed| listed.interface.index);
    Ok(found)
}

fn read(link: &[u8]) -> Result<Listed, DecodeError> {
    let header = LinkHeader::parse(link)?;
    let attributes = link.get(HEADER..).unwrap_or_default();
    // The kernel allows any bytes in a name; the agent goes by the number.
    let name = attribute(attributes, IFLA_IFNAME)?.unwrap_or_default();
    let name = String::from_utf8_lossy(name);
    let mtu = attribute(attributes, IFLA_MTU)?
        .map(parse_u32)
        .transpose()?;
    let xdp = attribute(attributes, IFLA_XDP)?
        .map(XdpProgram::read)
        .transpose()?;
    Ok(Listed {
        interface: Interface {
            index: header.index,
            name: name.trim_end_matches('\0').to_owned(),
            kind: kind(header.link_layer_type),
        },
        mtu: mtu.unwrap_or_default(),
        xdp: xdp.flatten(),
    })
}

const fn kind(layer: LinkLayerType) -> LinkKind {
    match layer {
        LinkLayerType::Ether => LinkKind::Ethernet,
        LinkLayerType::Loopback => LinkKind::Loopback,
        _ => LinkKind::Other,
    }
}
