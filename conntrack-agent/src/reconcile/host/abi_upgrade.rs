//! Takes over from an agent with an older ABI while packets pass.
//!
//! The older agent's pins can't be read, except for whose they are and which
//! links there are. So the new instance is made beside the old one and filled
//! from the mapping; then each link gets its program and moves to this version's
//! folder; then the rest is removed. If an agent dies on the way, the next one
//! finds what is left.

use super::{Host, renewal::rename};
use crate::{
    kernel::{Attachment, Error, Instance, Pin, Pins},
    model::RouterId,
    reconcile::{InterfaceState, Observed},
};

impl Host {
    /// Returns the pins of the older versions that have any for the router.
    fn predecessors(&self, router: RouterId) -> Result<Vec<Pins>, Error> {
        let mut older = self.pins.older()?;
        older.retain(|pins| pins.has(router));
        Ok(older)
    }

    /// Adds what older versions have left to the observation.
    pub(super) fn observe_older_abi(
        &self,
        router: RouterId,
        observed: &mut Observed,
    ) -> Result<(), Error> {
        for pins in self.predecessors(router)? {
            observed.has_predecessor = true;
            for folder in pins.instances(router) {
                let owner = Instance::owner_of(&folder);
                if let Some(owner) = owner.filter(|owner| *owner != self.agent) {
                    return Err(Error::Foreign { folder, owner });
                }
            }
            for link in pins.xdp_links_of(router)? {
                let of_it = interfaces(observed).find(|state| {
                    !state.xdp.pinned
                        && state.xdp.inherited.is_none()
                        && state.xdp.pin.file_name() == link.file_name()
                });
                match of_it {
                    Some(state) => {
                        // The program that looked like another owner's is this
                        // link's.
                        state.xdp.obstacle = None;
                        state.xdp.inherited = Some(link);
                    }
                    None => observed.dead_links.push(link),
                }
            }
            for link in pins.links_of(router)? {
                // An interface that has a link of this version needs no older
                // one.
                let of_it = interfaces(observed).find(|state| {
                    !state.attachment.pin.exists()
                        && state.inherited.is_none()
                        && state.attachment.pin.file_name() == link.file_name()
                });
                match of_it {
                    Some(state) => state.inherited = Some(link),
                    None => observed.dead_links.push(link),
                }
            }
        }
        Ok(())
    }

    /// Makes an older version's attachment to an interface run this version's
    /// program, and moves its pin to this version's folder. Returns false if it
    /// was not on the interface any more: then the program is attached anew.
    pub(super) fn take_over(
        &mut self,
        router: RouterId,
        namespace: &str,
        attachment: &Attachment,
        inherited: &Attachment,
    ) -> Result<bool, Error> {
        self.pins.prepare(router)?;
        let way = self.attach_planner.next(Pin::at(&inherited.pin)?);
        let was_there = self.with_instance(router, |host, instance| {
            let netns = host.netns(router, namespace)?;
            host.hooks.attach(way, netns, inherited, instance)
        })?;
        rename(&inherited.pin, &attachment.pin)?;
        Ok(was_there)
    }

    pub(super) fn remove_predecessors(&self, router: RouterId) -> Result<(), Error> {
        for pins in self.predecessors(router)? {
            for link in pins.attachments_of(router)? {
                self.hooks.reap(self.namespaces.folder(), &link)?;
            }
            pins.remove(router)?;
        }
        Ok(())
    }
}

fn interfaces(observed: &mut Observed) -> impl Iterator<Item = &mut InterfaceState> {
    let namespaces = observed.namespaces.iter_mut();
    namespaces.flat_map(|namespace| &mut namespace.interfaces)
}
