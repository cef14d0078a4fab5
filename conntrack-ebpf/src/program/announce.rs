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
    let Some((family, flow)) = flow(context, found, at) else {
        return;
    };
    // SAFETY: the helper takes nothing and reads a clock.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    if found.destination.protocol == Protocol::Udp {
        let hash = flow_hash(identity.token, &flow);
        if let Some(recent) = RECENT.get_ptr_mut(recent_place(hash)) {
            // SAFETY: as for the counters: this CPU's own value.
            let recent = unsafe { &mut *recent };
            if !recent.is_new(hash, now) {
                return;
            }
        }
    }
    let Some(limiter) = LIMITER.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: as for the counters: this CPU's own value.
    let limiter = unsafe { &mut *limiter };
    if !limiter.admits(now) {
        return;
    }
    let event = Opened {
        at: now,
        router: identity.router,
        flow,
        mark,
        slot: found.slot,
        protocol: found.destination.protocol as u8,
        family,
    };
    match EVENTS.output::<Opened>(&event, 0) {
        Ok(()) => limiter.sent += 1,
        Err(_) => limiter.full += 1,
    }
}

/// The family and the flow of a packet; none if it has become shorter since it
/// was parsed.
#[inline(always)]
fn flow(
    context: &TcContext,
    found: Found,
    (ethertype, network): (u16, usize),
) -> Option<(u8, Flow)> {
    let mut flow = Flow {
        interface: skb::ifindex(context),
        ..Flow::default()
    };
    let transport = network + usize::from(found.transport);
    skb::load(context, transport, &mut flow.ports)?;
    if ethertype == ETHERTYPE_IPV4 {
        let (mut source, mut destination) = (0_u32, 0_u32);
        skb::load(context, network + 12, &mut source)?;
        skb::load(context, network + 16, &mut destination)?;
        flow.addresses = [first_half(source), 0, first_half(destination), 0];
        Some((4, flow))
    } else {
        skb::load(context, network + 8, &mut flow.addresses)?;
        Some((6, flow))
    }
}

/// A word that starts with these four bytes, whatever the byte order.
#[inline(always)]
const fn first_half(bytes: u32) -> u64 {
    let [a, b, c, d] = bytes.to_ne_bytes();
    u64::from_ne_bytes([a, b, c, d, 0, 0, 0, 0])
}
