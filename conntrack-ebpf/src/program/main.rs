//! The classifier: writes a helper mark into the metadata of packets whose
//! protocol and destination port have a rule, and clears it from all others.
#![no_std]
#![no_main]
#![expect(
    unsafe_code,
    reason = "a program's sections, globals and maps cannot be written without"
)]
#![expect(
    clippy::inline_always,
    reason = "programs without calls: what the verifier knows of a value ends at a call"
)]
#![expect(
    missing_docs,
    unreachable_pub,
    clippy::needless_pass_by_value,
    reason = "what the macros want a program to be, and what they make of it"
)]

mod emit_event;
mod fast_path;
mod maps;
mod seen;
mod slow_path;
mod write_mark;
mod xdp_metadata;

use aya_ebpf::{
    bindings::{TC_ACT_UNSPEC, xdp_action::XDP_PASS},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use conntrack_ebpf::{
    handover::{Found, Handover},
    lookup::{Hit, lookup},
    packet::Packet,
    parse,
    xdp_frame::Frame,
};

use fast_path::NotPlain;
use maps::Maps;

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Classifies packets on the tcx or clsact ingress of an Ethernet interface.
///
/// Always returns `TC_ACT_UNSPEC` (`TCX_NEXT`): the verdict on a packet is never
/// ours, and programs behind this one on the hook see it too.
#[classifier]
pub fn classify(context: TcContext) -> i32 {
    let seen = fast_path::see(&context).unwrap_or_else(|NotPlain| slow_path::see(&context));
    let found = seen.and_then(|seen| {
        let hit = lookup(&Maps, seen.control.destination)?;
        Some((seen, hit, maps::identity()?))
    });
    if let Some((seen, hit, identity)) = found {
        log_verdict(&context, hit);
        maps::count(hit.slot, u64::from(context.len()) - seen.network as u64);
        emit_event::emit_event(&context, identity, &seen, hit);
        write_mark::write_mark(&context, identity, hit.mark.get());
    } else {
        write_mark::clear(&context);
    }
    TC_ACT_UNSPEC
}

/// Looks up packets on the XDP hook of an Ethernet interface whose tc ingress has
/// `classify`, and leaves the result in the packet's metadata.
///
/// Always returns `XDP_PASS`.
#[xdp(frags)]
pub fn classify_xdp(context: XdpContext) -> u32 {
    if let Some(identity) = maps::identity().filter(|identity| identity.token != 0) {
        let frame = Frame(&context);
        let (ethertype, network) = parse::ethernet(&frame);
        let network = frame.forget(network, ethertype.into());
        #[expect(clippy::cast_possible_truncation, reason = "a __u32, widened")]
        let interface = context.ingress_ifindex() as u32;
        let handover = |found| Handover {
            token: identity.token,
            interface,
            found,
        };
        // The two branches do the same: with one for both, the compiler uses
        // registers that were never written where nothing is found.
        let raw = match find(&frame, ethertype, network) {
            Some(found) => handover(Some(found)).to_raw(),
            None => handover(None).to_raw(),
        };
        xdp_metadata::leave(&context, raw);
    }
    XDP_PASS
}

/// Returns the packet's rule, and the facts about the packet that are needed with
/// it.
#[inline(always)]
fn find<P: Packet>(packet: &P, ethertype: u16, network: usize) -> Option<Found> {
    let control = parse::control(packet, ethertype, network).ok()?;
    let hit = lookup(&Maps, control.destination)?;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "at most 40 and MOST_HEADERS times 2048"
    )]
    let transport = control.transport as u16;
    Some(Found {
        destination: control.destination,
        slot: hit.slot,
        transport,
        opens: parse::opens(packet, network, &control),
    })
}

/// Logs each hit through aya-log when built for debugging; does nothing
/// otherwise.
#[inline(always)]
fn log_verdict(context: &TcContext, hit: Hit) {
    #[cfg(feature = "log")]
    aya_log_ebpf::debug!(context, "slot {} mark {}", hit.slot, hit.mark.get());
    #[cfg(not(feature = "log"))]
    let _ = (context, hit);
}

/// Handles panics, which the eBPF target requires. No panic is left in the
/// programs after optimisation, and the verifier would refuse one.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
