//! The real kernel, router by router: observes one, and carries effects out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use tracing::debug;

use super::{Effect, InstanceState, InterfaceState, Kernel, NamespaceState, Observed};
use crate::{
    config::Config,
    kernel::{
        AgentId, Attachment, Binding, BindingState, Carrier, Error, Instance, Kind, Netns,
        NetnsFolder, Object, Pins, Usable, detach, replace,
    },
    model::{Helper, Match, Port, RouterId},
    port_table::{Capacity, Image, Wanted, Write, plan},
};

/// What the agent works on.
#[derive(Debug)]
pub struct Host {
    agent: AgentId,
    pins: Pins,
    object: Object,
    binding: Binding,
    folder: NetnsFolder,
    prefixes: Vec<String>,
    /// The namespaces of routers that are being worked on, held open from the
    /// observation to the last effect, so that a name that comes to mean
    /// another namespace meanwhile can't mislead.
    held: BTreeMap<RouterId, Namespaces>,
}

type Namespaces = BTreeMap<String, Netns>;

impl Kernel for Host {
    fn routers(&self) -> Result<BTreeSet<RouterId>, Error> {
        Ok(self.pins.routers()?.into_iter().collect())
    }

    fn observe(&mut self, router: RouterId) -> Result<Observed, Error> {
        self.settle(router)?;
        let (observed, namespaces) = self.look(router)?;
        self.held.insert(router, namespaces);
        Ok(observed)
    }

    fn run(&mut self, router: RouterId, effect: &Effect) -> Result<Option<Effect>, Error> {
        self.carry_out(router, effect)
    }

    fn vanished(&self, router: RouterId) -> Option<String> {
        let gone = self
            .held
            .get(&router)?
            .values()
            .find(|netns| netns.is_gone());
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
        }
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

    fn look(&self, router: RouterId) -> Result<(Observed, Namespaces), Error> {
        let folder = self.pins.instance(router);
        if let Some(owner) = Instance::owner_of(&folder).filter(|owner| *owner != self.agent) {
            return Err(Error::Foreign { folder, owner });
        }
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
                (state, Some(instance.program_id()))
            }
        };
        let mut dead_links = self.pins.links_of(router)?;
        let mut namespaces = Namespaces::new();
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
            namespaces.insert(netns.name().to_owned(), netns);
        }
        let observed = Observed {
            instance,
            namespaces: states,
            dead_links,
        };
        Ok((observed, namespaces))
    }

    fn observe_interfaces(
        &self,
        router: RouterId,
        netns: &Netns,
        program: Option<u32>,
    ) -> Result<Vec<InterfaceState>, Error> {
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
            // None: unplugged since it was listed.
            if let Some(attached) = attached {
                let pinned = attachment.pin.exists();
                states.push(InterfaceState {
                    attachment,
                    attached,
                    pinned,
                });
            }
        }
        Ok(states)
    }

    /// Brings a renewal to its end that an agent which died left half-way: of
    /// two instances one must be the router's.
    fn settle(&self, router: RouterId) -> Result<(), Error> {
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

    fn netns(&self, router: RouterId, name: &str) -> Result<&Netns, Error> {
        let held = self.held.get(&router);
        held.and_then(|namespaces| namespaces.get(name))
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
                Some(Effect::RemoveInstance)
            }
            Effect::RenewInstance(capacity) => {
                self.renew(router, *capacity)?;
                None
            }
            Effect::WriteTable(writes) => Some(Effect::WriteTable(self.write(router, writes)?)),
            Effect::Bind {
                namespace,
                instead_of,
            } => {
                self.binding.install(self.netns(router, namespace)?)?;
                (*instead_of == BindingState::Absent).then(|| Effect::Unbind {
                    namespace: namespace.clone(),
                })
            }
            Effect::Attach {
                namespace,
                attachment,
            } => {
                let mut instance = self.instance(router)?;
                let netns = self.netns(router, namespace)?;
                let replaced = attachment.replace(netns, &mut instance)?;
                if !replaced {
                    attachment.attach(netns, &mut instance)?;
                }
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
                Instance::remove(&self.pins.instance(router))?;
                self.pins.tidy(router)?;
                None
            }
        };
        Ok(undo)
    }

    /// Returns the writes that take it back, in their order. Where one is
    /// refused, those before it are taken back at once.
    fn write(&self, router: RouterId, writes: &[Write]) -> Result<Vec<Write>, Error> {
        let mut instance = self.instance(router)?;
        let mut image = instance.image()?;
        let mut undo = Vec::new();
        for write in writes {
            if let Err(error) = instance.write(write) {
                for write in undo.iter().rev() {
                    instance.write(write)?;
                }
                return Err(error);
            }
            undo.push(image.apply(write));
        }
        undo.reverse();
        Ok(undo)
    }

    /// Up to the renaming, every step leaves a whole instance in place, and
    /// [`Self::settle`] knows how to go on from each.
    fn renew(&mut self, router: RouterId, capacity: Capacity) -> Result<(), Error> {
        let (instance, next) = (self.pins.instance(router), self.pins.next_instance(router));
        let old = self.instance(router)?;
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
    fn rebuild(
        &mut self,
        router: RouterId,
        capacity: Capacity,
        table: &Wanted,
    ) -> Result<(), Error> {
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
        let writes = plan(&Image::empty(capacity), table);
        for write in writes.map_err(|_| Error::Missing("room for the rules"))? {
            next.write(&write)?;
        }
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
            replace(&pin, next)?;
        }
        Ok(())
    }

    fn instance(&self, router: RouterId) -> Result<Instance, Error> {
        match Instance::open(&self.pins.instance(router))? {
            Usable::Whole(instance) => Ok(instance),
            Usable::Absent | Usable::Broken => Err(Error::Missing("instance of the router")),
        }
    }
}

fn rename(from: &std::path::Path, to: &std::path::Path) -> Result<(), Error> {
    fs::rename(from, to).map_err(|source| Error::File {
        path: from.to_owned(),
        what: "renamed",
        source,
    })
}
