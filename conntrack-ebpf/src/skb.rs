//! A packet as a tc program sees it.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::bpf_hdr_start_off::BPF_HDR_START_NET,
    helpers::generated::{bpf_skb_load_bytes, bpf_skb_load_bytes_relative},
    programs::TcContext,
};

use crate::{
    packet::{Packet, Word, bounded, direct, forget},
    parse::ETHERNET_HEADER,
};

/// An skb at tc ingress; offsets count from its Ethernet header, except as
/// [`network`] says.
pub struct Skb<'a>(pub &'a TcContext);

impl Skb<'_> {
    /// Reads a word in the part of the packet that the program can read directly.
    #[inline(always)]
    fn direct<T: Word>(&self, offset: usize) -> Option<T> {
        direct(self.0.data(), self.0.data_end(), bounded(offset)?)
    }
}

impl Packet for Skb<'_> {
    #[inline(always)]
    fn read<T: Word>(&self, offset: usize) -> Option<T> {
        self.direct(offset).or_else(|| self.copy(offset))
    }

    #[inline(always)]
    fn read_or_zero<T: Word>(&self, offset: usize) -> T {
        self.read(offset).unwrap_or_default()
    }

    #[inline(always)]
    fn copy<T: Word>(&self, offset: usize) -> Option<T> {
        let mut word = MaybeUninit::<T>::uninit();
        #[expect(clippy::cast_possible_truncation, reason = "offsets in a packet")]
        let (offset, length) = (offset as u32, size_of::<T>() as u32);
        // SAFETY: the helper writes as many bytes as `T` has.
        #[expect(unsafe_code, reason = "the call has no safe form")]
        let failed = unsafe {
            let skb = self.0.skb.skb.cast();
            bpf_skb_load_bytes(skb, offset, word.as_mut_ptr().cast(), length)
        };
        if failed != 0 {
            return None;
        }
        // SAFETY: the helper has written it, and any bytes are a `Word`.
        #[expect(unsafe_code, reason = "nothing is written twice")]
        let word = unsafe { word.assume_init() };
        Some(word)
    }

    #[inline(always)]
    fn forget(&self, value: usize, by: u32) -> usize {
        forget(value, by)
    }

    #[inline(always)]
    fn has(&self, length: usize) -> bool {
        length <= self.0.len() as usize
    }

    #[inline(always)]
    fn is_merged(&self, _: usize) -> bool {
        gso_size(self.0) != 0
    }
}

/// Returns the start of the packet's network header: behind the Ethernet header,
/// or at 0.
///
/// tc shows an skb from its Ethernet header on by going back `skb->mac_len` bytes.
/// A generic XDP program of any owner may have made the kernel copy the skb
/// before, and since Linux 6.9 that copy's `mac_len` is 0 (`skb_pp_cow_data`,
/// net/core/skbuff.c; seen on 6.18 with a veth). Without this check the sender
/// could then choose what is taken for the ports.
#[inline(always)]
#[must_use]
pub fn network(context: &TcContext) -> usize {
    if !first_byte::<ETHERNET_HEADER>(context).is_some_and(may_be_ip) {
        return ETHERNET_HEADER;
    }
    // Without an Ethernet header in front, the linear part ends this far behind
    // the network header; with one, it ends 14 bytes earlier.
    let offset = context.data_end() - context.data() - ETHERNET_HEADER;
    let mut last = 0_u8;
    #[expect(clippy::cast_possible_truncation, reason = "within a packet")]
    let offset = offset as u32;
    // SAFETY: the helper writes one byte, or fails.
    #[expect(unsafe_code, reason = "the call has no safe form")]
    let failed = unsafe {
        let into = core::ptr::from_mut(&mut last).cast();
        bpf_skb_load_bytes_relative(context.skb.skb.cast(), offset, into, 1, BPF_HDR_START_NET)
    };
    if failed == 0 { 0 } else { ETHERNET_HEADER }
}

/// Returns whether the packet starts with bytes of an Ethernet header that can't
/// be an IP header: then [`network`] is behind it. Requires as much of the packet
/// as is read of an IPv4 header, so that both are one comparison; every packet has
/// it.
#[inline(always)]
#[must_use]
pub fn starts_with_ethernet(context: &TcContext) -> bool {
    const LEAST: usize = ETHERNET_HEADER + 16;
    first_byte::<LEAST>(context).is_some_and(|first| !may_be_ip(first))
}

/// Returns the first byte of a packet with a linear part of at least `LEAST`
/// bytes.
#[inline(always)]
fn first_byte<const LEAST: usize>(context: &TcContext) -> Option<u8> {
    let start = context.data();
    if start + LEAST > context.data_end() {
        return None;
    }
    // SAFETY: the comparison above is the one by which the verifier allows this
    // read.
    #[expect(unsafe_code, reason = "direct packet access")]
    let first = unsafe { *(start as *const u8) };
    Some(first)
}

/// Returns whether an address's first byte may be an IP header's, which has its
/// version there.
#[inline(always)]
const fn may_be_ip(first: u8) -> bool {
    first >> 4 == 4 || first >> 4 == 6
}

/// Returns the payload size of each merged segment; 0 if none are merged.
#[inline(always)]
#[must_use]
pub fn gso_size(context: &TcContext) -> u32 {
    // SAFETY: as for `mark`.
    #[expect(unsafe_code, reason = "a field of the context")]
    unsafe {
        (*context.skb.skb).gso_size
    }
}

/// Returns `skb->mark`.
#[inline(always)]
#[must_use]
pub fn mark(context: &TcContext) -> u32 {
    // SAFETY: the context pointer is the program's argument, which the kernel
    // keeps valid while the program runs; the field may be read by a tc program.
    #[expect(unsafe_code, reason = "a field of the context")]
    unsafe {
        (*context.skb.skb).mark
    }
}

/// Sets `skb->mark`.
#[inline(always)]
pub fn set_mark(context: &TcContext, mark: u32) {
    // SAFETY: as for `mark`; the field may be written by a tc program.
    #[expect(unsafe_code, reason = "a field of the context")]
    unsafe {
        (*context.skb.skb).mark = mark;
    }
}

/// Returns `skb->priority`.
#[inline(always)]
#[must_use]
pub fn priority(context: &TcContext) -> u32 {
    // SAFETY: as for `mark`.
    #[expect(unsafe_code, reason = "a field of the context")]
    unsafe {
        (*context.skb.skb).priority
    }
}

/// Sets `skb->priority`.
#[inline(always)]
pub fn set_priority(context: &TcContext, priority: u32) {
    // SAFETY: as for `mark`; the field may be written by a tc program.
    #[expect(unsafe_code, reason = "a field of the context")]
    unsafe {
        (*context.skb.skb).priority = priority;
    }
}

/// Returns the number of the interface of this ingress.
#[inline(always)]
#[must_use]
pub fn ifindex(context: &TcContext) -> u32 {
    // SAFETY: as for `mark`.
    #[expect(unsafe_code, reason = "a field of the context")]
    unsafe {
        (*context.skb.skb).ifindex
    }
}

/// Returns the control information of the VLAN tag that the kernel removed; 0 if
/// there was none.
#[inline(always)]
#[must_use]
pub fn vlan_control(context: &TcContext) -> u16 {
    // SAFETY: as for `mark`.
    #[expect(unsafe_code, reason = "a field of the context")]
    let control = unsafe { (*context.skb.skb).vlan_tci };
    #[expect(clippy::cast_possible_truncation, reason = "a __u16, widened")]
    let control = control as u16;
    control
}

/// Returns the start of the packet's metadata, which ends where the packet starts.
#[inline(always)]
#[must_use]
pub fn metadata(context: &TcContext) -> usize {
    // SAFETY: as for `mark`.
    #[expect(unsafe_code, reason = "a field of the context")]
    unsafe {
        (*context.skb.skb).data_meta as usize
    }
}

/// Returns whether there is metadata, whoever its owner is.
#[inline(always)]
#[must_use]
pub fn has_metadata(context: &TcContext) -> bool {
    metadata(context) != context.data()
}

/// Returns the packet's EtherType in host byte order, after any VLAN tag that the
/// kernel removed.
#[inline(always)]
#[must_use]
pub fn ethertype(context: &TcContext) -> u16 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the field is a __be16, widened"
    )]
    u16::from_be(context.skb.protocol() as u16)
}
