//! The packet as a tc program sees it.

use aya_ebpf::programs::TcContext;

use crate::packet::Packet;

/// An skb at tc ingress; offsets count from its Ethernet header.
pub struct Skb<'a>(pub &'a TcContext);

impl Packet for Skb<'_> {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let start = self.0.data() + offset;
        if start + N <= self.0.data_end() {
            // SAFETY: the comparison above is the one by which the verifier
            // allows this read: `[start, start + N)` lies before `data_end`. A
            // byte array has no alignment to keep and no invalid value.
            #[expect(unsafe_code, reason = "direct packet access")]
            let bytes = unsafe { (start as *const [u8; N]).read() };
            return Some(bytes);
        }
        // The header may lie behind the skb's linear part.
        self.0.load(offset).ok()
    }

    #[inline(always)]
    fn has(&self, length: usize) -> bool {
        length <= self.0.len() as usize
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
