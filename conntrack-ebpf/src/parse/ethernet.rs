//! The Ethernet header, and one VLAN tag.

use crate::packet::Packet;

/// Length of an Ethernet header, in bytes: where the network header starts.
pub const ETHERNET_HEADER: usize = 14;

/// IEEE 802's number of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// IEEE 802's number of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;

/// The EtherType of an Ethernet frame (host byte order) and where its network
/// header starts, behind one VLAN tag if it has any: so a tc program sees it,
/// from which the kernel takes one tag off (`skb_vlan_untag`, net/core/dev.c).
///
/// A second tag is an EtherType of its own, and no IP: that frame is for a VLAN
/// interface stacked on this one.
#[inline(always)]
pub fn ethernet<P: Packet + ?Sized>(frame: &P) -> (u16, usize) {
    const ETHERTYPE_AT: usize = 12;
    const CUSTOMER_TAG: u16 = 0x8100;
    const SERVICE_TAG: u16 = 0x88a8;
    const TAG: usize = 4;
    let ethertype = |at| frame.read(at).map_or(0, u16::from_be);
    match ethertype(ETHERTYPE_AT) {
        CUSTOMER_TAG | SERVICE_TAG => (ethertype(ETHERTYPE_AT + TAG), ETHERNET_HEADER + TAG),
        plain => (plain, ETHERNET_HEADER),
    }
}
