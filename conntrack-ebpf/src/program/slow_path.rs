//! Classifies packets of any shape.

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use conntrack_ebpf::{
    abi::{Destination, Protocol},
    packet::{Packet, opaque},
    parse::{self, Control},
    skb::{self, Skb},
    skb_copied::Copied,
};

use crate::{seen::Seen, xdp_metadata};

/// Returns the key to look a packet of any shape up by, if it has one.
#[inline(always)]
pub fn see(context: &TcContext) -> Option<Seen> {
    // The context is hidden from the compiler, which would otherwise keep what it
    // has read of it for packets that never come here, at their cost.
    let context = &TcContext::new(opaque(context.skb.skb as usize) as *mut __sk_buff);
    let packet = Copied(Skb(context));
    let (ethertype, network) = parse::behind_priority_tag(
        &packet,
        skb::vlan_control(context),
        skb::ethertype(context),
        skb::network(context),
    );
    let network = packet.forget(network, context.len());
    let control = match xdp_metadata::take(context) {
        Some(handover) => handover.found?.control(),
        None => parse::control(&packet, ethertype, network).ok()?,
    };
    Some(forget(&packet, context.len(), ethertype, network, control))
}

/// Returns the same facts after the verifier has forgotten their origin. It is of
/// no use for what follows, which the verifier would check once for each origin.
#[inline(always)]
fn forget(packet: &impl Packet, by: u32, ethertype: u16, network: usize, control: Control) -> Seen {
    let blur = |value| packet.forget(value, by);
    let Destination { protocol, port } = control.destination;
    #[expect(clippy::cast_possible_truncation, reason = "it was one")]
    let ethertype = blur(ethertype.into()) as u16;
    let protocol = if blur(protocol as usize) == Protocol::Tcp as usize {
        Protocol::Tcp
    } else {
        Protocol::Udp
    };
    Seen {
        ethertype,
        network,
        control: Control {
            destination: Destination { protocol, port },
            transport: blur(control.transport),
            length: blur(control.length),
        },
    }
}
