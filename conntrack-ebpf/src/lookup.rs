//! Looks up a destination in the two-level port table.

use core::num::NonZero;

use crate::abi::{Destination, EMPTY_PAGE, NO_SLOT, Page, Slot};

/// The port table of one router.
///
/// There are two implementations: the program's maps, and the agent's copy of
/// them, with which a change is planned and tested.
pub trait PortTable {
    /// Returns the page with this index, if there is one.
    fn page(&self, index: u16) -> Option<&Page>;

    /// Returns the slot with this index, if there is one.
    fn slot(&self, index: u16) -> Option<Slot>;
}

/// The rule of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The rule slot, in which the packet is counted.
    pub slot: u16,
    /// The helper mark.
    pub mark: NonZero<u32>,
}

/// Returns the rule for `destination`, if there is one.
#[inline(always)]
pub fn lookup<T: PortTable + ?Sized>(table: &T, destination: Destination) -> Option<Hit> {
    let [high, low] = destination.port.to_be_bytes();
    let root = table.page(destination.protocol.root_page())?;
    let leaf = root[usize::from(high)];
    // The empty page gives the same result, and most packets end here.
    if leaf == EMPTY_PAGE {
        return None;
    }
    let leaf = table.page(leaf)?;
    let slot = leaf[usize::from(low)];
    if slot == NO_SLOT {
        return None;
    }
    let mark = NonZero::new(table.slot(slot)?.mark_for(destination)?)?;
    Some(Hit { slot, mark })
}
