//! The fields of the packet that can carry a helper mark from the classifier to the
//! binding.

use std::fmt;

pub use conntrack_ebpf::abi::Carrier;

const _: () = assert!(
    crate::model::MAX_HELPER_MARK <= 0xff,
    "as many as skb->priority has room for"
);

/// The bits of `skb->mark` that are the agent's: one run of adjoining bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkBits {
    mask: u32,
}

/// The top byte of `skb->mark`.
impl Default for MarkBits {
    fn default() -> Self {
        Self { mask: 0xff00_0000 }
    }
}

impl MarkBits {
    /// Makes the bits from a mask. Returns `None` if it is not one run of adjoining
    /// bits with room for every helper mark.
    #[must_use]
    pub const fn new(mask: u32) -> Option<Self> {
        if mask == 0 {
            return None;
        }
        let run = mask >> mask.trailing_zeros();
        if run & run.wrapping_add(1) != 0 || run < crate::model::MAX_HELPER_MARK {
            return None;
        }
        Some(Self { mask })
    }

    /// Returns the mask.
    #[must_use]
    pub const fn mask(self) -> u32 {
        self.mask
    }

    /// Returns the number of bits below the run.
    #[must_use]
    pub const fn shift(self) -> u32 {
        self.mask().trailing_zeros()
    }

    /// Returns a helper mark as `skb->mark` carries it.
    #[must_use]
    pub const fn bits(self, helper_mark: u32) -> u32 {
        helper_mark << self.shift()
    }
}

/// The carriers that a binding reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindingCarriers {
    /// The binding reads one carrier.
    One(Carrier),
    /// The binding reads both carriers, while classifiers change from one to the
    /// other.
    Both,
}

impl BindingCarriers {
    /// All values.
    pub const ALL: [Self; 3] = [
        Self::One(Carrier::Mark),
        Self::One(Carrier::Priority),
        Self::Both,
    ];

    /// Returns whether this carrier is one of them.
    #[must_use]
    pub fn has(self, carrier: Carrier) -> bool {
        self == Self::Both || self == Self::One(carrier)
    }

    /// Returns whether all of the other carriers are among them.
    #[must_use]
    pub fn has_all_of(self, others: Self) -> bool {
        self == Self::Both || self == others
    }
}

impl fmt::Display for BindingCarriers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::One(carrier) => name(*carrier),
            Self::Both => "mark and priority",
        })
    }
}

/// Returns the name of a carrier in the configuration and in output.
#[must_use]
pub const fn name(carrier: Carrier) -> &'static str {
    match carrier {
        Carrier::Mark => "mark",
        Carrier::Priority => "priority",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mark_bits_are_one_run_with_room() {
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
            let carried = MarkBits::new(mask).map(|bits| bits.bits(5));
            assert_eq!(carried, bits_of_five, "{mask:#x}");
        }
    }

    #[test]
    fn both_is_either() {
        for carrier in [Carrier::Mark, Carrier::Priority] {
            assert!(BindingCarriers::Both.has(carrier));
            let reading = BindingCarriers::ALL
                .iter()
                .filter(|reads| reads.has(carrier));
            assert_eq!(reading.count(), 2, "{}", name(carrier));
        }
    }
}
