//! Plans the writes that change a port table while programs read it.
//!
//! The classifier may read the maps at any moment between two writes. It never
//! gives a packet a mark that neither the old nor the new rules give, because a
//! slot names its destination: whatever page entry leads to it, it answers for
//! no other. So only this order is needed: slots, then the leaves that lead to
//! them, then the roots that lead to those; and an entry that stays keeps its
//! slot and its leaf.

use std::collections::BTreeMap;

use conntrack_ebpf::abi::{Destination, FIRST_LEAF_PAGE, NO_SLOT, PAGE_ENTRIES, Protocol, Slot};

use super::{Capacity, Edit, Image, Wanted};

/// Returns the writes that lead from `image` to `wanted`; none if all is as it
/// should be. Works from any image, also from one that was tampered with.
///
/// # Errors
/// The capacity that is needed, if the image's maps are too small.
pub fn plan(image: &Image, wanted: &Wanted) -> Result<Edit, Capacity> {
    let needed = Capacity::for_table(wanted).unwrap_or(Capacity::MAX);
    let target = TableLayout::of(image, wanted)
        .and_then(|layout| layout.image(wanted))
        .ok_or(needed)?;
    let mut edit = Edit::default();
    // The numbers come second: the largest table has none after its last slot.
    let slots = image.slots.iter().zip(&target.slots).zip(0..);
    edit.slots(slots.map(|((before, after), index)| (index, *before, *after)));
    let pages = (0..).zip(image.pages.iter().zip(&target.pages));
    let (roots, leaves): (Vec<_>, Vec<_>) = pages.partition(|(index, _)| *index < FIRST_LEAF_PAGE);
    for (index, (before, after)) in leaves.into_iter().chain(roots) {
        edit.page(index, before, after);
    }
    Ok(edit)
}

/// Returns the writes that give new, empty maps of this capacity their content.
///
/// # Errors
/// The capacity that is needed, if this is too small.
pub fn fill(capacity: Capacity, wanted: &Wanted) -> Result<Edit, Capacity> {
    plan(&Image::empty(capacity), wanted).map(Edit::without_resets)
}

/// The key of a leaf page: it serves the ports of `protocol` with this high
/// byte.
pub(super) type LeafKey = (Protocol, u8);

/// The leaf and the slot of each destination.
struct TableLayout {
    capacity: Capacity,
    leaves: BTreeMap<LeafKey, u16>,
    /// The slots, in the order of the destinations.
    slots: Vec<u16>,
}

impl TableLayout {
    /// Assigns the numbers that the image has and that can stay, then the
    /// lowest free ones. Returns `None` if the maps are full.
    fn of(image: &Image, wanted: &Wanted) -> Option<Self> {
        let capacity = image.capacity();
        // Destinations are sorted, so those of one leaf adjoin.
        let mut keys: Vec<LeafKey> = wanted.keys().map(|to| leaf_key(*to)).collect();
        keys.dedup();
        let numbers = assign(
            &keys,
            FIRST_LEAF_PAGE..capacity.pages,
            |(protocol, high)| {
                let root = image.pages.get(usize::from(protocol.root_page()))?;
                Some(root[usize::from(high)])
            },
        )?;
        let leaves: BTreeMap<_, _> = keys.into_iter().zip(numbers).collect();
        let destinations: Vec<_> = wanted.keys().copied().collect();
        let slots = assign(&destinations, NO_SLOT + 1..capacity.slots, |to| {
            let leaf = image.pages.get(usize::from(*leaves.get(&leaf_key(to))?))?;
            let slot = leaf[entry(to)];
            // The slot stays only if it is this destination's already: a slot
            // whose content was damaged may belong to another.
            image.slots.get(usize::from(slot))?.mark_for(to)?;
            Some(slot)
        })?;
        Some(Self {
            capacity,
            leaves,
            slots,
        })
    }

    /// Returns the maps with only these entries; everything else is zero.
    fn image(&self, wanted: &Wanted) -> Option<Image> {
        let mut image = Image::empty(self.capacity);
        for ((protocol, high), leaf) in &self.leaves {
            let root = image.pages.get_mut(usize::from(protocol.root_page()))?;
            root[usize::from(*high)] = *leaf;
        }
        for ((destination, mark), slot) in wanted.iter().zip(&self.slots) {
            let leaf = *self.leaves.get(&leaf_key(*destination))?;
            image.pages.get_mut(usize::from(leaf))?[entry(*destination)] = *slot;
            *image.slots.get_mut(usize::from(*slot))? = Slot::new(*destination, *mark);
        }
        Some(image)
    }
}

/// Gives each key the number that `present` has for it, if that is free and in
/// range, and the lowest free number otherwise. Returns `None` if the numbers
/// run out.
fn assign<K: Copy>(
    keys: &[K],
    range: std::ops::Range<u16>,
    present: impl Fn(K) -> Option<u16>,
) -> Option<Vec<u16>> {
    let mut taken = vec![false; range.end.into()];
    let mut claim = |number: u16| {
        let free = range
            .contains(&number)
            .then(|| &mut taken[usize::from(number)]);
        free.is_some_and(|taken| !std::mem::replace(taken, true))
    };
    let assigned: Vec<_> = keys
        .iter()
        .map(|key| present(*key).filter(|number| claim(*number)))
        .collect();
    let mut free = range.filter(|number| !taken[usize::from(*number)]);
    assigned
        .into_iter()
        .map(|number| number.or_else(|| free.next()))
        .collect()
}

pub(super) fn leaf_key(destination: Destination) -> LeafKey {
    let [high, _] = destination.port.to_be_bytes();
    (destination.protocol, high)
}

pub(super) fn entry(destination: Destination) -> usize {
    usize::from(destination.port) % PAGE_ENTRIES
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use conntrack_ebpf::lookup::lookup;
    use proptest::{collection, prelude::*};

    use super::*;
    use crate::port_table::Write;

    fn mark(image: &Image, destination: Destination) -> Option<u32> {
        lookup(image, destination).map(|hit| hit.mark.get())
    }

    fn everywhere() -> impl Iterator<Item = Destination> {
        [Protocol::Tcp, Protocol::Udp]
            .into_iter()
            .flat_map(|protocol| (0..=u16::MAX).map(move |port| Destination { protocol, port }))
    }

    /// Few enough high bytes that pages are shared, many enough that they are
    /// not always.
    fn destination() -> impl Strategy<Value = Destination> {
        (any::<bool>(), 0u8..6, 0u8..6).prop_map(|(tcp, high, low)| Destination {
            protocol: if tcp { Protocol::Tcp } else { Protocol::Udp },
            port: u16::from_be_bytes([high * 51, low * 51]),
        })
    }

    fn wanted() -> impl Strategy<Value = Wanted> {
        collection::btree_map(destination(), 1u32..4, 0..20)
    }

    #[test]
    fn the_largest_table_has_a_slot_for_every_number() {
        let most = usize::from(Capacity::MAX.slots) - 1;
        let wanted: Wanted = everywhere().take(most).map(|at| (at, 1)).collect();
        let mut image = Image::empty(Capacity::MAX);
        image.edit(&plan(&image, &wanted).unwrap());
        assert_eq!(image.rules(), wanted);
        assert_eq!(image.free_slots().count(), 0);
        let one_more = everywhere().take(most + 1).map(|at| (at, 1)).collect();
        assert_eq!(plan(&image, &one_more), Err(Capacity::MAX));
    }

    proptest! {
        /// Over a row of changes, a reader between any two writes finds for
        /// each destination what the old or the new rules say, and at the end
        /// what the new ones say; a second plan has nothing left to write.
        #[test]
        fn a_reader_sees_the_old_or_the_new_rules(changes in collection::vec(wanted(), 1..6)) {
            let mut image = Image::empty(Capacity::DEFAULT);
            let mut old = Wanted::new();
            for new in changes {
                let known: BTreeSet<_> = old.keys().chain(new.keys()).copied().collect();
                for write in plan(&image, &new).unwrap().writes() {
                    image.apply(write);
                    for at in &known {
                        let seen = mark(&image, *at);
                        let allowed = [old.get(at).copied(), new.get(at).copied(), None];
                        prop_assert!(allowed.contains(&seen), "{at:?} saw {seen:?}");
                        if old.get(at) == new.get(at) {
                            prop_assert_eq!(seen, new.get(at).copied(), "{:?} was disturbed", at);
                        } else if old.contains_key(at) && new.contains_key(at) {
                            prop_assert_ne!(seen, None, "{:?} had a gap", at);
                        }
                    }
                }
                prop_assert!(plan(&image, &new).unwrap().is_empty());
                prop_assert_eq!(&image.rules(), &new);
                old = new;
            }
            for at in everywhere() {
                prop_assert_eq!(mark(&image, at), old.get(&at).copied());
            }
        }

        /// Whatever somebody wrote into the maps, one plan makes them right.
        #[test]
        fn any_image_is_mended(
            new in wanted(),
            damage in collection::vec((0usize..15, 0usize..256, 0u16..40), 0..200),
            slots in collection::vec((0usize..32, any::<u64>()), 0..70),
            before in wanted(),
        ) {
            let mut image = Image::empty(Capacity::DEFAULT);
            image.edit(&plan(&image, &before).unwrap());
            for (page, at, value) in damage {
                image.pages[page][at] = value;
            }
            for (index, bits) in slots {
                image.slots[index] = Slot::from_bits(bits);
            }
            image.edit(&plan(&image, &new).unwrap());
            for at in everywhere() {
                prop_assert_eq!(mark(&image, at), new.get(&at).copied());
            }
            prop_assert!(plan(&image, &new).unwrap().is_empty());
        }

        /// Taking the writes back in reverse restores the image, and what a
        /// reader sees on the way is again the one or the other.
        #[test]
        fn a_change_can_be_taken_back(before in wanted(), after in wanted()) {
            let mut image = Image::empty(Capacity::DEFAULT);
            image.edit(&plan(&image, &before).unwrap());
            let original = image.clone();
            let edit = plan(&image, &after).unwrap();
            image.edit(&edit);
            image.edit(&edit.inverse());
            prop_assert_eq!(&image, &original);
            // And half of it.
            let half = edit.len() / 2;
            for write in edit.writes().take(half) {
                image.apply(write);
            }
            image.edit(&edit.undo_of_first(half));
            prop_assert_eq!(image, original);
        }
    }

    #[test]
    fn a_table_that_is_too_small_says_what_is_needed() {
        let image = Image::empty(Capacity::DEFAULT);
        let many: Wanted = everywhere().skip(1).take(64).map(|at| (at, 1)).collect();
        let needed = plan(&image, &many).unwrap_err();
        assert_eq!((needed.pages, needed.slots), (15, 128));
        let wide: Wanted = everywhere()
            .step_by(256)
            .take(22)
            .map(|at| (at, 1))
            .collect();
        let needed = plan(&image, &wide).unwrap_err();
        assert_eq!((needed.pages, needed.slots), (30, 32));
    }

    #[test]
    fn one_rule_is_one_write_of_each_kind() {
        let image = Image::empty(Capacity::DEFAULT);
        let at = Destination {
            protocol: Protocol::Tcp,
            port: 21,
        };
        let wanted = Wanted::from([(at, 1)]);
        let kinds = |edit: Edit| -> Vec<_> {
            let kind = |write: &Write| match write {
                Write::Slot { index, .. } => format!("slot {index}"),
                Write::ResetCounters { index } => format!("counters {index}"),
                Write::Page { index, .. } => format!("page {index}"),
            };
            edit.writes().map(kind).collect()
        };
        let planned = kinds(plan(&image, &wanted).unwrap());
        assert_eq!(planned, ["slot 1", "counters 1", "page 3", "page 1"]);
        // New maps have counted nothing.
        let filled = kinds(fill(image.capacity(), &wanted).unwrap());
        assert_eq!(filled, ["slot 1", "page 3", "page 1"]);
    }
}
