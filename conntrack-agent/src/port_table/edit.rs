//! A group of map writes, and the writes that undo it.

use conntrack_ebpf::abi::{Page, Slot};

/// One write to one element of one map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Give a rule slot its content.
    Slot {
        /// The slot's number.
        index: u16,
        /// Its content.
        slot: Slot,
    },
    /// Count from zero from here on: the slot is another rule's now.
    ResetCounters {
        /// The slot's number.
        index: u16,
    },
    /// Give a page its content.
    Page {
        /// The page's number.
        index: u16,
        /// Its content.
        page: Box<Page>,
    },
}

/// A row of writes to a port table, each with the one that takes it back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edit(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    write: Write,
    undo: Write,
}

impl Edit {
    /// The writes, in their order.
    #[must_use]
    pub fn writes(&self) -> impl DoubleEndedIterator<Item = &Write> {
        self.0.iter().map(|step| &step.write)
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The edit that takes this one back.
    #[must_use]
    pub fn inverse(&self) -> Self {
        self.undo_of_first(self.len())
    }

    /// The edit that takes its first `count` writes back.
    #[must_use]
    pub fn undo_of_first(&self, count: usize) -> Self {
        let done = self.0.iter().take(count).rev().cloned();
        let back = done.map(|Step { write, undo }| Step {
            write: undo,
            undo: write,
        });
        Self(back.collect())
    }

    /// Slots go from one content to another: number, before, after. What one has
    /// counted was for the content before, unless it is to be empty. A reset is
    /// its own inverse: a slot that is taken back counted for no rule meanwhile.
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

    /// A page goes from one content to another.
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

    /// The same in maps that are new and have counted nothing.
    pub(super) fn without_resets(mut self) -> Self {
        let counts = |step: &Step| !matches!(step.write, Write::ResetCounters { .. });
        self.0.retain(counts);
        self
    }

    fn push(&mut self, write: Write, undo: Write) {
        self.0.push(Step { write, undo });
    }
}
