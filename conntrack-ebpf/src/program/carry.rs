//! Writes the helper mark where the binding reads it.

use aya_ebpf::programs::TcContext;
use conntrack_ebpf::{
    abi::{Carrier, in_priority, is_in_priority},
    skb,
};

use crate::maps;

/// Gives the packet this helper mark, 0 for none, and takes from it what it
/// brings along in either carrier.
#[inline(always)]
pub fn carry(context: &TcContext, helper_mark: u32) {
    const BY_PRIORITY: u64 = Carrier::Priority as u64;
    let is_by_priority = helper_mark != 0
        && maps::identity().is_some_and(|identity| identity.carrier == BY_PRIORITY);
    by_mark(context, if is_by_priority { 0 } else { helper_mark });
    by_priority(context, if is_by_priority { helper_mark } else { 0 });
}

#[inline(always)]
fn by_mark(context: &TcContext, helper_mark: u32) {
    let ours = maps::mark_mask();
    let before = skb::mark(context);
    // Masked too, so that not even a damaged slot reaches another's bits.
    let after = (before & !ours) | (maps::in_place(helper_mark) & ours);
    if after != before {
        skb::set_mark(context, after);
    }
}

#[inline(always)]
fn by_priority(context: &TcContext, helper_mark: u32) {
    let before = skb::priority(context);
    let after = if helper_mark != 0 {
        in_priority(helper_mark)
    } else if is_in_priority(before) {
        0
    } else {
        before
    };
    if after != before {
        skb::set_priority(context, after);
    }
}
