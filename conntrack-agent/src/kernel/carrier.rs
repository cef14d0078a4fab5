//! What carries the helper mark from the classifier to the binding.

/// A field of the packet's metadata, and the part of it that is ours.
///
/// Other carriers join here; whoever needs to know which one it is asks this
/// type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// Bits of `skb->mark`.
    Mark {
        /// Which: one run of adjoining bits.
        mask: u32,
    },
}

impl Carrier {
    /// The carrier in these bits of `skb->mark`; none if they are not one run
    /// of adjoining bits with room for every helper mark.
    #[must_use]
    pub const fn mark(mask: u32) -> Option<Self> {
        if mask == 0 {
            return None;
        }
        let run = mask >> mask.trailing_zeros();
        if run & run.wrapping_add(1) != 0 || run < crate::model::MAX_HELPER_MARK {
            return None;
        }
        Some(Self::Mark { mask })
    }

    /// The bits that are ours.
    #[must_use]
    pub const fn mask(self) -> u32 {
        let Self::Mark { mask } = self;
        mask
    }

    /// How far left of bit 0 they begin.
    #[must_use]
    pub const fn shift(self) -> u32 {
        self.mask().trailing_zeros()
    }

    /// A helper mark, as the field carries it.
    #[must_use]
    pub const fn bits(self, helper_mark: u32) -> u32 {
        helper_mark << self.shift()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_carrier_is_one_run_of_bits_with_room() {
        for (mask, bits_of_five) in [
            (0xff00_0000, Some(0x0500_0000)),
            (0xf000_0000, Some(0x5000_0000)),
            (0x0000_00f0, Some(0x0000_0050)),
            (0xffff_ffff, Some(5)),
            (0, None),
            (0x7, None),
            (0xe000_0000, None),
            (0x0f0f_0000, None),
            (0x8000_0001, None),
        ] {
            let carried = Carrier::mark(mask).map(|carrier| carrier.bits(5));
            assert_eq!(carried, bits_of_five, "{mask:#x}");
        }
    }
}
