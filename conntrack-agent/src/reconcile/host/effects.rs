//! Carries out an effect, and returns the effect that undoes it.

use conntrack_ebpf::abi::Slot;

use super::Host;
use crate::{
    kernel::{Attachment, BindingState, Error, Instance, Pin},
    model::RouterId,
    port_table::{Edit, Write},
    reconcile::Effect,
};

impl Host {
    #[expect(clippy::too_many_lines, reason = "an arm for each effect")]
    pub(super) fn carry_out(
        &mut self,
        router: RouterId,
        effect: &Effect,
    ) -> Result<Option<Effect>, Error> {
        let undo = match effect {
            Effect::RebuildInstance(capacity, table, carrier) => {
                self.rebuild(router, *capacity, table, *carrier)?;
                None
            }
            Effect::LoadInstance(capacity, carrier) => {
                self.pins.prepare(router)?;
                let folder = self.pins.instance(router);
                let made = Instance::create(&mut self.object, &folder, router, *capacity, *carrier);
                if made.is_err() {
                    self.pins.tidy(router)?;
                }
                made?;
                self.take_hint(router, 1..capacity.slots)?;
                Some(Effect::RemoveInstance)
            }
            Effect::RenewInstance(capacity) => {
                self.renew(router, *capacity)?;
                None
            }
            Effect::WriteTable(edit) => {
                self.write(router, edit)?;
                Some(Effect::WriteTable(edit.inverse()))
            }
            Effect::Bind {
                namespace,
                instead_of,
                reads,
            } => {
                let netns = self.netns(router, namespace)?;
                self.binding.install(netns, *instead_of, *reads)?;
                Effect::undo_of_bind(namespace, *instead_of, *reads)
            }
            Effect::SetCarrier {
                instead_of,
                carrier,
            } => {
                self.with_instance(router, |_, instance| instance.set_carrier(*carrier))?;
                instead_of.map(|before| Effect::SetCarrier {
                    instead_of: Some(*carrier),
                    carrier: before,
                })
            }
            Effect::Attach {
                namespace,
                attachment,
            } => {
                let was_there = self.attach(router, namespace, attachment)?;
                (!was_there).then(|| Effect::Detach {
                    namespace: namespace.clone(),
                    attachment: attachment.clone(),
                })
            }
            Effect::TakeOver {
                namespace,
                attachment,
                from,
            } => {
                let inherited = Attachment {
                    pin: from.clone(),
                    ..attachment.clone()
                };
                let taken = self.take_over(router, namespace, attachment, &inherited)?;
                // An effect that gave the link back would leave it without an
                // owner.
                (!taken).then(|| Effect::Detach {
                    namespace: namespace.clone(),
                    attachment: attachment.clone(),
                })
            }
            Effect::Detach {
                namespace,
                attachment,
            } => {
                let netns = self.netns(router, namespace)?;
                self.hooks.detach(netns, attachment)?;
                self.pinned_links.forget(router, &attachment.pin);
                Some(Effect::Attach {
                    namespace: namespace.clone(),
                    attachment: attachment.clone(),
                })
            }
            Effect::AttachXdp {
                namespace,
                attachment,
                mode,
                from,
            } => {
                let is_new =
                    self.attach_xdp(router, namespace, attachment, *mode, from.as_deref())?;
                is_new.then(|| Effect::DetachXdp {
                    namespace: namespace.clone(),
                    attachment: attachment.clone(),
                })
            }
            Effect::DetachXdp {
                namespace,
                attachment,
            } => {
                self.hooks.detach_xdp(attachment)?;
                self.pinned_links.forget(router, &attachment.pin);
                self.pins.tidy(router)?;
                let mode = self.xdp.mode_of(&attachment.interface.name);
                mode.map(|mode| Effect::AttachXdp {
                    namespace: namespace.clone(),
                    attachment: attachment.clone(),
                    mode,
                    from: None,
                })
            }
            Effect::ReapLink(pin) => {
                self.hooks.reap(self.namespaces.folder(), pin)?;
                self.pinned_links.forget(router, pin);
                self.pins.tidy(router)?;
                None
            }
            Effect::Unbind { namespace, reads } => {
                self.binding.remove(self.netns(router, namespace)?)?;
                Some(Effect::Bind {
                    namespace: namespace.clone(),
                    instead_of: BindingState::Absent,
                    reads: *reads,
                })
            }
            Effect::RemoveInstance => {
                self.forget_instance(router);
                Instance::remove(&self.pins.instance(router))?;
                self.pins.tidy(router)?;
                None
            }
            Effect::RemovePredecessor => {
                self.remove_predecessors(router)?;
                None
            }
        };
        Ok(undo)
    }

    /// Attaches the program. Returns whether something of the agent's was on
    /// the interface already.
    fn attach(
        &mut self,
        router: RouterId,
        namespace: &str,
        attachment: &Attachment,
    ) -> Result<bool, Error> {
        // Somebody may have removed the folder of the pins.
        self.pins.prepare_links(router)?;
        // The link may still exist without a pin.
        if !attachment.pin.exists() {
            let (pin, interface) = (&attachment.pin, attachment.interface.index);
            self.pinned_links.restore(router, pin, interface)?;
        }
        let way = self.attach_planner.next(Pin::at(&attachment.pin)?);
        self.with_instance(router, |host, instance| {
            let netns = host.netns(router, namespace)?;
            host.hooks.attach(way, netns, attachment, instance)
        })
    }

    fn write(&mut self, router: RouterId, edit: &Edit) -> Result<(), Error> {
        self.with_instance(router, |_, instance| instance.edit(edit))?;
        if let Some(hint) = self.hints.get_mut(&router) {
            for write in edit.writes() {
                if let Write::Slot { index, slot } = write {
                    if *slot == Slot::default() {
                        hint.free_slots.insert(*index);
                    } else {
                        hint.free_slots.remove(index);
                    }
                }
            }
        }
        Ok(())
    }
}
