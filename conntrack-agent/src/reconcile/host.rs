//! The real kernel: observes routers, and carries effects out.

mod abi_upgrade;
mod attach_planner;
mod effects;
mod look;
mod renewal;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use tracing::warn;

use self::attach_planner::AttachPlanner;
use super::{Effect, InstanceState, Kernel, Observed, xdp::XdpPlanner};
use crate::{
    config::{CarrierChoice, Config, Interfaces},
    heartbeat::Heartbeat,
    kernel::{
        AgentId, Binding, BindingCarriers, Build, Carrier, Error, Hooks, Instance, Netns,
        NetnsIdentity, Object, Pin, PinnedLinks, Pins, Places, RouterNamespaces, TABLE_PREFIX,
        Usable, require_mounted,
    },
    model::{Destination, Helper, Port, RouterId, RuleTarget},
    port_table::PartialTable,
};

/// The host that the agent works on.
pub struct Host {
    agent: AgentId,
    pins: Pins,
    object: Object,
    binding: Binding,
    carrier: CarrierChoice,
    hooks: Hooks,
    attach_planner: AttachPlanner,
    interfaces: Interfaces,
    xdp: XdpPlanner,
    namespaces: RouterNamespaces,
    /// Where a bpffs should be mounted.
    bpffs: PathBuf,
    pinned_links: Arc<PinnedLinks>,
    /// The open files of routers that are being worked on.
    held: BTreeMap<RouterId, Held>,
    /// The hints from the last observation of each router that has an instance.
    hints: BTreeMap<RouterId, Hint>,
    heartbeat: Heartbeat,
}

/// The open files of a router, from its observation to the last effect.
#[derive(Default)]
struct Held {
    /// The namespaces, held so that a name that comes to mean another namespace
    /// meanwhile can't mislead.
    namespaces: BTreeMap<String, Netns>,
    /// The instance, opened once. `None` if there is none, or after it was
    /// replaced.
    instance: Option<Instance>,
}

/// The state that makes a look at a part of a router enough. None of it is
/// relied on before the kernel was asked whether it still holds.
struct Hint {
    /// The router's namespaces.
    namespaces: BTreeMap<String, NetnsIdentity>,
    /// The slots of the port table that were unused.
    free_slots: BTreeSet<u16>,
}

impl Kernel for Host {
    fn routers(&self) -> Result<BTreeSet<RouterId>, Error> {
        let mut routers: BTreeSet<_> = self.pins.routers()?.into_iter().collect();
        for older in self.pins.older()? {
            routers.extend(older.routers()?);
        }
        Ok(routers)
    }

    fn present(&self) -> Result<BTreeSet<RouterId>, Error> {
        Ok(self.namespaces.by_router()?.into_keys().collect())
    }

    fn observe(&mut self, router: RouterId) -> Result<Observed, Error> {
        self.heartbeat.tick();
        require_mounted(&self.bpffs)?;
        self.hints.remove(&router);
        self.resume_upgrade(router)?;
        let (observed, held) = self.look(router)?;
        self.xdp.note(router, &observed);
        self.held.insert(router, held);
        if let InstanceState::Current(image) = &observed.instance {
            self.take_hint(router, image.free_slots())?;
        }
        Ok(observed)
    }

    fn partial(
        &mut self,
        router: RouterId,
        destinations: &BTreeSet<Destination>,
    ) -> Result<Option<PartialTable>, Error> {
        require_mounted(&self.bpffs)?;
        let Some(hint) = self.hints.get(&router) else {
            return Ok(None);
        };
        let is_renewed = [self.pins.next_instance(router), self.pins.successor(router)];
        if is_renewed.iter().any(|folder| folder.exists()) || !self.is_where_it_was(router, hint)? {
            return Ok(None);
        }
        let Usable::Whole(instance) = Instance::open(&self.pins.instance(router))? else {
            return Ok(None);
        };
        if !instance.is_of(&self.object) {
            return Ok(None);
        }
        let free_slots = hint.free_slots.iter().copied();
        let partial = instance.partial(destinations, free_slots)?;
        self.held.entry(router).or_default().instance = Some(instance);
        Ok(Some(partial))
    }

    fn run(&mut self, router: RouterId, effect: &Effect) -> Result<Option<Effect>, Error> {
        self.heartbeat.tick();
        self.carry_out(router, effect)
    }

    fn vanished(&self, router: RouterId) -> Option<String> {
        let namespaces = &self.held.get(&router)?.namespaces;
        let gone = namespaces.values().find(|netns| netns.is_gone());
        gone.map(|netns| netns.name().to_owned())
    }

    fn settled(&mut self, router: RouterId, has_rules: bool) {
        if !has_rules {
            return self.pinned_links.forget_all(router);
        }
        match self.pins.attachments_of(router) {
            Ok(pins) => self.pinned_links.keep(router, &pins),
            Err(error) => warn!(%router, error = &error as &dyn std::error::Error,
                "its links are not watched"),
        }
    }

    fn release(&mut self, router: RouterId) {
        self.held.remove(&router);
    }
}

impl Host {
    /// Returns the layout of the pins that the agent makes.
    #[must_use]
    pub const fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Makes the host as the configuration describes it, for the agent `agent`
    /// of this edition.
    ///
    /// # Errors
    /// [`Error::NoTcx`] if tcx is wanted and the kernel has none;
    /// [`Error::NoNatChains`] likewise for nat chains; [`Error`] if the kernel
    /// can't be asked.
    pub fn new(
        build: Build,
        config: &Config,
        agent: AgentId,
        binding: Binding,
    ) -> Result<Self, Error> {
        if config.carrier == CarrierChoice::Priority && !has_nat_chains(&binding) {
            return Err(Error::NoNatChains);
        }
        let hooks = Hooks::probe(agent)?;
        let pins = Pins::of(&build, &config.bpffs_dir);
        let object = Object::new(build, agent, config.mark_bits, pins.shared());
        let pinned_links = PinnedLinks::new();
        let xdp = XdpPlanner::new(config.xdp.clone(), pins.clone(), Arc::clone(&pinned_links));
        Ok(Self {
            agent,
            attach_planner: AttachPlanner::new(config.attach, hooks.has_tcx())?,
            hooks,
            interfaces: config.interfaces.clone(),
            object: if config.xdp.is_empty() {
                object
            } else {
                object.with_xdp()
            },
            xdp,
            pins,
            binding,
            carrier: config.carrier,
            namespaces: config.router_namespaces(),
            bpffs: config.bpffs_root().to_owned(),
            pinned_links,
            held: BTreeMap::new(),
            hints: BTreeMap::new(),
            heartbeat: Heartbeat::default(),
        })
    }

    /// Ends the start. Returns the routers that it gave tc filters and that
    /// should have links; until [their turn](Self::turn_of) comes, their
    /// filters are enough.
    ///
    /// # Errors
    /// [`Error`] if the pins can't be read, or pins that no router needs can't
    /// be removed.
    pub fn end_of_start(&mut self) -> Result<BTreeSet<RouterId>, Error> {
        Pins::remove_unshared(self.pins.bpffs_dir())?;
        let mut with_filters = BTreeSet::new();
        for router in self.pins.routers()? {
            for pin in self.pins.links_of(router)? {
                if Pin::at(&pin)? == Pin::Filter {
                    with_filters.insert(router);
                }
            }
        }
        Ok(self.attach_planner.end_of_start(with_filters))
    }

    /// Makes the router have links in place of filters, from its next look on.
    pub fn turn_of(&mut self, router: RouterId) {
        self.attach_planner.turn_of(router);
    }

    /// Returns the places to watch.
    #[must_use]
    pub fn places(&self) -> Places {
        Places {
            namespaces: self.namespaces.clone(),
            pins: self.pins.clone(),
            bpffs: self.bpffs.clone(),
            table: format!("{TABLE_PREFIX}{}", self.agent),
        }
    }

    /// Returns the keeper of the links of routers that are as they should be.
    #[must_use]
    pub const fn pinned_links(&self) -> &Arc<PinnedLinks> {
        &self.pinned_links
    }

    /// Makes every look and every effect send a heartbeat: a change of
    /// thousands of routers takes its time, and must not count as a hang.
    pub fn beat_to(&mut self, heartbeat: Heartbeat) {
        self.heartbeat = heartbeat;
    }

    /// Returns the rules in force, as the pinned port tables have them.
    ///
    /// # Errors
    /// [`Error`] if they can't be read; [`Error::OlderAbi`] if they are, or may
    /// be, the rules of an agent with an older ABI.
    pub fn rules_in_force(&self) -> Result<Vec<RuleTarget>, Error> {
        if let Some(older) = self.pins.older()?.last() {
            return Err(Error::OlderAbi {
                pinned: older.abi(),
                known: self.pins.abi(),
            });
        }
        let mut rules = Vec::new();
        for router in self.pins.routers()? {
            self.resume_upgrade(router)?;
            let Usable::Whole(instance) = Instance::open(&self.pins.instance(router))? else {
                continue;
            };
            let table = instance.image()?.rules();
            rules.extend(table.into_iter().filter_map(|(to, mark)| {
                let helper = Helper::with_mark(mark).filter(|h| h.protocol() == to.protocol)?;
                let port = Port::try_from(i64::from(to.port)).ok()?;
                Some(RuleTarget {
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

    /// Works with the router's instance, which stays open for later work.
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

    /// Records the hint for the next look at a part of the router.
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

    /// Forgets the open instance, as another is about to be pinned.
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

/// Returns whether routers may change to `priority` and back.
fn has_nat_chains(binding: &Binding) -> bool {
    binding.can_read(BindingCarriers::One(Carrier::Priority))
        && binding.can_read(BindingCarriers::Both)
}
