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

/// Sends an event for a packet that may be the first of its connection, unless its
/// flow was seen lately, there were too many at once, or the buffer is full, as no
/// reader empties it.
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
    // The value is hidden from the compiler, or it would duplicate the code above,
    // once for each protocol.
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
    // SAFETY: as for the counters, this is this CPU's own value.
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
    // It is written word by word: for more at once the compiler makes a function,
    // and the kernel keeps a page for each.
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

/// Returns the flow without the interface, or `None` if the packet has become
/// shorter since it was parsed.
#[inline(always)]
fn flow(packet: &Skb<'_>, seen: &Seen) -> Option<Flow> {
    Some(Flow {
        addresses: addresses(packet, seen.ethertype, seen.network)?,
        ports: packet.read(seen.network + seen.control.transport)?,
        interface: 0,
    })
}

/// Returns a packet's addresses as a [`Flow`] has them, or `None` if it ends too
/// early.
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

/// Returns a word that starts with these four bytes, whatever the byte order.
#[inline(always)]
const fn first_half([a, b, c, d]: [u8; 4]) -> u64 {
    u64::from_ne_bytes([a, b, c, d, 0, 0, 0, 0])
}

/// Returns the place where this CPU remembers the flow with this hash.
#[inline(always)]
fn recent(hash: u64) -> Option<&'static mut Recent> {
    let recent = RECENT.get_ptr_mut(recent_place(hash))?;
    // SAFETY: as for the counters, this is this CPU's own value.
    Some(unsafe { &mut *recent })
}

/// Returns the nanoseconds since the host started, with the precision of its
/// ticks.
#[inline(always)]
fn nanoseconds() -> u64 {
    // SAFETY: the helper takes no argument and reads a clock.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// Returns the kernel's ticks. It is no call: the verifier replaces it by the read
/// of a variable (`do_misc_fixups`, kernel/bpf/verifier.c).
#[inline(always)]
fn tick() -> u64 {
    // SAFETY: the helper takes no argument and reads a variable.
    unsafe { bpf_jiffies64() }
}
