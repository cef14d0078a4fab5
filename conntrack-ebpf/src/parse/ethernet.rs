//! Parses the Ethernet header and VLAN tags.

use crate::packet::Packet;

/// The length of an Ethernet header, in bytes: where the network header starts.
pub const ETHERNET_HEADER: usize = 14;

/// The EtherType of IPv4 (IEEE 802).
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// The EtherType of IPv6 (IEEE 802).
pub const ETHERTYPE_IPV6: u16 = 0x86dd;

const CUSTOMER_TAG: u16 = 0x8100;
const SERVICE_TAG: u16 = 0x88a8;
/// The length of a VLAN tag, in bytes: its control information, and the EtherType
/// behind it.
const TAG: usize = 4;
/// The bits of the control information that hold the VLAN number; 0 stands for
/// none.
const VLAN: u16 = 0x0fff;

/// Returns the EtherType of an Ethernet frame (host byte order) and the start of
/// its network header, behind one VLAN tag if it has any. This is how a tc program
/// sees the frame, as the kernel removes one tag (`skb_vlan_untag`,
/// net/core/dev.c). A second tag is skipped as in [`behind_priority_tag`].
#[inline(always)]
pub fn ethernet<P: Packet + ?Sized>(frame: &P) -> (u16, usize) {
    const ETHERTYPE_AT: usize = 12;
    const BEHIND: usize = ETHERNET_HEADER + TAG;
    match frame.read(ETHERTYPE_AT).map_or(0, u16::from_be) {
        CUSTOMER_TAG | SERVICE_TAG => {
            // This is one read: of two, the compiler would combine the results of
            // one that failed, which the verifier refuses.
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

/// Returns the EtherType and the start of the network header of a frame whose
/// first tag, with this control information, was removed.
///
/// Where neither that tag nor a second one names a VLAN, the kernel removes both
/// and delivers the packet here (`__netif_receive_skb_core`, net/core/dev.c).
/// Otherwise a second tag is an EtherType of its own, and not IP: that frame is
/// for a VLAN interface stacked on this one. Of three or more tags in a row that
/// name no VLAN, two are removed.
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

/// Returns whether a VLAN tag follows, and not yet a packet.
#[inline(always)]
#[must_use]
pub const fn is_tag(ethertype: u16) -> bool {
    ethertype == CUSTOMER_TAG || ethertype == SERVICE_TAG
}
