//! Takes over from an agent with an older ABI while packets pass.
//!
//! The older agent's pins can't be read, except for whose they are and which
//! links there are. So the new instance is made beside the old one and filled
//! from the mapping; then each link gets its program and moves to this version's
//! folder; then the rest is removed. If an agent dies on the way, the next one
//! finds what is left.

use std::path::{Path, PathBuf};

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
            inherit(observed, pins.xdp_links_of(router)?, |state, link| {
                state.xdp.inherit(link)
            });
            inherit(observed, pins.links_of(router)?, InterfaceState::inherit);
        }
        Ok(())
    }

    /// Makes an older version's attachment to an interface run this version's
    /// program, and moves its pin to this version's folder. Returns false if it
    /// was not on the interface any more: then the program is attached anew.
    pub(super) fn take_over(
        &mut self,
        router: RouterId,
        attachment: &Attachment,
        from: &Path,
    ) -> Result<bool, Error> {
        let inherited = Attachment {
            pin: from.to_owned(),
            ..attachment.clone()
        };
        self.pins.prepare(router)?;
        let way = self.attach_planner.next(Pin::at(from)?);
        let was_there = self.with_instance(router, |host, instance| {
            let netns = host.netns(router, &attachment.namespace)?;
            host.hooks.attach(way, netns, &inherited, instance)
        })?;
        rename(from, &attachment.pin)?;
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

/// Gives each link to the interface that takes it; a link that none takes is dead.
fn inherit(
    observed: &mut Observed,
    links: Vec<PathBuf>,
    takes: impl Fn(&mut InterfaceState, &Path) -> bool,
) {
    for link in links {
        let namespaces = observed.namespaces.iter_mut();
        let mut interfaces = namespaces.flat_map(|namespace| &mut namespace.interfaces);
        if !interfaces.any(|state| takes(state, &link)) {
            observed.dead_links.push(link);
        }
    }
}

impl InterfaceState {
    /// Takes the link if it is this interface's, and the interface has no link of this
    /// version. Returns whether it does.
    fn inherit(&mut self, link: &Path) -> bool {
        let pin = &self.attachment.pin;
        let takes =
            !pin.exists() && self.inherited.is_none() && pin.file_name() == link.file_name();
        if takes {
            self.inherited = Some(link.to_owned());
        }
        takes
    }
}
