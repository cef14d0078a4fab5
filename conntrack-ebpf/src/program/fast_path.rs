//! Classifies packets without tag or metadata whose headers are in the linear part:
//! almost all of them.

use aya_ebpf::programs::TcContext;
use conntrack_ebpf::{
    parse::{self, ETHERNET_HEADER, NotOurs},
    skb,
    skb_direct::Linear,
};

use crate::seen::Seen;

/// Nothing is known of a packet: it is another than those that this module is for.
pub struct NotPlain;

/// What a packet is looked up by, if anything.
///
/// Nothing here is a call. Where processors are kept from speculating at returns,
/// one takes more time than all of this.
///
/// # Errors
/// [`NotPlain`] if another than the plain way has to tell.
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
        // Or what is missing lies elsewhere than in the linear part.
        Err(NotOurs::Truncated) => Err(NotPlain),
        Err(NotOurs::NotIp) if parse::is_tag(ethertype) => Err(NotPlain),
        Err(_) => Ok(None),
    }
}
