//! Writes and reads the metadata in front of a packet.

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::bpf_xdp_adjust_meta,
    programs::{TcContext, XdpContext},
};
use conntrack_ebpf::{
    handover::{Handover, Raw},
    packet::{Word, store},
    skb,
};

use crate::maps::identity;

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "24"
)]
const SIZE: i32 = Handover::SIZE as i32;

/// Leaves the result for the tc program. Where that fails, the tc program finds
/// it itself.
#[inline(always)]
pub fn leave(context: &XdpContext, raw: Raw) {
    // SAFETY: the helper moves the start of the metadata, or fails; after it,
    // only pointers into the packet that are read anew are used.
    let failed = unsafe { bpf_xdp_adjust_meta(context.as_ptr().cast(), -SIZE) };
    if failed != 0 {
        return;
    }
    let start = context.metadata();
    if start + Handover::SIZE > context.metadata_end() {
        return;
    }
    // SAFETY: the comparison above is the one by which the verifier allows this
    // write.
    unsafe { store(raw.to_words(), start) };
}

/// Returns what was left for this instance on this interface.
#[inline(always)]
pub fn take(context: &TcContext) -> Option<Handover> {
    let (start, end) = (skb::metadata(context), context.data());
    if start + Handover::SIZE > end {
        return None;
    }
    // SAFETY: the comparison above is the one by which the verifier allows this
    // read.
    let words = unsafe { Word::load(start) };
    let raw = Raw::from_words(words);
    Handover::from_raw(raw, identity()?.token, skb::ifindex(context))
}
