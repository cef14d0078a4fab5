//! The content of an instance's maps.

use std::{collections::BTreeMap, fmt};

use conntrack_ebpf::{
    abi::{PAGE_ENTRIES, Page, Slot},
    lookup::{PortTable, lookup},
};

use super::{Capacity, Edit, Wanted, Write};

/// A copy of the content of an instance's maps, without the counters.
#[derive(Clone, PartialEq, Eq)]
pub struct Image {
    pub(super) pages: Vec<Page>,
    pub(super) slots: Vec<Slot>,
}

impl Image {
    /// Makes the image of new maps as the kernel gives them: all zero.
    #[must_use]
    pub fn empty(capacity: Capacity) -> Self {
        Self {
            pages: vec![[0; PAGE_ENTRIES]; capacity.pages.into()],
            slots: vec![Slot::default(); capacity.slots.into()],
        }
    }

    /// Makes an image from what was read from the maps.
    #[must_use]
    pub fn new(pages: Vec<Page>, slots: Vec<Slot>) -> Self {
        Self { pages, slots }
    }

    /// Returns the size of the maps.
    #[must_use]
    pub fn capacity(&self) -> Capacity {
        let size = |elements: usize| u16::try_from(elements).unwrap_or(u16::MAX);
        Capacity {
            pages: size(self.pages.len()),
            slots: size(self.slots.len()),
        }
    }

    /// Returns the page with this number; an empty one beyond the end.
    #[must_use]
    pub fn page_at(&self, index: u16) -> Page {
        self.page(index).copied().unwrap_or([0; PAGE_ENTRIES])
    }

    /// Returns the slot with this number; an unused one beyond the end.
    #[must_use]
    pub fn slot_at(&self, index: u16) -> Slot {
        self.slot(index).unwrap_or_default()
    }

    /// Returns the destinations that packets get a mark for, and the mark.
    #[must_use]
    pub fn rules(&self) -> Wanted {
        let contents = self.slots.iter().filter_map(|slot| slot.content());
        contents
            .filter(|(to, mark)| lookup(self, *to).is_some_and(|hit| hit.mark.get() == *mark))
            .collect()
    }

    /// Returns the same content in larger maps.
    #[must_use]
    pub fn resized(&self, capacity: Capacity) -> Self {
        let mut image = self.clone();
        image.pages.resize(capacity.pages.into(), [0; PAGE_ENTRIES]);
        image.slots.resize(capacity.slots.into(), Slot::default());
        image
    }

    /// Applies a write to the copy. Counters are not part of it.
    ///
    /// # Panics
    /// If the write is for maps of another size.
    pub fn apply(&mut self, write: &Write) {
        match write {
            Write::Slot { index, slot } => self.slots[usize::from(*index)] = *slot,
            Write::Page { index, page } => self.pages[usize::from(*index)] = **page,
            Write::ResetCounters { .. } => {}
        }
    }

    /// Applies a row of writes to the copy.
    ///
    /// # Panics
    /// If they are for maps of another size.
    pub fn edit(&mut self, edit: &Edit) {
        for write in edit.writes() {
            self.apply(write);
        }
    }

    /// Returns the unused slots, by rising number.
    pub fn free_slots(&self) -> impl Iterator<Item = u16> {
        // The numbers come second: the largest table has none after its last
        // slot.
        let slots = self.slots.iter().zip(0..).skip(1);
        slots.filter_map(|(slot, index)| (*slot == Slot::default()).then_some(index))
    }
}

/// Shows only what is not zero: of thousands of elements few are in use.
impl fmt::Debug for Image {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = |page: &Page| -> BTreeMap<usize, u16> {
            let entries = page.iter().copied().enumerate();
            entries.filter(|(_, entry)| *entry != 0).collect()
        };
        let pages = self.pages.iter().map(used).enumerate();
        let pages = pages.filter(|(_, used)| !used.is_empty());
        let slots = self.slots.iter().enumerate();
        let slots = slots.filter(|(_, slot)| **slot != Slot::default());
        formatter
            .debug_struct("Image")
            .field("capacity", &self.capacity())
            .field("pages", &pages.collect::<BTreeMap<_, _>>())
            .field("slots", &slots.collect::<BTreeMap<_, _>>())
            .finish()
    }
}

impl PortTable for Image {
    fn page(&self, index: u16) -> Option<&Page> {
        self.pages.get(usize::from(index))
    }

    fn slot(&self, index: u16) -> Option<Slot> {
        self.slots.get(usize::from(index)).copied()
    }
}
