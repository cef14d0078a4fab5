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

/// An skb at tc ingress; offsets count from its Ethernet header, but see
/// [`network`].
pub struct Skb<'a>(pub &'a TcContext);

impl Skb<'_> {
    /// What lies in the part of the packet that the program can read by itself.
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

/// Where the packet's network header starts: behind the Ethernet header, or at 0.
///
/// tc shows an skb from its Ethernet header on by going back `skb->mac_len` bytes.
/// Generic XDP, anybody's, may have made a copy of the skb before, and since Linux
/// 6.9 that copy's `mac_len` is 0 (`skb_pp_cow_data`, net/core/skbuff.c; seen on
/// 6.18 with a veth). Then the sender would choose what is taken for the ports.
#[inline(always)]
#[must_use]
pub fn network(context: &TcContext) -> usize {
    if !first_byte::<ETHERNET_HEADER>(context).is_some_and(may_be_ip) {
        return ETHERNET_HEADER;
    }
    // The linear part ends this far behind the network header if there is no
    // Ethernet header in front of that, and 14 bytes earlier if there is.
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

/// Whether it starts as an Ethernet header does that can't be an IP header: then
/// [`network`] is behind it. Asks for as much of the packet as is read of an IPv4
/// header, so that both are one comparison; every packet has it.
#[inline(always)]
#[must_use]
pub fn starts_with_ethernet(context: &TcContext) -> bool {
    const LEAST: usize = ETHERNET_HEADER + 16;
    first_byte::<LEAST>(context).is_some_and(|first| !may_be_ip(first))
}

/// That of a packet of which at least so much is linear.
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

/// Of an address's first byte; an IP header says its version there.
#[inline(always)]
const fn may_be_ip(first: u8) -> bool {
    first >> 4 == 4 || first >> 4 == 6
}

/// How much payload each of merged segments has; 0 if none are merged.
#[inline(always)]
#[must_use]
pub fn gso_size(context: &TcContext) -> u32 {
    // SAFETY: as for `mark`.
    #[expect(unsafe_code, reason = "a field of the context")]
    unsafe {
        (*context.skb.skb).gso_size
    }
}

/// `skb->mark`.
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

/// `skb->priority`.
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

/// The number of the interface whose ingress it is.
#[inline(always)]
#[must_use]
pub fn ifindex(context: &TcContext) -> u32 {
    // SAFETY: as for `mark`.
    #[expect(unsafe_code, reason = "a field of the context")]
    unsafe {
        (*context.skb.skb).ifindex
    }
}

/// The control information of the VLAN tag that the kernel took off; 0 if there
/// was none.
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

/// Where the packet's metadata starts; it ends where the packet starts.
#[inline(always)]
#[must_use]
pub fn metadata(context: &TcContext) -> usize {
    // SAFETY: as for `mark`.
    #[expect(unsafe_code, reason = "a field of the context")]
    unsafe {
        (*context.skb.skb).data_meta as usize
    }
}

/// Whether there is metadata, anybody's.
#[inline(always)]
#[must_use]
pub fn has_metadata(context: &TcContext) -> bool {
    metadata(context) != context.data()
}

/// The packet's EtherType in host byte order, after any VLAN tag that the
/// kernel took off.
#[inline(always)]
#[must_use]
pub fn ethertype(context: &TcContext) -> u16 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the field is a __be16, widened"
    )]
    u16::from_be(context.skb.protocol() as u16)
}
