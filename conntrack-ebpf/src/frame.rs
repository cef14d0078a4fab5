//! The packet as an XDP program sees it.

use aya_ebpf::{EbpfContext as _, helpers::generated, programs::XdpContext};

use crate::packet::{Packet, Word};

/// An XDP frame; offsets count from its Ethernet header. Of one in several
/// buffers, `data` is the first alone.
pub struct Frame<'a>(pub &'a XdpContext);

impl Packet for Frame<'_> {
    #[inline(always)]
    fn read<T: Word>(&self, offset: usize) -> Option<T> {
        let start = self.0.data() + offset;
        if start + size_of::<T>() <= self.0.data_end() {
            // SAFETY: the comparison above is the one by which the verifier
            // allows this read: all of it lies before `data_end`. It wants no
            // alignment, and any bytes are a `Word`.
            #[expect(unsafe_code, reason = "direct packet access")]
            let word = unsafe { (start as *const T).read_unaligned() };
            return Some(word);
        }
        let mut word = T::default();
        #[expect(clippy::cast_possible_truncation, reason = "offsets in a packet")]
        let (offset, length) = (offset as u32, size_of::<T>() as u32);
        // SAFETY: the helper writes as many bytes as `T` has, or fails; any bytes
        // are a `Word`.
        #[expect(unsafe_code, reason = "the call has no safe form")]
        let failed = unsafe {
            let into = core::ptr::from_mut(&mut word).cast();
            generated::bpf_xdp_load_bytes(self.0.ctx, offset, into, length)
        };
        (failed == 0).then_some(word)
    }

    #[inline(always)]
    fn has(&self, length: usize) -> bool {
        if self.0.data() + length <= self.0.data_end() {
            return true;
        }
        // SAFETY: the helper reads the context, which the kernel keeps valid
        // while the program runs.
        #[expect(unsafe_code, reason = "the call has no safe form")]
        let whole = unsafe { generated::bpf_xdp_get_buff_len(self.0.as_ptr().cast()) };
        length as u64 <= whole
    }
}
