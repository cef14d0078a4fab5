//! The maps of an instance, and those that all instances share.

use aya_ebpf::{
    macros::map,
    maps::{Array, PerCpuArray, RingBuf},
};
use conntrack_ebpf::{
    abi::{CounterGroup, Counters, Globals, Identity, Page, Slot, counter_place},
    event::{Limiter, RECENT_FLOWS, Recent},
    lookup::PortTable,
};

// The sizes are the default capacity; the agent sets its own.
#[map]
static PAGES: Array<Page> = Array::with_max_entries(15, 0);
#[map]
static SLOTS: Array<u64> = Array::with_max_entries(32, 0);
#[map]
static COUNTERS: PerCpuArray<CounterGroup> = PerCpuArray::with_max_entries(2, 0);
#[map]
static BASES: Array<Counters> = Array::with_max_entries(32, 0);
#[map]
static IDENTITY: Array<Identity> = Array::with_max_entries(1, 0);

// There is one of each of these for all instances.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(256 << 10, 0);
#[map]
pub static LIMITER: PerCpuArray<Limiter> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub static RECENT: PerCpuArray<Recent> = PerCpuArray::with_max_entries(RECENT_FLOWS, 0);

/// The globals, which the agent sets before it loads the programs, and which
/// are read-only from then on.
#[unsafe(link_section = ".rodata.globals")]
#[unsafe(no_mangle)]
static GLOBALS: Globals = Globals {
    mark_mask: 0,
    mark_shift: 0,
    agent: [0; 16],
    object: [0; 32],
};

/// The instance's own port table.
pub struct Maps;

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

/// Returns the identity of this instance.
#[inline(always)]
pub fn identity() -> Option<&'static Identity> {
    IDENTITY.get(0)
}

/// Returns the bits of `skb->mark` that are ours.
#[inline(always)]
pub fn mark_mask() -> u32 {
    global(&GLOBALS.mark_mask)
}

/// Returns a helper mark in its place among them.
#[inline(always)]
pub fn in_place(mark: u32) -> u32 {
    mark << (global(&GLOBALS.mark_shift) & 31)
}

/// Returns a global as it was set at load time. The read is volatile, or the
/// compiler would use the initial value.
#[inline(always)]
fn global(value: &'static u32) -> u32 {
    // SAFETY: a reference is valid for reads.
    unsafe { core::ptr::read_volatile(value) }
}

/// Counts one packet of a rule, with its bytes from the network header on.
#[inline(always)]
pub fn count(slot: u16, bytes: u64) {
    let (element, place) = counter_place(slot);
    let Some(group) = COUNTERS.get_ptr_mut(element) else {
        return;
    };
    // SAFETY: a pointer to this CPU's value in a per-CPU map, valid while the
    // program runs. tc ingress runs in softirq on one CPU at a time, so nothing
    // else writes this value meanwhile.
    let group = unsafe { &mut *group };
    let counters = &mut group[place];
    counters.packets += 1;
    counters.bytes += bytes;
}
