//! Access to the bytes of a packet.

/// A packet whose bytes are copied out, each read checked against its length.
pub trait Packet {
    /// The `N` bytes at `offset`; none if the packet ends before them.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// Whether the packet has at least `length` bytes.
    fn has(&self, length: usize) -> bool;
}

impl Packet for [u8] {
    #[inline]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk().copied()
    }

    #[inline]
    fn has(&self, length: usize) -> bool {
        length <= self.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_ends_where_the_packet_ends() {
        let packet: &[u8] = &[1, 2, 3];
        assert_eq!(packet.read::<2>(1), Some([2, 3]));
        assert_eq!(packet.read::<2>(2), None);
        assert_eq!(packet.read::<1>(3), None);
        assert_eq!(packet.read::<1>(usize::MAX), None);
        assert!(packet.has(3));
        assert!(!packet.has(4));
    }
}
