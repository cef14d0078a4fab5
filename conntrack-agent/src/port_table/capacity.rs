//! The sizes of an instance's maps.

use conntrack_ebpf::abi::FIRST_LEAF_PAGE;

use super::Wanted;

/// The sizes of an instance's maps, in elements. They are fixed when the maps are
/// created; a router that outgrows its instance gets a larger one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// The number of pages of 512 bytes, including the empty page and the roots.
    pub pages: u16,
    /// The number of rule slots of 24 bytes, and of 16 bytes of counters on each
    /// CPU. Slot 0 is never used.
    pub slots: u16,
}

/// The error for more rules than a slot number can tell apart.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given} destinations have a rule; a router can have {}", Capacity::MAX.slots - 1)]
pub struct TooManyRules {
    /// The number of rules given.
    pub given: usize,
}

impl Capacity {
    /// The default sizes, enough for 31 rules in 12 runs of 256 ports, which is
    /// what Neutron's routers have and more: 8.4 KiB, and 512 bytes of counters on
    /// each CPU.
    ///
    /// An array map is one allocation with the kernel's header (some 300 bytes) in
    /// front of its elements, and allocations of over 8 KiB are rounded up to a
    /// power of two (`kmalloc_large`, mm/slub.c). With 15 pages, doubled any
    /// number of times, the sum stays just below a power of two; 16 would take
    /// twice the memory.
    pub const DEFAULT: Self = Self {
        pages: 15,
        slots: 32,
    };

    /// The largest sizes: a leaf for each high byte of both protocols, and every
    /// slot number.
    pub const MAX: Self = Self {
        pages: FIRST_LEAF_PAGE + 2 * 256,
        slots: u16::MAX,
    };

    /// Returns the default, doubled until `wanted` fits.
    ///
    /// # Errors
    /// [`TooManyRules`] if no size is large enough.
    pub fn for_table(wanted: &Wanted) -> Result<Self, TooManyRules> {
        let too_many = TooManyRules {
            given: wanted.len(),
        };
        // Destinations are sorted, so those of one leaf adjoin.
        let mut leaves: Vec<_> = wanted
            .keys()
            .map(|destination| (destination.protocol, destination.port >> 8))
            .collect();
        leaves.dedup();
        // There are at most 512 leaves: two protocols, 256 high bytes.
        let Ok(leaves) = u16::try_from(leaves.len()) else {
            return Err(too_many);
        };
        let slots = match u16::try_from(wanted.len()) {
            Ok(rules) if rules < Self::MAX.slots => rules + 1,
            _ => return Err(too_many),
        };
        Ok(Self {
            pages: doubled(
                Self::DEFAULT.pages,
                FIRST_LEAF_PAGE + leaves,
                Self::MAX.pages,
            ),
            slots: doubled(Self::DEFAULT.slots, slots, Self::MAX.slots),
        })
    }

    /// Returns the smallest sizes that hold both.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            pages: self.pages.max(other.pages),
            slots: self.slots.max(other.slots),
        }
    }

    /// Returns whether everything that fits `other` fits this.
    #[must_use]
    pub const fn holds(self, other: Self) -> bool {
        self.pages >= other.pages && self.slots >= other.slots
    }
}

fn doubled(mut size: u16, needed: u16, most: u16) -> u16 {
    while size < needed {
        size = size.saturating_mul(2).min(most);
    }
    size
}

#[cfg(test)]
mod tests {
    use conntrack_ebpf::abi::{Destination, Protocol};

    use super::*;

    fn ports(ports: impl Iterator<Item = u16>) -> Wanted {
        ports
            .flat_map(|port| {
                [Protocol::Tcp, Protocol::Udp].map(|protocol| (Destination { protocol, port }, 1))
            })
            .collect()
    }

    #[test]
    fn capacity_grows_by_doubling_up_to_a_stated_end() {
        let check = |wanted: Wanted, pages, slots| {
            assert_eq!(
                Capacity::for_table(&wanted),
                Ok(Capacity { pages, slots }),
                "{} rules",
                wanted.len()
            );
        };
        check(Wanted::new(), 15, 32);
        check(ports(1..=15), 15, 32);
        check(ports(1..=16), 15, 64);
        check(ports((0..6).map(|high| high * 256 + 1)), 15, 32);
        check(ports((0..7).map(|high| high * 256 + 1)), 30, 32);
        check(ports((0..=255).map(|high| high * 256 + 1)), 515, 1024);
        check(ports(1..=32767), 480, 65535);
        let most = ports(1..=u16::MAX);
        assert_eq!(
            Capacity::for_table(&most),
            Err(TooManyRules { given: 2 * 65535 })
        );
    }
}
