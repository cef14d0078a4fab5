//! The interfaces of a namespace.

use std::io;

use netlink_packet_core::DecodeError;
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkExtentMask, LinkHeader, LinkLayerType, LinkMessage},
};

use super::netlink::{Route, attribute};

/// `IFLA_IFNAME`, `include/uapi/linux/if_link.h`.
const IFLA_IFNAME: u16 = 3;

/// `struct ifinfomsg`, include/uapi/linux/rtnetlink.h.
const HEADER: usize = 16;

/// A network interface of some namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its number, unique only inside its namespace.
    pub index: u32,
    /// Its name, at the moment when it was asked for.
    pub name: String,
    /// What kind of link it is.
    pub kind: Kind,
}

/// What matters about a link's layer 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Packets start with an Ethernet header.
    Ethernet,
    /// The loopback: nothing of a router's traffic enters there.
    Loopback,
    /// Anything else, a tunnel say.
    Other,
}

/// The interfaces of the socket's namespace, by rising index.
///
/// # Errors
/// [`Route::dump`]'s.
pub(super) fn interfaces(route: &mut Route) -> io::Result<Vec<Interface>> {
    let mut ask = LinkMessage::default();
    // Counters of every kind are most of what the kernel says otherwise.
    ask.attributes
        .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    let mut found = route.dump(&RouteNetlinkMessage::GetLink(ask), |link| {
        read(link).map(Some)
    })?;
    found.sort_by_key(|interface| interface.index);
    Ok(found)
}

fn read(link: &[u8]) -> Result<Interface, DecodeError> {
    let header = LinkHeader::parse(link)?;
    let attributes = link.get(HEADER..).unwrap_or_default();
    // The kernel allows any bytes; the number is what the agent goes by.
    let name = attribute(attributes, IFLA_IFNAME)?.unwrap_or_default();
    let name = String::from_utf8_lossy(name);
    Ok(Interface {
        index: header.index,
        name: name.trim_end_matches('\0').to_owned(),
        kind: kind(header.link_layer_type),
    })
}

const fn kind(layer: LinkLayerType) -> Kind {
    match layer {
        LinkLayerType::Ether => Kind::Ethernet,
        LinkLayerType::Loopback => Kind::Loopback,
        _ => Kind::Other,
    }
}
