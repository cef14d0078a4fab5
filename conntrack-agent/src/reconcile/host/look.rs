//! Looks at one router: all that the kernel has of it.

use tracing::debug;

use super::{Held, Hint, Host};
use crate::{
    kernel::{Attachment, Error, Instance, Kind, Netns, Usable},
    model::RouterId,
    reconcile::{InstanceState, InterfaceState, NamespaceState, Observed},
};

/// How often a namespace's interfaces are listed before the look is given up.
const LISTINGS: usize = 4;

impl Host {
    pub(super) fn look(&self, router: RouterId) -> Result<(Observed, Held), Error> {
        let folder = self.pins.instance(router);
        if let Some(owner) = Instance::owner_of(&folder).filter(|owner| *owner != self.agent) {
            return Err(Error::Foreign { folder, owner });
        }
        let mut held = Held::default();
        let (instance, program) = match Instance::open(&folder)? {
            Usable::Absent => (InstanceState::Absent, None),
            Usable::Broken => (InstanceState::Broken, None),
            Usable::Whole(instance) => {
                let image = instance.image()?;
                let state = if instance.is_of(&self.object) {
                    InstanceState::Current(image)
                } else {
                    InstanceState::Outdated(image)
                };
                let program = instance.program_id();
                held.instance = Some(instance);
                (state, Some(program))
            }
        };
        let mut dead_links = self.pins.links_of(router)?;
        let mut states = Vec::new();
        for prefix in &self.prefixes {
            let Some(netns) = self.folder.open(&format!("{prefix}{router}"))? else {
                continue;
            };
            let interfaces = self.observe_interfaces(router, &netns, program)?;
            for state in &interfaces {
                dead_links.retain(|pin| *pin != state.attachment.pin);
            }
            states.push(NamespaceState {
                name: netns.name().to_owned(),
                binding: self.binding.observe(&netns)?,
                interfaces,
            });
            held.namespaces.insert(netns.name().to_owned(), netns);
        }
        let observed = Observed {
            instance,
            namespaces: states,
            dead_links,
        };
        Ok((observed, held))
    }

    /// Whether the router has the same namespaces as when it was observed.
    pub(super) fn is_where_it_was(&self, router: RouterId, hint: &Hint) -> Result<bool, Error> {
        for prefix in &self.prefixes {
            let name = format!("{prefix}{router}");
            if self.folder.identity(&name)?.as_ref() != hint.namespaces.get(&name) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// One that can't be found by the name that it was listed with was unplugged
    /// or renamed: only another listing tells, and a link must not be reaped for
    /// a new name.
    fn observe_interfaces(
        &self,
        router: RouterId,
        netns: &Netns,
        program: Option<u32>,
    ) -> Result<Vec<InterfaceState>, Error> {
        let mut missed = String::new();
        for _ in 0..LISTINGS {
            match self.list_interfaces(router, netns, program)? {
                Ok(states) => return Ok(states),
                Err(interface) => missed = interface,
            }
        }
        Err(Error::InterfaceGone {
            namespace: netns.name().to_owned(),
            interface: missed,
        })
    }

    /// Or the name of one that was missed.
    fn list_interfaces(
        &self,
        router: RouterId,
        netns: &Netns,
        program: Option<u32>,
    ) -> Result<Result<Vec<InterfaceState>, String>, Error> {
        let mut states = Vec::new();
        for interface in netns.interfaces()? {
            match interface.kind {
                Kind::Loopback => continue,
                Kind::Other => {
                    debug!(%router, namespace = netns.name(), interface = interface.name,
                        "not an Ethernet interface: its traffic gets no helper");
                    continue;
                }
                Kind::Ethernet => {}
            }
            let attachment = Attachment {
                pin: self.pins.link(router, netns.name(), interface.index),
                interface,
            };
            let attached = match program {
                Some(program) => attachment.has(netns, program)?,
                None => Some(false),
            };
            let Some(attached) = attached else {
                return Ok(Err(attachment.interface.name));
            };
            let pinned = attachment.pin.exists();
            states.push(InterfaceState {
                attachment,
                attached,
                pinned,
            });
        }
        Ok(Ok(states))
    }
}
