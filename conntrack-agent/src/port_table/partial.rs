//! Plans a change of a few destinations from the few map elements that it concerns.
//!
//! The cost of [`plan`](super::plan), which handles a whole port table, grows
//! with the number of a router's rules. A change needs only the root pages, the
//! leaves and the slots of its own destinations, and as many free slots.

use std::collections::{BTreeMap, BTreeSet};

use conntrack_ebpf::{
    abi::{Destination, FIRST_LEAF_PAGE, NO_SLOT, PAGE_ENTRIES, Page, Protocol, Slot},
    lookup::PortTable,
};

use super::{
    Capacity, Edit,
    plan::{LeafKey, entry, leaf_key},
};

/// The change of some destinations: the helper mark that each should have, or
/// `None`.
pub type Amendment = BTreeMap<Destination, Option<u32>>;

/// The part of a port table that concerns some destinations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartialTable {
    capacity: Capacity,
    /// Both root pages, and the destinations' leaves.
    pages: BTreeMap<u16, Page>,
    /// The slots that the destinations' entries lead to.
    slots: BTreeMap<u16, Slot>,
    /// The slots that are unused.
    free: Vec<u16>,
}

/// The excerpt isn't enough for the amendment: the maps are too small for it, no
/// free slots were found, or two root entries share one leaf page. A plan of the
/// whole table tells which, and goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TakesMore;

impl PartialTable {
    /// Reads the excerpt for `destinations` by `page` and `slot`, which return
    /// `None` for a number that the maps don't have. Slots that may be free come
    /// from `candidates`; one that isn't free is skipped.
    ///
    /// # Errors
    /// The errors of `page` and `slot`.
    pub fn read<E>(
        capacity: Capacity,
        destinations: &BTreeSet<Destination>,
        page: impl Fn(u16) -> Result<Page, E>,
        slot: impl Fn(u16) -> Result<Slot, E>,
        candidates: impl IntoIterator<Item = u16>,
    ) -> Result<Self, E> {
        let mut partial = Self {
            capacity,
            pages: BTreeMap::new(),
            slots: BTreeMap::new(),
            free: Vec::new(),
        };
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let root = protocol.root_page();
            partial.pages.insert(root, page(root)?);
        }
        let keys: BTreeSet<_> = destinations.iter().map(|to| leaf_key(*to)).collect();
        for key in keys {
            if let Some(number) = partial.leaf(key) {
                partial.pages.insert(number, page(number)?);
            }
        }
        let mut homeless = 0;
        for to in destinations {
            match partial.slot_number(*to) {
                Some(number) => {
                    partial.slots.insert(number, slot(number)?);
                    homeless += usize::from(partial.mark(*to).is_none());
                }
                None => homeless += 1,
            }
        }
        for number in candidates {
            if partial.free.len() == homeless {
                break;
            }
            if slot(number)? == Slot::default() {
                partial.free.push(number);
            }
        }
        Ok(partial)
    }

    /// Returns the edit that gives the destinations what is wanted; it is empty
    /// if they have it. All other destinations keep what they have.
    ///
    /// # Errors
    /// [`TakesMore`] if the excerpt isn't enough for that.
    pub fn amend(&self, amendment: &Amendment) -> Result<Edit, TakesMore> {
        if self.leaf_uses().any(|(_, uses)| uses > 1) {
            return Err(TakesMore);
        }
        let mut after = self.clone();
        let (added, removed): (Vec<_>, Vec<_>) =
            amendment.iter().partition(|(_, mark)| mark.is_some());
        // Removals come first, so that additions can use their room.
        for (to, mark) in removed.into_iter().chain(added) {
            match mark {
                None => after.remove(*to),
                Some(mark) => after.set(*to, *mark)?,
            }
        }
        Ok(self.edit(&after))
    }

    fn set(&mut self, to: Destination, mark: u32) -> Result<(), TakesMore> {
        let slot = match self.slot_number(to) {
            Some(number) if self.mark(to).is_some() => number,
            // There is no entry, or one that leads to another destination's slot.
            _ => {
                let number = self.free.pop().ok_or(TakesMore)?;
                let leaf = self.leaf_or_new(leaf_key(to))?;
                self.page_mut(leaf)[entry(to)] = number;
                number
            }
        };
        self.slots.insert(slot, Slot::new(to, mark));
        Ok(())
    }

    fn remove(&mut self, to: Destination) {
        let (Some(leaf), Some(slot)) = (self.leaf(leaf_key(to)), self.slot_number(to)) else {
            return;
        };
        if self.mark(to).is_none() {
            return;
        }
        self.slots.insert(slot, Slot::default());
        self.free.push(slot);
        let page = self.page_mut(leaf);
        page[entry(to)] = NO_SLOT;
        if page.iter().all(|slot| *slot == NO_SLOT) {
            let (protocol, high) = leaf_key(to);
            self.page_mut(protocol.root_page())[usize::from(high)] = 0;
        }
    }

    fn leaf_or_new(&mut self, (protocol, high): LeafKey) -> Result<u16, TakesMore> {
        if let Some(leaf) = self.leaf((protocol, high)) {
            return Ok(leaf);
        }
        let unused = self.leaf_uses().find(|(_, uses)| *uses == 0);
        let (free, _) = unused.ok_or(TakesMore)?;
        self.pages.insert(free, [NO_SLOT; PAGE_ENTRIES]);
        self.page_mut(protocol.root_page())[usize::from(high)] = free;
        Ok(free)
    }

    /// Returns every leaf page, and the number of root entries that lead to it.
    fn leaf_uses(&self) -> impl Iterator<Item = (u16, usize)> + use<> {
        let mut uses = vec![0; self.capacity.pages.into()];
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let root = self.pages.get(&protocol.root_page());
            for leaf in root.into_iter().flatten() {
                if let Some(uses) = uses.get_mut(usize::from(*leaf)) {
                    *uses += 1;
                }
            }
        }
        (0..).zip(uses).skip(FIRST_LEAF_PAGE.into())
    }

    /// Returns the leaf of these ports, if there is one and it can be theirs.
    fn leaf(&self, (protocol, high): LeafKey) -> Option<u16> {
        let leaf = self.pages.get(&protocol.root_page())?[usize::from(high)];
        let leaves = FIRST_LEAF_PAGE..self.capacity.pages;
        leaves.contains(&leaf).then_some(leaf)
    }

    /// Returns the slot that the destination's entry leads to, if it leads to
    /// one.
    fn slot_number(&self, to: Destination) -> Option<u16> {
        let slot = self.pages.get(&self.leaf(leaf_key(to))?)?[entry(to)];
        let slots = NO_SLOT + 1..self.capacity.slots;
        slots.contains(&slot).then_some(slot)
    }

    fn mark(&self, to: Destination) -> Option<u32> {
        self.slots.get(&self.slot_number(to)?)?.mark_for(to)
    }

    fn page_mut(&mut self, number: u16) -> &mut Page {
        self.pages.entry(number).or_insert([NO_SLOT; PAGE_ENTRIES])
    }

    /// Returns the writes in the order in which [`plan`](super::plan) has them,
    /// for its reasons.
    fn edit(&self, after: &Self) -> Edit {
        let mut edit = Edit::default();
        edit.slots(after.slots.iter().map(|(index, slot)| {
            // A slot that was not read was free.
            let before = self.slots.get(index).copied().unwrap_or_default();
            (*index, before, *slot)
        }));
        let is_root = |index: &u16| *index < FIRST_LEAF_PAGE;
        let (roots, leaves): (Vec<_>, Vec<_>) =
            after.pages.iter().partition(|(index, _)| is_root(index));
        for (index, page) in leaves.into_iter().chain(roots) {
            // A page that was not read was no leaf.
            let before = self.pages.get(index);
            edit.page(*index, before.unwrap_or(&[NO_SLOT; PAGE_ENTRIES]), page);
        }
        edit
    }
}

impl PortTable for PartialTable {
    fn page(&self, index: u16) -> Option<&Page> {
        self.pages.get(&index)
    }

    fn slot(&self, index: u16) -> Option<Slot> {
        self.slots.get(&index).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::{collection, prelude::*};

    use super::*;
    use crate::port_table::{Image, Wanted, plan};

    fn destination() -> impl Strategy<Value = Destination> {
        (any::<bool>(), 0u8..6, 0u8..6).prop_map(|(tcp, high, low)| Destination {
            protocol: if tcp { Protocol::Tcp } else { Protocol::Udp },
            port: u16::from_be_bytes([high * 51, low * 51]),
        })
    }

    fn amendment() -> impl Strategy<Value = Amendment> {
        let mark = prop_oneof![Just(None), (1u32..4).prop_map(Some)];
        collection::btree_map(destination(), mark, 0..6)
    }

    fn partial(image: &Image, amendment: &Amendment) -> PartialTable {
        let destinations = amendment.keys().copied().collect();
        let read: Result<_, Infallible> = PartialTable::read(
            image.capacity(),
            &destinations,
            |number| Ok(image.page_at(number)),
            |number| Ok(image.slot_at(number)),
            1..image.capacity().slots,
        );
        let Ok(partial) = read;
        partial
    }

    fn wanted(before: &Wanted, amendment: &Amendment) -> Wanted {
        let mut wanted = before.clone();
        for (to, mark) in amendment {
            match mark {
                Some(mark) => wanted.insert(*to, *mark),
                None => wanted.remove(to),
            };
        }
        wanted
    }

    proptest! {
        /// A row of amendments leads where a plan of the whole table leads, and
        /// leaves it nothing to write; a reader between two writes sees the old
        /// or the new rules; all can be taken back.
        #[test]
        fn an_amendment_does_what_a_plan_of_the_whole_does(
            amendments in collection::vec(amendment(), 1..30),
        ) {
            let mut image = Image::empty(Capacity::DEFAULT);
            let mut old = Wanted::new();
            for amendment in amendments {
                let new = wanted(&old, &amendment);
                let Ok(edit) = partial(&image, &amendment).amend(&amendment) else {
                    prop_assert!(plan(&image, &new).is_err(), "there was room");
                    continue;
                };
                let before = image.clone();
                let known: BTreeSet<_> = old.keys().chain(new.keys()).copied().collect();
                for write in edit.writes() {
                    image.apply(write);
                    for at in &known {
                        let seen = conntrack_ebpf::lookup::lookup(&image, *at).map(|hit| hit.mark.get());
                        let (then, now) = (old.get(at).copied(), new.get(at).copied());
                        prop_assert!([then, now, None].contains(&seen), "{at:?} saw {seen:?}");
                        if then.is_some() && now.is_some() {
                            prop_assert_ne!(seen, None, "{:?} had a gap", at);
                        }
                    }
                }
                prop_assert!(plan(&image, &new).unwrap().is_empty(), "all is said");
                prop_assert_eq!(&image.rules(), &new);
                prop_assert!(partial(&image, &amendment).amend(&amendment).unwrap().is_empty());
                let mut back = image.clone();
                back.edit(&edit.inverse());
                prop_assert_eq!(&back, &before);
                old = new;
            }
        }

        /// Whatever somebody wrote into the maps: no destination gets a mark that
        /// is not its own by an amendment, those in it get theirs, and a plan
        /// of the whole mends the rest.
        #[test]
        fn an_amendment_of_a_damaged_table_harms_nothing(
            rules in collection::btree_map(destination(), 1u32..4, 0..20),
            damage in collection::vec((0usize..15, 0usize..256, 0u16..40), 0..100),
            slots in collection::vec((1usize..32, destination(), 0u32..4), 0..20),
            amendment in amendment(),
        ) {
            let mut image = Image::empty(Capacity::DEFAULT);
            image.edit(&plan(&image, &rules).unwrap());
            for (page, at, value) in damage {
                image.pages[page][at] = value;
            }
            for (index, to, mark) in slots {
                image.slots[index] = Slot::new(to, mark);
            }
            let mark = |image: &Image, at| conntrack_ebpf::lookup::lookup(image, at).map(|hit| hit.mark.get());
            let before = image.clone();
            if let Ok(edit) = partial(&image, &amendment).amend(&amendment) {
                image.edit(&edit);
                for (to, wanted) in &amendment {
                    prop_assert_eq!(mark(&image, *to), *wanted, "{:?}", to);
                }
                let mut back = image.clone();
                back.edit(&edit.inverse());
                prop_assert_eq!(&back.slots, &before.slots);
            }
            let new = wanted(&rules, &amendment);
            image.edit(&plan(&image, &new).unwrap());
            prop_assert_eq!(image.rules(), new);
        }
    }

    #[test]
    fn one_more_rule_reads_and_writes_a_handful_of_elements() {
        let rules: Wanted = (1..5000)
            .map(|port| Destination {
                protocol: Protocol::Tcp,
                port: port * 13,
            })
            .map(|to| (to, 1))
            .collect();
        let mut image = Image::empty(Capacity::for_table(&rules).unwrap());
        image.edit(&plan(&image, &rules).unwrap());
        let to = Destination {
            protocol: Protocol::Udp,
            port: 69,
        };
        let amendment = Amendment::from([(to, Some(2))]);
        let partial = partial(&image, &amendment);
        assert_eq!((partial.pages.len(), partial.slots.len()), (2, 0));
        let edit = partial.amend(&amendment).unwrap();
        assert_eq!(edit.len(), 4, "slot, counters, leaf, root");
    }
}
