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
    reason = "one program without calls: what the verifier knows of a value ends at a call"
)]
#![expect(
    missing_docs,
    unreachable_pub,
    clippy::needless_pass_by_value,
    reason = "what the classifier macro wants a program to be, and what it makes of it"
)]

use aya_ebpf::{
    bindings::TC_ACT_UNSPEC,
    macros::{classifier, map},
    maps::{Array, PerCpuArray},
    programs::TcContext,
};
use conntrack_ebpf::{
    abi::{CounterGroup, Counters, Globals, Page, Slot, counter_place},
    lookup::{Hit, PortTable, lookup},
    parse::{self, ETHERNET_HEADER},
    skb::{self, Skb},
};

// The sizes are those of the default capacity; the agent sets its own.
#[map]
static PAGES: Array<Page> = Array::with_max_entries(15, 0);
#[map]
static SLOTS: Array<u64> = Array::with_max_entries(32, 0);
#[map]
static COUNTERS: PerCpuArray<CounterGroup> = PerCpuArray::with_max_entries(2, 0);
#[map]
static BASES: Array<Counters> = Array::with_max_entries(32, 0);

/// Set by the agent before it loads the program, read-only from then on.
#[unsafe(link_section = ".rodata.globals")]
#[unsafe(no_mangle)]
static GLOBALS: Globals = Globals {
    mark_mask: 0,
    mark_shift: 0,
    agent: [0; 16],
    object: [0; 32],
};

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
    let destination = parse::destination(&packet, skb::ethertype(&context), ETHERNET_HEADER);
    let hit = match destination {
        Ok(destination) => lookup(&Maps, destination),
        Err(_) => None,
    };
    log_verdict(&context, hit);
    let bits = match hit {
        Some(Hit { slot, mark }) => {
            count(slot, context.len());
            mark << (global(&GLOBALS.mark_shift) & 31)
        }
        None => 0,
    };
    let ours = global(&GLOBALS.mark_mask);
    let before = skb::mark(&context);
    // Masked too, so that not even a damaged slot reaches another's bits.
    let after = (before & !ours) | (bits & ours);
    if after != before {
        context.set_mark(after);
    }
    TC_ACT_UNSPEC
}

/// A global as it was set at load time. Volatile, or the compiler would put the
/// initial value in its place.
#[inline(always)]
fn global(value: &'static u32) -> u32 {
    // SAFETY: a reference is valid for reads.
    unsafe { core::ptr::read_volatile(value) }
}

/// The instance's own maps.
struct Maps;

impl PortTable for Maps {
    #[inline(always)]
    fn page(&self, index: u16) -> Option<&Page> {
        PAGES.get(u32::from(index))
    }

    #[inline(always)]
    fn slot(&self, index: u16) -> Option<Slot> {
        SLOTS.get(u32::from(index)).copied().map(Slot::from_bits)
    }
}

#[inline(always)]
fn count(slot: u16, frame_length: u32) {
    let (element, place) = counter_place(slot);
    let Some(group) = COUNTERS.get_ptr_mut(element) else {
        return;
    };
    // SAFETY: a pointer to this CPU's value in a per-CPU map, valid while the
    // program runs. tc ingress runs in softirq on one CPU at a time, so nobody
    // else writes this value meanwhile.
    let group = unsafe { &mut *group };
    let counters = &mut group[place];
    counters.packets += 1;
    counters.bytes += u64::from(frame_length) - ETHERNET_HEADER as u64;
}

/// Nothing, unless built for debugging: then each hit, through aya-log.
#[inline(always)]
fn log_verdict(context: &TcContext, hit: Option<Hit>) {
    #[cfg(feature = "log")]
    if let Some(Hit { slot, mark }) = hit {
        aya_log_ebpf::debug!(context, "slot {} mark {}", slot, mark);
    }
    #[cfg(not(feature = "log"))]
    let _ = (context, hit);
}

/// The eBPF target needs a handler; no panic is left in the program after
/// optimisation, and the verifier would refuse one.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
