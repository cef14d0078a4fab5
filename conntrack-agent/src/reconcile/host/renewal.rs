//! Puts one instance in another's place, while packets pass.

use std::{fs, path::Path};

use super::Host;
use crate::{
    kernel::{Error, Instance, Usable},
    model::RouterId,
    port_table::{Capacity, Wanted, fill},
};

impl Host {
    /// Brings a renewal to its end that an agent which died left half-way: of
    /// two instances one must be the router's.
    pub(super) fn settle(&self, router: RouterId) -> Result<(), Error> {
        let (instance, next) = (self.pins.instance(router), self.pins.next_instance(router));
        if !next.exists() {
            return Ok(());
        }
        if let Some(owner) = Instance::owner_of(&next).filter(|owner| *owner != self.agent) {
            return Err(Error::Foreign {
                folder: next,
                owner,
            });
        }
        let whole = |found| matches!(found, Usable::Whole(_));
        if !whole(Instance::open(&instance)?) && whole(Instance::open(&next)?) {
            // It died after the links had got the new program.
            Instance::remove(&instance)?;
            return rename(&next, &instance);
        }
        // It died before; links that had it already get the old one back when
        // the difference is applied.
        Instance::remove(&next)
    }

    /// Up to the renaming, every step leaves a whole instance in place, and
    /// [`Self::settle`] knows how to go on from each.
    pub(super) fn renew(&mut self, router: RouterId, capacity: Capacity) -> Result<(), Error> {
        let (instance, next) = (self.pins.instance(router), self.pins.next_instance(router));
        let old = self.instance(router)?;
        self.forget_instance(router);
        Instance::create(&mut self.object, &next, capacity)?;
        let swapped = self.swap(router, &old);
        if swapped.is_err() {
            // Links that have the new program keep it until the router is
            // reconciled again; it classifies by the same rules.
            Instance::remove(&next)?;
        }
        swapped?;
        Instance::remove(&instance)?;
        rename(&next, &instance)
    }

    /// In the place of remains: whole before any link runs it.
    pub(super) fn rebuild(
        &mut self,
        router: RouterId,
        capacity: Capacity,
        table: &Wanted,
    ) -> Result<(), Error> {
        self.forget_instance(router);
        let (instance, next) = (self.pins.instance(router), self.pins.next_instance(router));
        Instance::create(&mut self.object, &next, capacity)?;
        let filled = self.fill(router, capacity, table);
        if filled.is_err() {
            Instance::remove(&next)?;
        }
        filled?;
        Instance::remove(&instance)?;
        rename(&next, &instance)
    }

    fn fill(&self, router: RouterId, capacity: Capacity, table: &Wanted) -> Result<(), Error> {
        let mut next = self.open_next(router)?;
        let edit = fill(capacity, table);
        next.edit(&edit.map_err(|_| Error::Missing("room for the rules"))?)?;
        self.relink(router, &mut next)
    }

    fn swap(&self, router: RouterId, old: &Instance) -> Result<(), Error> {
        let mut next = self.open_next(router)?;
        next.take_over(old)?;
        self.relink(router, &mut next)
    }

    fn open_next(&self, router: RouterId) -> Result<Instance, Error> {
        match Instance::open(&self.pins.next_instance(router))? {
            Usable::Whole(next) => Ok(next),
            Usable::Absent | Usable::Broken => Err(Error::Missing("instance just loaded")),
        }
    }

    fn relink(&self, router: RouterId, next: &mut Instance) -> Result<(), Error> {
        for pin in self.pins.links_of(router)? {
            // A dead link is reaped elsewhere.
            self.hooks.replace(&self.folder, &pin, next)?;
        }
        Ok(())
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(from, to).map_err(|source| Error::File {
        path: from.to_owned(),
        what: "renamed",
        source,
    })
}
