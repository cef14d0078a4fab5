//! A kernel in memory, for tests of the layers above.
//!
//! It knows no packets. It holds what the real kernel would hold, refuses what
//! the real one refuses, and refuses on demand what the real one can be made to
//! refuse only with luck.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
};

use aya::{maps::MapError, sys::SyscallError};
use conntrack_ebpf::abi;
use rustix::io::Errno;

use super::{
    CarrierState, Effect, InstanceState, InterfaceState, Kernel, MemoryXdp, NamespaceState,
    Observed, XdpEffect,
};
use crate::{
    config::{CarrierChoice, Interfaces, Nat, XdpInterfaces},
    kernel::{Attachment, BindingState, Carrier, Error, Interface, LinkKind},
    model::{Destination, RouterId},
    port_table::{Edit, Image, PartialTable, Write, fill},
};

/// A callback that decides before each effect whether it is refused.
type Fault = Box<dyn FnMut(RouterId, &Effect) -> Result<(), Error>>;

/// A kernel in memory.
#[derive(Default)]
pub struct Memory {
    routers: BTreeMap<RouterId, MemoryRouter>,
    /// The namespaces that routers had when they were observed, without routers
    /// that have had another instance since.
    seen: BTreeMap<RouterId, BTreeSet<String>>,
    /// The interfaces that should be classified.
    interfaces: Interfaces,
    /// The interfaces that should have the XDP program too.
    xdp: XdpInterfaces,
    carrier: CarrierChoice,
    fault: Option<Fault>,
    writes: usize,
    observations: usize,
}

/// The state of one router; public so that a test can meddle with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryRouter {
    /// The maps of its instance, if one is loaded.
    pub instance: Option<Image>,
    /// The instance's carrier; `None` if it is not a known one, or no instance
    /// is loaded.
    pub carrier: Option<Carrier>,
    /// The namespaces of the router, by name.
    pub namespaces: BTreeMap<String, MemoryNamespace>,
    /// The links whose interface is gone.
    pub dead_links: BTreeSet<PathBuf>,
    /// Whether its instance has another program than would be loaded now.
    pub is_outdated: bool,
    /// Whether its instance has the XDP program.
    pub has_xdp: bool,
    /// The links that an agent with an older ABI has left on interfaces, by
    /// namespace and index.
    pub predecessor: Option<BTreeSet<(String, u32)>>,
}

/// A namespace of the kernel in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryNamespace {
    /// The state of the binding's place; `None` if there is nothing.
    pub binding: Option<BindingState>,
    /// Whether it has NAT for IPv4.
    pub has_nat: bool,
    /// Its interfaces by index, each with its name and whether the program is
    /// attached.
    pub interfaces: BTreeMap<u32, (String, bool)>,
    /// The state of their XDP hooks, by index.
    pub xdp: BTreeMap<u32, MemoryXdp>,
}

impl Memory {
    /// Returns the router, which is made if there is none.
    pub fn router(&mut self, router: RouterId) -> &mut MemoryRouter {
        self.routers.entry(router).or_default()
    }

    /// Returns the whole state, for comparisons.
    #[must_use]
    pub fn state(&self) -> BTreeMap<RouterId, MemoryRouter> {
        self.routers.clone()
    }

    /// Refuses effects as `fault` says, from now on.
    pub fn refuse(&mut self, fault: impl FnMut(RouterId, &Effect) -> Result<(), Error> + 'static) {
        self.fault = Some(Box::new(fault));
    }

    /// Stops refusing effects.
    pub fn relent(&mut self) {
        self.fault = None;
    }

    /// Classifies only these interfaces, from the next observation on.
    pub fn classify(&mut self, interfaces: Interfaces) {
        self.interfaces = interfaces;
    }

    /// Gives these interfaces the XDP program too, from the next observation on.
    pub fn classify_by_xdp(&mut self, interfaces: XdpInterfaces) {
        self.xdp = interfaces;
    }

    /// Chooses carriers in this way, from the next observation on.
    pub fn carry_by(&mut self, carrier: CarrierChoice) {
        self.carrier = carrier;
    }

    /// Unplugs an interface: a link that was on it becomes dead.
    pub fn remove_interface(&mut self, router: RouterId, index: u32) {
        let this = self.routers.entry(router).or_default();
        for (name, namespace) in &mut this.namespaces {
            if let Some((_, true)) = namespace.interfaces.remove(&index) {
                this.dead_links.insert(pin_in(LINKS, router, name, index));
            }
            if let Some(MemoryXdp::Own(_)) = namespace.xdp.remove(&index) {
                this.dead_links
                    .insert(pin_in(XDP_LINKS, router, name, index));
            }
        }
    }

    /// Returns the number of effects that were carried out so far.
    #[must_use]
    pub const fn writes(&self) -> usize {
        self.writes
    }

    /// Returns the number of observations so far.
    #[must_use]
    pub const fn observations(&self) -> usize {
        self.observations
    }

    fn namespace(&mut self, router: RouterId, name: &str) -> Result<&mut MemoryNamespace, Error> {
        let namespace = self.router(router).namespaces.get_mut(name);
        namespace.ok_or_else(|| Error::NamespaceGone { name: name.into() })
    }

    fn attached(&mut self, router: RouterId, to: &Attachment) -> Result<&mut bool, Error> {
        let interfaces = &mut self.namespace(router, &to.namespace)?.interfaces;
        match interfaces.get_mut(&to.interface.index) {
            Some((_, attached)) => Ok(attached),
            None => Err(Error::InterfaceGone {
                namespace: to.namespace.clone(),
                interface: to.interface.name.clone(),
            }),
        }
    }

    /// Makes an instance of what the program is now.
    fn load(&mut self, router: RouterId, image: Image) {
        let has_xdp = !self.xdp.is_empty();
        let this = self.router(router);
        this.instance = Some(image);
        this.is_outdated = false;
        this.has_xdp = has_xdp;
    }

    fn image(&mut self, router: RouterId) -> Result<&mut Image, Error> {
        let instance = self.router(router).instance.as_mut();
        instance.ok_or(Error::Missing("instance of the router"))
    }

    fn carry_out(&mut self, router: RouterId, effect: &Effect) -> Result<Option<Effect>, Error> {
        // Only what is new is taken away by undoing it.
        let mut is_new = true;
        match effect {
            Effect::RemoveInstance => {
                let this = self.router(router);
                this.instance = None;
                this.carrier = None;
                self.seen.remove(&router);
            }
            Effect::RebuildInstance(capacity, table, carrier) => {
                let mut image = Image::empty(*capacity);
                let edit = fill(*capacity, table);
                image.edit(&edit.map_err(|_| Error::Missing("room for the rules"))?);
                self.load(router, image);
                self.router(router).carrier = Some(*carrier);
                self.seen.remove(&router);
            }
            Effect::LoadInstance(capacity, carrier) => {
                self.load(router, Image::empty(*capacity));
                self.router(router).carrier = Some(*carrier);
            }
            Effect::RenewInstance(capacity) => {
                let image = self.image(router)?.resized(*capacity);
                self.load(router, image);
                self.seen.remove(&router);
            }
            Effect::WriteTable(edit) => write(self.image(router)?, edit)?,
            Effect::Bind {
                namespace, reads, ..
            } => self.namespace(router, namespace)?.binding = Some(BindingState::Reading(*reads)),
            Effect::SetCarrier { carrier, .. } => {
                self.image(router)?;
                self.router(router).carrier = Some(*carrier);
            }
            Effect::Unbind { namespace, .. } => self.namespace(router, namespace)?.binding = None,
            Effect::Attach(to) => *self.attached(router, to)? = true,
            Effect::Detach(from) => *self.attached(router, from)? = false,
            Effect::TakeOver { attachment: to, .. } => {
                is_new = false;
                *self.attached(router, to)? = true;
                if let Some(links) = &mut self.router(router).predecessor {
                    links.remove(&(to.namespace.clone(), to.interface.index));
                }
            }
            Effect::Xdp(effect) => {
                if let XdpEffect::Attach { attachment, .. } = effect {
                    self.attached(router, attachment)?;
                }
                let namespace = self.namespace(router, &effect.attachment().namespace)?;
                is_new = MemoryXdp::run(&mut namespace.xdp, effect);
            }
            Effect::ReapLink(pin) => {
                let this = self.router(router);
                this.dead_links.remove(pin);
                for (name, namespace) in &mut this.namespaces {
                    MemoryXdp::reap_older(&mut namespace.xdp, |index| {
                        pin_in(OLDER_XDP_LINKS, router, name, index) == *pin
                    });
                }
                if let Some(links) = &mut this.predecessor {
                    links.retain(|(name, index)| pin_in(OLDER_LINKS, router, name, *index) != *pin);
                }
            }
            Effect::RemovePredecessor => self.router(router).predecessor = None,
        }
        Ok(is_new.then(|| effect.inverse()).flatten())
    }
}

/// The folders of links that are pinned.
const LINKS: &str = "links";
const XDP_LINKS: &str = "xdp";
const OLDER_LINKS: &str = "older/links";
const OLDER_XDP_LINKS: &str = "older/xdp";

fn pin_in(folder: &str, router: RouterId, namespace: &str, index: u32) -> PathBuf {
    format!("/{folder}/{router}/{namespace}:{index}").into()
}

fn write(image: &mut Image, edit: &Edit) -> Result<(), Error> {
    let fits = |write: &Write| match write {
        Write::Slot { index, .. } | Write::ResetCounters { index } => {
            *index < image.capacity().slots
        }
        Write::Page { index, .. } => *index < image.capacity().pages,
    };
    if !edit.writes().all(fits) {
        return Err(Error::Map {
            what: "writing",
            map: abi::SLOTS,
            source: Box::new(MapError::SyscallError(SyscallError {
                call: "bpf",
                io_error: io::Error::from_raw_os_error(Errno::TOOBIG.raw_os_error()),
            })),
        });
    }
    image.edit(edit);
    Ok(())
}

impl Kernel for Memory {
    fn routers(&self) -> Result<BTreeSet<RouterId>, Error> {
        let held = |router: &MemoryRouter| {
            let namespaces = router.namespaces.values();
            let mut interfaces = namespaces.flat_map(|namespace| namespace.interfaces.values());
            router.instance.is_some()
                || router.predecessor.is_some()
                || !router.dead_links.is_empty()
                || interfaces.any(|(_, attached)| *attached)
        };
        let held = self.routers.iter().filter(|(_, router)| held(router));
        Ok(held.map(|(id, _)| *id).collect())
    }

    fn present(&self) -> Result<BTreeSet<RouterId>, Error> {
        let present = self.routers.iter();
        let present = present.filter(|(_, router)| !router.namespaces.is_empty());
        Ok(present.map(|(id, _)| *id).collect())
    }

    fn observe(&mut self, router: RouterId) -> Result<Observed, Error> {
        let this = self.router(router).clone();
        self.observations += 1;
        let seen = this.namespaces.keys().cloned().collect();
        self.seen.insert(router, seen);
        let is_loaded = this.instance.is_some();
        let is_outdated = this.is_outdated || (!this.has_xdp && !self.xdp.is_empty());
        let nat = this.namespaces.values().map(|of| of.has_nat).collect();
        let carrier = CarrierState {
            present: this.carrier,
            wanted: self.carrier.of(&Nat(nat), true),
        };
        let namespaces = this.namespaces.into_iter().map(|(name, namespace)| {
            let state = |(index, (interface, attached)): (u32, (String, bool))| {
                let wanted = self.interfaces.has(&interface);
                let mode = self.xdp.mode_of(&interface).filter(|_| wanted);
                let hook = namespace.xdp.get(&index).copied();
                let pin = |folder| pin_in(folder, router, &name, index);
                let pins = [pin(XDP_LINKS), pin(OLDER_XDP_LINKS)];
                let older = this.predecessor.as_ref();
                let is_older = older.is_some_and(|links| links.contains(&(name.clone(), index)));
                InterfaceState {
                    wanted,
                    xdp: MemoryXdp::observe(hook, mode, is_loaded, pins),
                    attached: attached && is_loaded,
                    pinned: attached,
                    inherited: (is_older && !attached).then(|| pin(OLDER_LINKS)),
                    attachment: Attachment {
                        namespace: name.clone(),
                        pin: pin(LINKS),
                        interface: Interface {
                            index,
                            name: interface,
                            kind: LinkKind::Ethernet,
                        },
                    },
                }
            };
            let interfaces = namespace.interfaces.into_iter().map(state);
            NamespaceState {
                interfaces: interfaces.filter(InterfaceState::is_ours).collect(),
                binding: namespace.binding.unwrap_or(BindingState::Absent),
                name: name.clone(),
            }
        });
        Ok(Observed {
            instance: match this.instance {
                None => InstanceState::Absent,
                Some(image) if is_outdated => InstanceState::Outdated(image),
                Some(image) => InstanceState::Current(image),
            },
            carrier,
            namespaces: namespaces.collect(),
            dead_links: this.dead_links.into_iter().collect(),
            has_predecessor: this.predecessor.is_some(),
        })
    }

    fn partial(
        &mut self,
        router: RouterId,
        destinations: &BTreeSet<Destination>,
    ) -> Result<Option<PartialTable>, Error> {
        let Some(MemoryRouter {
            instance: Some(image),
            namespaces,
            is_outdated: false,
            ..
        }) = self.routers.get(&router)
        else {
            return Ok(None);
        };
        let seen = self.seen.get(&router);
        if !seen.is_some_and(|seen| seen.iter().eq(namespaces.keys())) {
            return Ok(None);
        }
        PartialTable::read(
            image.capacity(),
            destinations,
            |page| Ok(image.page_at(page)),
            |slot| Ok(image.slot_at(slot)),
            image.free_slots(),
        )
        .map(Some)
    }

    fn run(&mut self, router: RouterId, effect: &Effect) -> Result<Option<Effect>, Error> {
        if let Some(fault) = &mut self.fault {
            fault(router, effect)?;
        }
        let undo = self.carry_out(router, effect)?;
        self.writes += 1;
        Ok(undo)
    }

    fn vanished(&self, _: RouterId) -> Option<String> {
        None
    }

    fn settled(&mut self, _: RouterId, _: bool) {}

    fn release(&mut self, _: RouterId) {}
}
