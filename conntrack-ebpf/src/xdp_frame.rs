//! A packet as an XDP program sees it.

use core::mem::MaybeUninit;

use aya_ebpf::{EbpfContext as _, helpers::generated, programs::XdpContext};

use crate::packet::{Packet, TOO_LONG, Word, bounded, direct, forget};

/// An XDP frame; offsets count from its Ethernet header. For a frame in several
/// buffers, `data` is only the first.
pub struct Frame<'a>(pub &'a XdpContext);

impl Frame<'_> {
    /// Reads a word in the part of the packet that the program can read directly.
    #[inline(always)]
    fn direct<T: Word>(&self, offset: usize) -> Option<T> {
        direct(self.0.data(), self.0.data_end(), bounded(offset)?)
    }
}

impl Packet for Frame<'_> {
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
            let into = word.as_mut_ptr().cast();
            generated::bpf_xdp_load_bytes(self.0.ctx, offset, into, length)
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
        // The verifier of Linux 6.1 adds nothing to a pointer whose size it doesn't
        // know, such as a 16-bit value in another byte order (`be16`).
        if bounded(length).is_some_and(|length| self.0.data() + length <= self.0.data_end()) {
            return true;
        }
        // SAFETY: the helper reads the context, which the kernel keeps valid
        // while the program runs.
        #[expect(unsafe_code, reason = "the call has no safe form")]
        let whole = unsafe { generated::bpf_xdp_get_buff_len(self.0.as_ptr().cast()) };
        length as u64 <= whole
    }

    /// Returns whether the frame is as long as only merged segments can be; nothing
    /// else tells.
    #[inline(always)]
    fn is_merged(&self, network: usize) -> bool {
        self.has(network + TOO_LONG)
    }
}
