//! Parses the Ethernet header and VLAN tags.

use crate::packet::Packet;

/// Length of an Ethernet header, in bytes: where the network header starts.
pub const ETHERNET_HEADER: usize = 14;

/// IEEE 802's number of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// IEEE 802's number of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;

const CUSTOMER_TAG: u16 = 0x8100;
const SERVICE_TAG: u16 = 0x88a8;
/// A tag's length, in bytes: its control information, and the EtherType behind.
const TAG: usize = 4;
/// The bits of the control information that say the VLAN; 0 stands for none.
const VLAN: u16 = 0x0fff;

/// The EtherType of an Ethernet frame (host byte order) and where its network
/// header starts, behind one VLAN tag if it has any: so a tc program sees it,
/// from which the kernel takes one tag off (`skb_vlan_untag`, net/core/dev.c);
/// and behind a second one, as [`behind_priority_tag`] says.
#[inline(always)]
pub fn ethernet<P: Packet + ?Sized>(frame: &P) -> (u16, usize) {
    const ETHERTYPE_AT: usize = 12;
    const BEHIND: usize = ETHERNET_HEADER + TAG;
    match frame.read(ETHERTYPE_AT).map_or(0, u16::from_be) {
        CUSTOMER_TAG | SERVICE_TAG => {
            // In one read: of two, the compiler combines what it has of one that
            // failed, which the verifier refuses.
            let Some(tag) = frame.read::<u32>(ETHERNET_HEADER) else {
                return (0, BEHIND);
            };
            let [high, low, ethertype @ ..] = tag.to_ne_bytes();
            let control = u16::from_be_bytes([high, low]);
            behind_priority_tag(frame, control, u16::from_be_bytes(ethertype), BEHIND)
        }
        plain => (plain, ETHERNET_HEADER),
    }
}

/// The EtherType and the start of the network header, of a frame whose first tag,
/// with this control information, was taken off.
///
/// Where that tag names no VLAN, and so does a second one, the kernel takes both
/// off and delivers the packet here (`__netif_receive_skb_core`, net/core/dev.c).
/// Otherwise a second tag is an EtherType of its own, and no IP: that frame is for
/// a VLAN interface stacked on this one. Of three or more tags in a row that name
/// no VLAN, two are taken off.
#[inline(always)]
pub fn behind_priority_tag<P: Packet + ?Sized>(
    packet: &P,
    control: u16,
    ethertype: u16,
    network: usize,
) -> (u16, usize) {
    if is_tag(ethertype)
        && control & VLAN == 0
        && let Some(tag) = packet.copy::<u32>(network)
    {
        let [high, low, ethertype @ ..] = tag.to_ne_bytes();
        if u16::from_be_bytes([high, low]) & VLAN == 0 {
            return (u16::from_be_bytes(ethertype), network + TAG);
        }
    }
    (ethertype, network)
}

/// Whether a VLAN tag follows, and no packet yet.
#[inline(always)]
#[must_use]
pub const fn is_tag(ethertype: u16) -> bool {
    ethertype == CUSTOMER_TAG || ethertype == SERVICE_TAG
}
