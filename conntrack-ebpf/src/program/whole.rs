//! Every packet, whatever its shape.

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use conntrack_ebpf::{
    packet::hidden,
    parse,
    skb::{self, Skb},
};

use crate::{hand_over, seen::Seen};

/// What a packet of any shape is looked up by, if anything.
#[inline(always)]
pub fn see(context: &TcContext) -> Option<Seen> {
    // Or the compiler would keep what it has read of it for a packet that never
    // comes here, and that one would pay.
    let context = &TcContext::new(hidden(context.skb.skb as usize) as *mut __sk_buff);
    let packet = Skb(context);
    let (ethertype, network) = parse::behind_priority_tag(
        &packet,
        skb::vlan_control(context),
        skb::ethertype(context),
        skb::network(context),
    );
    let control = match hand_over::take(context) {
        Some(handover) => handover.found?.control(),
        None => parse::control(&packet, ethertype, network).ok()?,
    };
    Some(Seen {
        ethertype,
        network,
        control,
    })
}
