//! A packet as a tc program reads it by helper calls.

use crate::{
    packet::{Packet, Word},
    skb::Skb,
};

/// An skb at tc ingress that is read by calls, wherever its bytes are. It is for rare
/// packets: the verifier has one path through a read, where [`Skb`] has three, and a
/// program that is loaded for each of a thousand routers has to load fast.
pub struct Copied<'a>(pub Skb<'a>);

impl Packet for Copied<'_> {
    #[inline(always)]
    fn read<T: Word>(&self, offset: usize) -> Option<T> {
        self.0.copy(offset)
    }

    #[inline(always)]
    fn read_or_zero<T: Word>(&self, offset: usize) -> T {
        self.0.copy(offset).unwrap_or_default()
    }

    #[inline(always)]
    fn copy<T: Word>(&self, offset: usize) -> Option<T> {
        self.0.copy(offset)
    }

    #[inline(always)]
    fn forget(&self, value: usize, by: u32) -> usize {
        self.0.forget(value, by)
    }

    #[inline(always)]
    fn has(&self, length: usize) -> bool {
        self.0.has(length)
    }

    #[inline(always)]
    fn is_merged(&self, network: usize) -> bool {
        self.0.is_merged(network)
    }
}
