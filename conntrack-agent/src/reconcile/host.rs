//! The real kernel, router by router: observes one, and carries effects out.

mod look;
mod renewal;

use std::collections::{BTreeMap, BTreeSet};

use conntrack_ebpf::abi::Slot;

use super::{Effect, InstanceState, Kernel, Observed};
use crate::{
    config::Config,
    kernel::{
        AgentId, Binding, BindingState, Carrier, Error, Identity, Instance, Netns, NetnsFolder,
        Object, Pins, Usable, detach,
    },
    model::{Destination, Helper, Match, Port, RouterId},
    port_table::{Edit, Excerpt, Write},
    pulse::Pulse,
};

/// What the agent works on.
pub struct Host {
    agent: AgentId,
    pins: Pins,
    object: Object,
    binding: Binding,
    folder: NetnsFolder,
    prefixes: Vec<String>,
    /// What is open of routers that are being worked on.
    held: BTreeMap<RouterId, Held>,
    /// Hints from the last observation of each router that has an instance.
    hints: BTreeMap<RouterId, Hint>,
    pulse: Pulse,
}

/// What is open of a router, from its observation to the last effect.
#[derive(Default)]
struct Held {
    /// So that a name that comes to mean another namespace meanwhile can't
    /// mislead.
    namespaces: BTreeMap<String, Netns>,
    /// Opened once. None if there is none, or since it was replaced.
    instance: Option<Instance>,
}

/// What makes a look at a part of a router enough. Nothing of it is relied on
/// before the kernel was asked whether it still holds.
struct Hint {
    /// The router's namespaces.
    namespaces: BTreeMap<String, Identity>,
    /// Slots of the port table that were in nobody's use.
    free_slots: BTreeSet<u16>,
}

impl Kernel for Host {
    fn routers(&self) -> Result<BTreeSet<RouterId>, Error> {
        Ok(self.pins.routers()?.into_iter().collect())
    }

    fn observe(&mut self, router: RouterId) -> Result<Observed, Error> {
        self.pulse.beat();
        self.hints.remove(&router);
        self.settle(router)?;
        let (observed, held) = self.look(router)?;
        self.held.insert(router, held);
        if let InstanceState::Current(image) = &observed.instance {
            self.take_hint(router, image.free_slots())?;
        }
        Ok(observed)
    }

    fn excerpt(
        &mut self,
        router: RouterId,
        destinations: &BTreeSet<Destination>,
    ) -> Result<Option<Excerpt>, Error> {
        let Some(hint) = self.hints.get(&router) else {
            return Ok(None);
        };
        if self.pins.next_instance(router).exists() || !self.is_where_it_was(router, hint)? {
            return Ok(None);
        }
        let Usable::Whole(instance) = Instance::open(&self.pins.instance(router))? else {
            return Ok(None);
        };
        if !instance.is_of(&self.object) {
            return Ok(None);
        }
        let free_slots = hint.free_slots.iter().copied();
        let excerpt = instance.excerpt(destinations, free_slots)?;
        self.held.entry(router).or_default().instance = Some(instance);
        Ok(Some(excerpt))
    }

    fn run(&mut self, router: RouterId, effect: &Effect) -> Result<Option<Effect>, Error> {
        self.pulse.beat();
        self.carry_out(router, effect)
    }

    fn vanished(&self, router: RouterId) -> Option<String> {
        let namespaces = &self.held.get(&router)?.namespaces;
        let gone = namespaces.values().find(|netns| netns.is_gone());
        gone.map(|netns| netns.name().to_owned())
    }

    fn release(&mut self, router: RouterId) {
        self.held.remove(&router);
    }
}

impl Host {
    /// The host as the configuration describes it, seen by the agent `agent`.
    #[must_use]
    pub fn new(config: &Config, agent: AgentId, carrier: Carrier, binding: Binding) -> Self {
        Self {
            agent,
            pins: Pins::new(&config.bpffs_dir),
            object: Object::new(agent, carrier),
            binding,
            folder: NetnsFolder::new(&config.netns_dir),
            prefixes: config.namespace_prefixes.clone(),
            held: BTreeMap::new(),
            hints: BTreeMap::new(),
            pulse: Pulse::default(),
        }
    }

    /// Has every look and every effect seen: a change of thousands of routers
    /// takes its time, and is no hanging.
    pub fn beat_to(&mut self, pulse: Pulse) {
        self.pulse = pulse;
    }

    /// The rules that are in force: what the pinned port tables say.
    ///
    /// # Errors
    /// [`Error`] if they can't be read.
    pub fn rules_in_force(&self) -> Result<Vec<Match>, Error> {
        let mut rules = Vec::new();
        for router in self.pins.routers()? {
            self.settle(router)?;
            let Usable::Whole(instance) = Instance::open(&self.pins.instance(router))? else {
                continue;
            };
            let table = instance.image()?.rules();
            rules.extend(table.into_iter().filter_map(|(to, mark)| {
                let helper = Helper::with_mark(mark).filter(|h| h.protocol() == to.protocol)?;
                let port = Port::try_from(i64::from(to.port)).ok()?;
                Some(Match {
                    router,
                    port,
                    helper,
                })
            }));
        }
        Ok(rules)
    }

    fn netns(&self, router: RouterId, name: &str) -> Result<&Netns, Error> {
        let held = self.held.get(&router);
        held.and_then(|held| held.namespaces.get(name))
            .ok_or_else(|| Error::NamespaceGone { name: name.into() })
    }

    fn carry_out(&mut self, router: RouterId, effect: &Effect) -> Result<Option<Effect>, Error> {
        let undo = match effect {
            Effect::RebuildInstance(capacity, table) => {
                self.rebuild(router, *capacity, table)?;
                None
            }
            Effect::LoadInstance(capacity) => {
                self.pins.prepare(router)?;
                let folder = self.pins.instance(router);
                let made = Instance::create(&mut self.object, &folder, *capacity);
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
            } => {
                let netns = self.netns(router, namespace)?;
                self.binding.install(netns, *instead_of)?;
                (*instead_of == BindingState::Absent).then(|| Effect::Unbind {
                    namespace: namespace.clone(),
                })
            }
            Effect::Attach {
                namespace,
                attachment,
            } => {
                // With the last of the links their folder may have gone.
                self.pins.prepare(router)?;
                let replaced = self.with_instance(router, |host, instance| {
                    let netns = host.netns(router, namespace)?;
                    let replaced = attachment.replace(netns, instance)?;
                    if !replaced {
                        attachment.attach(netns, instance)?;
                    }
                    Ok(replaced)
                })?;
                (!replaced).then(|| Effect::Detach {
                    namespace: namespace.clone(),
                    attachment: attachment.clone(),
                })
            }
            Effect::Detach {
                namespace,
                attachment,
            } => {
                detach(&attachment.pin)?;
                Some(Effect::Attach {
                    namespace: namespace.clone(),
                    attachment: attachment.clone(),
                })
            }
            Effect::ReapLink(pin) => {
                detach(pin)?;
                self.pins.tidy(router)?;
                None
            }
            Effect::Unbind { namespace } => {
                self.binding.remove(self.netns(router, namespace)?)?;
                Some(Effect::Bind {
                    namespace: namespace.clone(),
                    instead_of: BindingState::Absent,
                })
            }
            Effect::RemoveInstance => {
                self.forget_instance(router);
                Instance::remove(&self.pins.instance(router))?;
                self.pins.tidy(router)?;
                None
            }
        };
        Ok(undo)
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

    /// Works with the router's instance, which stays open for what comes next.
    fn with_instance<T>(
        &mut self,
        router: RouterId,
        work: impl FnOnce(&Self, &mut Instance) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let open = self
            .held
            .get_mut(&router)
            .and_then(|held| held.instance.take());
        let mut instance = match open {
            Some(instance) => instance,
            None => self.instance(router)?,
        };
        let result = work(self, &mut instance);
        if let Some(held) = self.held.get_mut(&router) {
            held.instance = Some(instance);
        }
        result
    }

    /// For the next look at a part of the router.
    fn take_hint(
        &mut self,
        router: RouterId,
        free_slots: impl Iterator<Item = u16>,
    ) -> Result<(), Error> {
        let namespaces = self.held.get(&router).map(|held| held.namespaces.values());
        let identified = namespaces
            .into_iter()
            .flatten()
            .map(|netns| Ok((netns.name().to_owned(), netns.identity()?)));
        let hint = Hint {
            namespaces: identified.collect::<Result<_, Error>>()?,
            free_slots: free_slots.collect(),
        };
        self.hints.insert(router, hint);
        Ok(())
    }

    /// What is pinned is about to be another.
    fn forget_instance(&mut self, router: RouterId) {
        self.hints.remove(&router);
        if let Some(held) = self.held.get_mut(&router) {
            held.instance = None;
        }
    }

    fn instance(&self, router: RouterId) -> Result<Instance, Error> {
        match Instance::open(&self.pins.instance(router))? {
            Usable::Whole(instance) => Ok(instance),
            Usable::Absent | Usable::Broken => Err(Error::Missing("instance of the router")),
        }
    }
}
