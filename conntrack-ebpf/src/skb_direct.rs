//! The linear part of a packet, as a tc program reads it directly.

use aya_ebpf::programs::TcContext;

use crate::{
    packet::{Packet, Word, direct},
    skb,
};

/// The linear part of an skb at tc ingress; offsets count from its Ethernet header.
///
/// Bytes that can't be read without a call count as missing. So a packet that the
/// parser takes for truncated may be whole, and [`Skb`](crate::skb::Skb) has to
/// judge it. The verifier has to see that offsets are small, as those in an IPv4
/// header are.
pub struct Linear<'a>(pub &'a TcContext);

impl Packet for Linear<'_> {
    #[inline(always)]
    fn read<T: Word>(&self, offset: usize) -> Option<T> {
        direct(self.0.data(), self.0.data_end(), offset)
    }

    #[inline(always)]
    fn read_or_zero<T: Word>(&self, offset: usize) -> T {
        self.read(offset).unwrap_or_default()
    }

    #[inline(always)]
    fn copy<T: Word>(&self, _: usize) -> Option<T> {
        None
    }

    #[inline(always)]
    fn has(&self, length: usize) -> bool {
        length <= self.0.len() as usize
    }

    #[inline(always)]
    fn is_merged(&self, _: usize) -> bool {
        skb::gso_size(self.0) != 0
    }
}
