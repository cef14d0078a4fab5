//! Carries out an effect, and returns the effect that undoes it.

use conntrack_ebpf::abi::Slot;

use super::Host;
use crate::{
    kernel::{Attachment, Error, Instance, Pin},
    model::RouterId,
    port_table::{Edit, Write},
    reconcile::{Effect, XdpEffect},
};

impl Host {
    pub(super) fn carry_out(
        &mut self,
        router: RouterId,
        effect: &Effect,
    ) -> Result<Option<Effect>, Error> {
        // Only what is new is taken away by undoing it.
        let mut is_new = true;
        match effect {
            Effect::RebuildInstance(capacity, table, carrier) => {
                self.rebuild(router, *capacity, table, *carrier)?;
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
            }
            Effect::RenewInstance(capacity) => self.renew(router, *capacity)?,
            Effect::WriteTable(edit) => self.write(router, edit)?,
            Effect::Bind {
                namespace,
                instead_of,
                reads,
            } => {
                let netns = self.netns(router, namespace)?;
                self.binding.install(netns, *instead_of, *reads)?;
            }
            Effect::SetCarrier { carrier, .. } => {
                self.with_instance(router, |_, instance| instance.set_carrier(*carrier))?;
            }
            Effect::Attach(attachment) => is_new = !self.attach(router, attachment)?,
            // An effect that gave the link back would leave it without an owner.
            Effect::TakeOver { attachment, from } => {
                is_new = !self.take_over(router, attachment, from)?;
            }
            Effect::Detach(attachment) => {
                let netns = self.netns(router, &attachment.namespace)?;
                self.hooks.detach(netns, attachment)?;
                self.pinned_links.forget(router, &attachment.pin);
            }
            Effect::Xdp(XdpEffect::Attach {
                attachment,
                mode,
                from,
            }) => {
                let attempt = self.with_instance(router, |host, instance| {
                    let netns = host.netns(router, &attachment.namespace)?;
                    let how = (*mode, from.as_deref());
                    host.xdp.attach(router, netns, instance, attachment, how)
                })?;
                is_new = self.xdp.note_attempt(router, attachment, *mode, attempt)?;
            }
            Effect::Xdp(XdpEffect::Detach { attachment, .. }) => {
                self.xdp.detach(router, &attachment.pin)?;
            }
            Effect::ReapLink(pin) => {
                self.hooks.reap(self.namespaces.folder(), pin)?;
                self.pinned_links.forget(router, pin);
                self.pins.tidy(router)?;
            }
            Effect::Unbind { namespace, .. } => {
                self.binding.remove(self.netns(router, namespace)?)?;
            }
            Effect::RemoveInstance => {
                self.forget_instance(router);
                Instance::remove(&self.pins.instance(router))?;
                self.pins.tidy(router)?;
            }
            Effect::RemovePredecessor => self.remove_predecessors(router)?,
        }
        Ok(is_new.then(|| effect.inverse()).flatten())
    }

    /// Attaches the program. Returns whether something of the agent's was on
    /// the interface already.
    fn attach(&mut self, router: RouterId, attachment: &Attachment) -> Result<bool, Error> {
        // Somebody may have removed the folder of the pins.
        self.pins.prepare_links(router)?;
        // The link may still exist without a pin.
        if !attachment.pin.exists() {
            let (pin, interface) = (&attachment.pin, attachment.interface.index);
            self.pinned_links.restore(router, pin, interface)?;
        }
        let way = self.attach_planner.next(Pin::at(&attachment.pin)?);
        self.with_instance(router, |host, instance| {
            let netns = host.netns(router, &attachment.namespace)?;
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
