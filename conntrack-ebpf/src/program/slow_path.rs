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

/// What a packet of any shape is looked up by, if anything.
#[inline(always)]
pub fn see(context: &TcContext) -> Option<Seen> {
    // Or the compiler would keep what it has read of it for a packet that never
    // comes here, and that one would pay.
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

/// The same. Where it came from, and so what the verifier knows of it, is of no use
/// for what follows, through which it would go once for each.
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
