//! Tells of connections that begin.

use aya_ebpf::{helpers::generated::bpf_ktime_get_coarse_ns, programs::TcContext};
use conntrack_ebpf::{
    abi::Protocol,
    event::{Flow, Opened, flow_hash, recent_place},
    handover::Found,
    parse::ETHERTYPE_IPV4,
    skb,
};

use crate::maps::{EVENTS, LIMITER, RECENT, identity};

/// Sends an event of a packet that may be the first of its connection, unless
/// its flow was seen lately, there were too many at once, or nobody reads them.
/// `at` is its EtherType, and where its network header starts.
#[inline(always)]
pub fn announce(context: &TcContext, found: Found, mark: u32, at: (u16, usize)) {
    let Some(identity) = identity() else {
        return;
    };
    let Some(limiter) = LIMITER.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: as for the counters: this CPU's own value.
    let limiter = unsafe { &mut *limiter };
    let Some(family) = flow(context, found, at, &mut limiter.event.flow) else {
        return;
    };
    // SAFETY: the helper takes nothing and reads a clock.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    if found.destination.protocol == Protocol::Udp {
        let hash = flow_hash(identity.token, &limiter.event.flow);
        if let Some(recent) = RECENT.get_ptr_mut(recent_place(hash)) {
            // SAFETY: as for the counters: this CPU's own value.
            let recent = unsafe { &mut *recent };
            if !recent.is_new(hash, now) {
                return;
            }
        }
    }
    if !limiter.admits(now) {
        return;
    }
    let event = &mut limiter.event;
    event.at = now;
    event.router = identity.router;
    event.mark = mark;
    event.slot = found.slot;
    event.protocol = found.destination.protocol as u8;
    event.family = family;
    match EVENTS.output::<Opened>(&*event, 0) {
        Ok(()) => limiter.sent += 1,
        Err(_) => limiter.full += 1,
    }
}

/// Writes down the flow of a packet, and gives its family; none if it has become
/// shorter since it was parsed.
#[inline(always)]
fn flow(
    context: &TcContext,
    found: Found,
    (ethertype, network): (u16, usize),
    flow: &mut Flow,
) -> Option<u8> {
    flow.interface = skb::ifindex(context);
    let transport = network + usize::from(found.transport);
    skb::load(context, transport, &mut flow.ports)?;
    if ethertype == ETHERTYPE_IPV4 {
        let mut both = 0_u64;
        skb::load(context, network + 12, &mut both)?;
        let [a, b, c, d, destination @ ..] = both.to_ne_bytes();
        flow.addresses = [first_half([a, b, c, d]), 0, first_half(destination), 0];
        Some(4)
    } else {
        skb::load(context, network + 8, &mut flow.addresses)?;
        Some(6)
    }
}

/// A word that starts with these four bytes, whatever the byte order.
#[inline(always)]
const fn first_half([a, b, c, d]: [u8; 4]) -> u64 {
    u64::from_ne_bytes([a, b, c, d, 0, 0, 0, 0])
}
