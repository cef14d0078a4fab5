//! Writes the helper mark where the binding reads it.

use aya_ebpf::programs::TcContext;
use conntrack_ebpf::{
    abi::{Carrier, Identity, in_priority, is_in_priority},
    skb,
};

use crate::maps;

/// Gives the packet this helper mark, and clears what it brings along in either
/// carrier.
#[inline(always)]
pub fn write_mark(context: &TcContext, identity: &Identity, helper_mark: u32) {
    const BY_PRIORITY: u64 = Carrier::Priority as u64;
    if identity.carrier == BY_PRIORITY {
        clear_mark(context);
        set_priority(context, in_priority(helper_mark));
    } else {
        // It is masked too, so that not even a damaged slot reaches another
        // owner's bits.
        set_mark(context, maps::in_place(helper_mark) & maps::mark_mask());
        clear_priority(context);
    }
}

/// Clears what the packet brings along in either carrier.
#[inline(always)]
pub fn clear(context: &TcContext) {
    clear_mark(context);
    clear_priority(context);
}

#[inline(always)]
fn set_mark(context: &TcContext, bits: u32) {
    let before = skb::mark(context);
    let after = (before & !maps::mark_mask()) | bits;
    if after != before {
        skb::set_mark(context, after);
    }
}

#[inline(always)]
fn clear_mark(context: &TcContext) {
    let (before, ours) = (skb::mark(context), maps::mark_mask());
    if before & ours != 0 {
        skb::set_mark(context, before & !ours);
    }
}

#[inline(always)]
fn set_priority(context: &TcContext, priority: u32) {
    if skb::priority(context) != priority {
        skb::set_priority(context, priority);
    }
}

#[inline(always)]
fn clear_priority(context: &TcContext) {
    if is_in_priority(skb::priority(context)) {
        skb::set_priority(context, 0);
    }
}
