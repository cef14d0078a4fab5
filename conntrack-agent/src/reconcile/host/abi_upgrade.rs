//! Follows an agent of an older ABI, while packets pass.
//!
//! What that one has pinned can't be read, but for whose it is and which links
//! there are. So the new instance is made beside the old one and filled from the
//! mapping; then each link gets its program and moves to this version's folder;
//! then the rest goes. What is left of it where an agent died is what the next
//! one finds.

use super::{Host, renewal::rename};
use crate::{
    kernel::{Attachment, Error, Instance, Pin, Pins},
    model::RouterId,
    reconcile::{InterfaceState, Observed},
};

impl Host {
    /// The older versions in which something is pinned for the router.
    fn predecessors(&self, router: RouterId) -> Result<Vec<Pins>, Error> {
        let mut older = self.pins.older()?;
        older.retain(|pins| pins.has(router));
        Ok(older)
    }

    /// Notes what there is of older versions.
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
                        // What looked like another's program is this link's.
                        state.xdp.obstacle = None;
                        state.xdp.inherited = Some(link);
                    }
                    None => observed.dead_links.push(link),
                }
            }
            for link in pins.links_of(router)? {
                // One that this version has a link on needs none.
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

    /// Has what an older version attached to an interface run this version's
    /// program, and moves its pin to this version's folder. Returns false if it
    /// was not on the interface any more: then it is attached anew.
    pub(super) fn take_over(
        &mut self,
        router: RouterId,
        namespace: &str,
        attachment: &Attachment,
        inherited: &Attachment,
    ) -> Result<bool, Error> {
        self.pins.prepare(router)?;
        let way = self.ways.next(Pin::at(&inherited.pin)?);
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
