//! Reads rules' counters, also while one instance replaces another.

use conntrack_ebpf::abi::{self, Counters, Destination, Slot, counter_place};

use super::{Instance, RawCounters};
use crate::{
    kernel::Error,
    port_table::{Capacity, Write},
};

impl Instance {
    /// Returns what the rule for `destination` has matched, over all CPUs, or
    /// `None` if the port table has no such rule.
    ///
    /// # Errors
    /// [`Error::Map`] if the maps can't be read.
    pub fn counters(&self, destination: Destination) -> Result<Option<Counters>, Error> {
        let Some(hit) = conntrack_ebpf::lookup::lookup(&self.image()?, destination) else {
            return Ok(None);
        };
        let [packets, bytes] = self.matched(hit.slot)?;
        Ok(Some(Counters { packets, bytes }))
    }

    /// Copies everything from `old`: the same rules in the same slots, with
    /// their counts so far.
    ///
    /// # Errors
    /// [`Error::Map`] if a map can't be read or written.
    pub fn take_over(&mut self, old: &Self) -> Result<(), Error> {
        let image = old.image()?;
        let Capacity { pages, slots } = image.capacity();
        for index in 0..slots {
            let slot = image.slot_at(index);
            if slot != Slot::default() {
                self.write(&Write::Slot { index, slot })?;
            }
        }
        for index in 0..pages {
            let page = Box::new(image.page_at(index));
            if page.iter().any(|entry| *entry != 0) {
                self.write(&Write::Page { index, page })?;
            }
        }
        self.count_on_from(old)
    }

    /// Continues the counts of `old`; has to be called again when that one no
    /// longer counts. Its own counters must have started at zero.
    ///
    /// # Errors
    /// [`Error::Map`] if a map can't be read or written.
    pub fn count_on_from(&mut self, old: &Self) -> Result<(), Error> {
        let image = old.image()?;
        for index in 0..image.capacity().slots {
            if image.slot_at(index) != Slot::default() {
                let matched = old.matched(index)?;
                self.set_base(index, matched.map(u64::wrapping_neg))?;
            }
        }
        Ok(())
    }

    /// Returns what the slot's rule has matched.
    fn matched(&self, slot: u16) -> Result<RawCounters, Error> {
        let counted = self.counted(slot)?;
        let base = self.bases.get(&slot.into(), 0);
        let base = base.map_err(Error::map("reading", abi::BASES))?;
        Ok([0, 1].map(|which: usize| counted[which].wrapping_sub(base[which])))
    }

    /// Returns all that the slot has ever counted, over all CPUs.
    pub(super) fn counted(&self, slot: u16) -> Result<RawCounters, Error> {
        let (element, place) = counter_place(slot);
        let groups = self.counters.get(&element, 0);
        let groups = groups.map_err(Error::map("reading", abi::COUNTERS))?;
        let sum = |which: usize| {
            let of_cpus = groups.iter().map(|group| group[place][which]);
            of_cpus.fold(0, u64::wrapping_add)
        };
        Ok([sum(0), sum(1)])
    }

    pub(super) fn set_base(&mut self, slot: u16, base: RawCounters) -> Result<(), Error> {
        let set = self.bases.set(slot.into(), base, 0);
        set.map_err(Error::map("writing", abi::BASES))
    }
}
