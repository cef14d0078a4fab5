//! Classifies packets without tag or metadata whose headers are in the linear part,
//! which are almost all packets.

use aya_ebpf::programs::TcContext;
use conntrack_ebpf::{
    parse::{self, ETHERNET_HEADER, NotOurs},
    skb,
    skb_direct::Linear,
};

use crate::seen::Seen;

/// The packet is not of the kind that this module handles, so nothing is known of
/// it.
pub struct NotPlain;

/// Returns the key to look a packet up by, if it has one.
///
/// Nothing here is a call. Where the kernel keeps processors from speculating at
/// returns, one call takes more time than all of this.
///
/// # Errors
/// [`NotPlain`] if another path has to handle the packet.
#[inline(always)]
pub fn see(context: &TcContext) -> Result<Option<Seen>, NotPlain> {
    let ethertype = skb::ethertype(context);
    if !skb::starts_with_ethernet(context) || skb::has_metadata(context) {
        return Err(NotPlain);
    }
    match parse::control(&Linear(context), ethertype, ETHERNET_HEADER) {
        Ok(control) => Ok(Some(Seen {
            ethertype,
            network: ETHERNET_HEADER,
            control,
        })),
        // What is missing may also lie outside the linear part.
        Err(NotOurs::Truncated) => Err(NotPlain),
        Err(NotOurs::NotIp) if parse::is_tag(ethertype) => Err(NotPlain),
        Err(_) => Ok(None),
    }
}
