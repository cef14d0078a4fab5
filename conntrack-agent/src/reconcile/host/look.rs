//! Observes one router.

use tracing::debug;

use super::{Held, Hint, Host, has_nat_chains};
use crate::{
    config::{CarrierChoice, Nat},
    kernel::{Attachment, Error, Instance, LinkKind, Netns, Pin, Usable},
    model::RouterId,
    reconcile::{CarrierState, InstanceState, InterfaceState, NamespaceState, Observed},
};

impl Host {
    pub(super) fn look(&self, router: RouterId) -> Result<(Observed, Held), Error> {
        let folder = self.pins.instance(router);
        if let Some(owner) = Instance::owner_of(&folder).filter(|owner| *owner != self.agent) {
            return Err(Error::Foreign { folder, owner });
        }
        let mut held = Held::default();
        let mut carrier = None;
        let instance = match Instance::open(&folder)? {
            Usable::Absent => InstanceState::Absent,
            Usable::Broken => InstanceState::Broken,
            Usable::Whole(instance) => {
                let image = instance.image()?;
                carrier = instance.carrier()?;
                let is_current =
                    instance.is_of(&self.object) && instance.shares_current_maps(&self.object)?;
                held.instance = Some(instance);
                if is_current {
                    InstanceState::Current(image)
                } else {
                    InstanceState::Outdated(image)
                }
            }
        };
        let mut dead_links = self.pins.attachments_of(router)?;
        let (mut states, mut nat) = (Vec::new(), Nat::default());
        for name in self.namespaces.names_of(router) {
            let Some(netns) = self.namespaces.folder().open(&name)? else {
                continue;
            };
            let interfaces = self.observe_interfaces(router, &netns, held.instance.as_ref())?;
            for state in &interfaces {
                dead_links.retain(|pin| *pin != state.attachment.pin && *pin != state.xdp.pin);
            }
            states.push(NamespaceState {
                name: netns.name().to_owned(),
                binding: self.binding.observe(&netns)?,
                interfaces,
            });
            if self.carrier == CarrierChoice::Auto {
                nat.0.push(self.binding.is_beside_nat(&netns)?);
            }
            held.namespaces.insert(netns.name().to_owned(), netns);
        }
        let mut observed = Observed {
            instance,
            carrier: CarrierState {
                present: carrier,
                wanted: self.carrier.of(&nat, has_nat_chains(&self.binding)),
            },
            namespaces: states,
            dead_links,
            has_predecessor: false,
        };
        self.observe_older_abi(router, &mut observed)?;
        Ok((observed, held))
    }

    /// Returns whether the router has the same namespaces as when it was
    /// observed.
    pub(super) fn is_where_it_was(&self, router: RouterId, hint: &Hint) -> Result<bool, Error> {
        for name in self.namespaces.names_of(router) {
            if self.namespaces.folder().identity(&name)?.as_ref() != hint.namespaces.get(&name) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn observe_interfaces(
        &self,
        router: RouterId,
        netns: &Netns,
        instance: Option<&Instance>,
    ) -> Result<Vec<InterfaceState>, Error> {
        let mut states = Vec::new();
        for ingress in self.hooks.look(netns)? {
            let interface = &ingress.interface;
            match interface.kind {
                LinkKind::Loopback => continue,
                LinkKind::Other => {
                    debug!(%router, namespace = netns.name(), interface = interface.name,
                        "not an Ethernet interface: its traffic gets no helper");
                    continue;
                }
                LinkKind::Ethernet => {}
            }
            let path = self.pins.link(router, netns.name(), interface.index);
            let pin = Pin::at(&path)?;
            let wanted = self.interfaces.has(&interface.name);
            let state = InterfaceState {
                wanted,
                xdp: self.xdp.observe(router, netns, &ingress, wanted, instance),
                attached: instance.is_some_and(|instance| {
                    let program = instance.program_id();
                    self.attach_planner.will_do(router, &ingress, program, pin)
                }),
                pinned: pin != Pin::Absent || ingress.has_filter(),
                inherited: None,
                attachment: Attachment {
                    namespace: netns.name().to_owned(),
                    pin: path,
                    interface: ingress.interface,
                },
            };
            if state.is_ours() {
                states.push(state);
            }
        }
        Ok(states)
    }
}
