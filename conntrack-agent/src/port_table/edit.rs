//! A group of map writes, and the writes that undo it.

use conntrack_ebpf::abi::{Page, Slot};

/// A write to one element of one map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Gives a rule slot its content.
    Slot {
        /// The slot's number.
        index: u16,
        /// The slot's new content.
        slot: Slot,
    },
    /// Makes a slot's counts start at zero from here on, as the slot is another
    /// rule's now.
    ResetCounters {
        /// The slot's number.
        index: u16,
    },
    /// Gives a page its content.
    Page {
        /// The page's number.
        index: u16,
        /// The page's new content.
        page: Box<Page>,
    },
}

/// A row of writes to a port table, each with the write that undoes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edit(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    write: Write,
    undo: Write,
}

impl Edit {
    /// Returns the writes, in their order.
    #[must_use]
    pub fn writes(&self) -> impl DoubleEndedIterator<Item = &Write> {
        self.0.iter().map(|step| &step.write)
    }

    /// Returns the number of writes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are no writes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the edit that undoes this one.
    #[must_use]
    pub fn inverse(&self) -> Self {
        self.undo_of_first(self.len())
    }

    /// Returns the edit that undoes its first `count` writes.
    #[must_use]
    pub fn undo_of_first(&self, count: usize) -> Self {
        let done = self.0.iter().take(count).rev().cloned();
        let back = done.map(|Step { write, undo }| Step {
            write: undo,
            undo: write,
        });
        Self(back.collect())
    }

    /// Changes the content of slots, each given by its number, the content
    /// before and the one after. The counts of a slot were for the content
    /// before, so they are reset unless the slot becomes empty. A reset is its
    /// own inverse: a slot that is restored counted for no rule meanwhile.
    pub(super) fn slots(&mut self, slots: impl Iterator<Item = (u16, Slot, Slot)>) {
        let changed: Vec<_> = slots.filter(|(_, before, after)| before != after).collect();
        for (index, before, after) in &changed {
            let write = |slot: &Slot| Write::Slot {
                index: *index,
                slot: *slot,
            };
            self.push(write(after), write(before));
        }
        for (index, _, after) in changed {
            if after != Slot::default() {
                self.push(
                    Write::ResetCounters { index },
                    Write::ResetCounters { index },
                );
            }
        }
    }

    /// Changes the content of a page.
    pub(super) fn page(&mut self, index: u16, before: &Page, after: &Page) {
        if before == after {
            return;
        }
        let write = |page: &Page| Write::Page {
            index,
            page: Box::new(*page),
        };
        self.push(write(after), write(before));
    }

    /// Returns the same edit for maps that are new and have counted nothing.
    pub(super) fn without_resets(mut self) -> Self {
        let counts = |step: &Step| !matches!(step.write, Write::ResetCounters { .. });
        self.0.retain(counts);
        self
    }

    fn push(&mut self, write: Write, undo: Write) {
        self.0.push(Step { write, undo });
    }
}
