//! Replaces an instance by another while packets pass.
//!
//! ```text
//! instance            what links run
//! instance next       another is made; links know nothing of it
//! instance successor  it is whole, and links get it, one after the other
//!          successor  all have it
//! instance            under the name that it keeps
//! ```
//! An agent may have died in each of these states, and [`Host::resume_upgrade`] goes
//! on from there.

use std::{fs, path::Path};

use super::Host;
use crate::{
    kernel::{Carrier, Error, Instance, Usable, wait_for_programs},
    model::RouterId,
    port_table::{Capacity, Wanted, fill},
};

impl Host {
    /// Finishes a renewal that an agent left unfinished when it died.
    pub(super) fn resume_upgrade(&self, router: RouterId) -> Result<(), Error> {
        let (next, successor) = (self.pins.next_instance(router), self.pins.successor(router));
        if !next.exists() && !successor.exists() {
            return Ok(());
        }
        for folder in [&next, &successor] {
            if let Some(owner) = Instance::owner_of(folder).filter(|owner| *owner != self.agent) {
                return Err(Error::Foreign {
                    folder: folder.clone(),
                    owner,
                });
            }
        }
        Instance::remove(&next)?;
        match Instance::open(&successor)? {
            Usable::Absent => Ok(()),
            // It was whole, and somebody has removed a part of it.
            Usable::Broken => Instance::remove(&successor),
            Usable::Whole(new) => self.succeed(router, new),
        }
    }

    /// Replaces an instance that works. With the same capacity the new one works on
    /// the same maps, so that no count is ever in two places.
    pub(super) fn renew(&mut self, router: RouterId, capacity: Capacity) -> Result<(), Error> {
        let next = self.pins.next_instance(router);
        let old = self.instance(router)?;
        self.forget_instance(router);
        if capacity == old.capacity() {
            old.create_twin(&mut self.object, &next)?;
        } else {
            // A caller that wants another carrier changes it afterwards.
            let carrier = old.carrier()?.unwrap_or(Carrier::Mark);
            Instance::create(&mut self.object, &next, router, capacity, carrier)?;
        }
        self.replace_with_next(router, |new| {
            if new.is_twin_of(&old)? {
                Ok(())
            } else {
                new.take_over(&old)
            }
        })
    }

    /// Replaces remains by an instance that is whole before any link runs it.
    pub(super) fn rebuild(
        &mut self,
        router: RouterId,
        capacity: Capacity,
        table: &Wanted,
        carrier: Carrier,
    ) -> Result<(), Error> {
        let edit = fill(capacity, table).map_err(|_| Error::Missing("room for the rules"))?;
        self.forget_instance(router);
        let next = self.pins.next_instance(router);
        Instance::create(&mut self.object, &next, router, capacity, carrier)?;
        self.replace_with_next(router, |new| new.edit(&edit))
    }

    fn replace_with_next(
        &self,
        router: RouterId,
        fill: impl FnOnce(&mut Instance) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let next = self.pins.next_instance(router);
        let filled = self.open_next(router).and_then(|mut new| {
            fill(&mut new)?;
            rename(&next, &self.pins.successor(router))?;
            Ok(new)
        });
        if filled.is_err() {
            Instance::remove(&next)?;
        }
        // If this fails half-way, the next look at the router goes on.
        self.succeed(router, filled?)
    }

    /// Makes the successor the router's instance. Each step can be repeated.
    fn succeed(&self, router: RouterId, mut new: Instance) -> Result<(), Error> {
        let (instance, successor) = (self.pins.instance(router), self.pins.successor(router));
        self.relink(router, &mut new)?;
        if let Usable::Whole(old) = Instance::open(&instance)?
            && !new.is_twin_of(&old)?
        {
            // The old instance has counted on since its counts were copied.
            wait_for_programs();
            new.count_on_from(&old)?;
        }
        Instance::remove(&instance)?;
        rename(&successor, &instance)
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
            self.hooks.replace(self.namespaces.folder(), &pin, next)?;
        }
        self.xdp.relink(router, next)
    }
}

pub(super) fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(from, to).map_err(Error::file(from, "renamed"))
}
