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

mod announce;
mod carry;
mod hand_over;
mod maps;

use aya_ebpf::{
    bindings::{TC_ACT_UNSPEC, xdp_action::XDP_PASS},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use conntrack_ebpf::{
    frame::Frame,
    handover::{Found, Handover},
    lookup::{Hit, lookup},
    packet::Packet,
    parse,
    skb::{self, Skb},
};

use maps::Maps;

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// tcx or clsact ingress of an Ethernet interface.
///
/// Always `TC_ACT_UNSPEC` (`TCX_NEXT`): the verdict on a packet is never ours,
/// and programs behind this one on the hook see it too.
#[classifier]
pub fn classify(context: TcContext) -> i32 {
    let packet = Skb(&context);
    let (ethertype, network) = parse::behind_priority_tag(
        &packet,
        skb::vlan_control(&context),
        skb::ethertype(&context),
        skb::network(&context),
    );
    let found = match hand_over::take(&context) {
        Some(handover) => handover
            .found
            .and_then(|found| Some((found, found.mark(&Maps)?))),
        None => find(&packet, ethertype, network),
    };
    log_verdict(&context, found);
    let mark = match found {
        Some((found, mark)) => {
            maps::count(found.slot, u64::from(context.len()) - network as u64);
            if found.opens {
                announce::announce(&context, found, mark, (ethertype, network));
            }
            mark
        }
        None => 0,
    };
    carry::carry(&context, mark);
    TC_ACT_UNSPEC
}

/// XDP of an Ethernet interface whose tc ingress `classify` is on: finds what
/// that would find, and leaves it in the packet's metadata.
///
/// Always `XDP_PASS`.
#[xdp(frags)]
pub fn classify_xdp(context: XdpContext) -> u32 {
    if let Some(identity) = maps::identity().filter(|identity| identity.token != 0) {
        let frame = Frame(&context);
        let (ethertype, network) = parse::ethernet(&frame);
        let found = find(&frame, ethertype, network);
        #[expect(clippy::cast_possible_truncation, reason = "a __u32, widened")]
        let interface = context.ingress_ifindex() as u32;
        let handover = Handover {
            token: identity.token,
            interface,
            found: found.map(|(found, _)| found),
        };
        hand_over::leave(&context, handover);
    }
    XDP_PASS
}

/// The packet's rule and its helper mark.
#[inline(always)]
fn find<P: Packet>(packet: &P, ethertype: u16, network: usize) -> Option<(Found, u32)> {
    let control = parse::control(packet, ethertype, network).ok()?;
    let Hit { slot, mark } = lookup(&Maps, control.destination)?;
    let found = Found {
        destination: control.destination,
        slot,
        transport: control.transport,
        opens: parse::opens(packet, network, control),
    };
    Some((found, mark))
}

/// Nothing, unless built for debugging: then each hit, through aya-log.
#[inline(always)]
fn log_verdict(context: &TcContext, found: Option<(Found, u32)>) {
    #[cfg(feature = "log")]
    if let Some((found, mark)) = found {
        aya_log_ebpf::debug!(context, "slot {} mark {}", found.slot, mark);
    }
    #[cfg(not(feature = "log"))]
    let _ = (context, found);
}

/// The eBPF target needs a handler; no panic is left in the programs after
/// optimisation, and the verifier would refuse one.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
