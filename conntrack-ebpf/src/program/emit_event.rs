//! Emits events about new connections.

use aya_ebpf::{
    helpers::generated::{bpf_jiffies64, bpf_ktime_get_coarse_ns},
    programs::TcContext,
};
use conntrack_ebpf::{
    abi::{Identity, Protocol},
    event::{Flow, Opened, Recent, flow_hash, recent_place},
    lookup::Hit,
    packet::{Packet as _, opaque},
    parse::{self, ETHERTYPE_IPV4},
    skb::{self, Skb},
};

use crate::{
    maps::{EVENTS, LIMITER, RECENT},
    seen::Seen,
};

/// Sends an event of a packet that may be the first of its connection, unless
/// its flow was seen lately, there were too many at once, or nobody reads them.
#[inline(always)]
pub fn emit_event(context: &TcContext, identity: &Identity, seen: &Seen, hit: Hit) {
    let packet = Skb(context);
    if !parse::opens(&packet, seen.network, &seen.control) {
        return;
    }
    let Some(flow) = flow(&packet, seen) else {
        return;
    };
    let tick = tick();
    let protocol = seen.control.destination.protocol;
    // Hidden, or what is above would be there twice: once for each protocol.
    let recent = if opaque(protocol as usize) == Protocol::Udp as usize {
        let hash = flow_hash(identity.token, &flow);
        let recent = recent(hash);
        let is_fresh = |recent: &&mut Recent| recent.is_fresh(hash, tick);
        if recent.as_ref().is_some_and(is_fresh) {
            return;
        }
        recent.map(|recent| (hash, recent))
    } else {
        None
    };
    let Some(limiter) = LIMITER.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: as for the counters: this CPU's own value.
    let limiter = unsafe { &mut *limiter };
    let now = limiter.now(tick, nanoseconds);
    if let Some((hash, recent)) = recent
        && !recent.is_new(hash, now)
    {
        return;
    }
    if !limiter.admits() {
        return;
    }
    let event = &mut limiter.event;
    event.at = now.at;
    // Word by word: of more the compiler makes a function, and the kernel keeps a
    // page for each.
    let [r0, r1] = identity.router;
    event.router[0] = r0;
    event.router[1] = r1;
    let [a, b, c, d] = flow.addresses;
    event.flow.addresses[0] = a;
    event.flow.addresses[1] = b;
    event.flow.addresses[2] = c;
    event.flow.addresses[3] = d;
    event.flow.ports = flow.ports;
    event.flow.interface = skb::ifindex(context);
    event.mark = hit.mark.get();
    event.slot = hit.slot;
    event.protocol = protocol as u8;
    event.family = if seen.ethertype == ETHERTYPE_IPV4 {
        4
    } else {
        6
    };
    match EVENTS.output::<Opened>(&*event, 0) {
        Ok(()) => limiter.sent += 1,
        Err(_) => limiter.full += 1,
    }
}

/// Who talks to whom, but for the interface; none if the packet has become shorter
/// since it was parsed.
#[inline(always)]
fn flow(packet: &Skb<'_>, seen: &Seen) -> Option<Flow> {
    Some(Flow {
        addresses: addresses(packet, seen.ethertype, seen.network)?,
        ports: packet.read(seen.network + seen.control.transport)?,
        interface: 0,
    })
}

/// A packet's addresses as a [`Flow`] has them; none if it ends before.
#[inline(always)]
fn addresses(packet: &Skb<'_>, ethertype: u16, network: usize) -> Option<[u64; 4]> {
    if ethertype == ETHERTYPE_IPV4 {
        let both: u64 = packet.read(network + 12)?;
        let [a, b, c, d, destination @ ..] = both.to_ne_bytes();
        Some([first_half([a, b, c, d]), 0, first_half(destination), 0])
    } else {
        packet.read(network + 8)
    }
}

/// A word that starts with these four bytes, whatever the byte order.
#[inline(always)]
const fn first_half([a, b, c, d]: [u8; 4]) -> u64 {
    u64::from_ne_bytes([a, b, c, d, 0, 0, 0, 0])
}

/// Where this CPU remembers the flow with this hash.
#[inline(always)]
fn recent(hash: u64) -> Option<&'static mut Recent> {
    let recent = RECENT.get_ptr_mut(recent_place(hash))?;
    // SAFETY: as for the counters: this CPU's own value.
    Some(unsafe { &mut *recent })
}

/// Nanoseconds since the host started, as fine as its ticks.
#[inline(always)]
fn nanoseconds() -> u64 {
    // SAFETY: the helper takes nothing and reads a clock.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// The kernel's ticks. No call: the verifier puts the read of a variable in its
/// place (`do_misc_fixups`, kernel/bpf/verifier.c).
#[inline(always)]
fn tick() -> u64 {
    // SAFETY: the helper takes nothing and reads a variable.
    unsafe { bpf_jiffies64() }
}
