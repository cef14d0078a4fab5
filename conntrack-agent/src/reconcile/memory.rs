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
    CarrierState, Effect, InstanceState, InterfaceState, Kernel, NamespaceState, Observed,
    Obstacle, XdpState,
};
use crate::{
    config::{CarrierChoice, Interfaces, Nat, XdpInterfaces},
    kernel::{Attachment, BindingState, Carrier, Error, Interface, LinkKind, XdpMode},
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
    pub xdp: BTreeMap<u32, Xdp>,
}

/// The state of an interface's XDP hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Xdp {
    /// The hook has the instance's program, in this mode.
    Own(XdpMode),
    /// The hook has the program of an agent with an older ABI, in this mode.
    Older(XdpMode),
    /// The hook has a program of another owner.
    Foreign,
    /// The hook is empty: the driver can't do XDP natively.
    Unable,
    /// The hook is empty, and the kernel has refused to change that.
    Refused,
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
                this.dead_links.insert(Self::pin(router, name, index));
            }
            if let Some(Xdp::Own(_)) = namespace.xdp.remove(&index) {
                this.dead_links.insert(Self::xdp_pin(router, name, index));
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

    fn pin(router: RouterId, namespace: &str, index: u32) -> PathBuf {
        format!("/{router}/{namespace}:{index}").into()
    }

    fn xdp_pin(router: RouterId, namespace: &str, index: u32) -> PathBuf {
        format!("/{router}/xdp/{namespace}:{index}").into()
    }

    fn old_xdp_pin(router: RouterId, namespace: &str, index: u32) -> PathBuf {
        format!("/older/{router}/xdp/{namespace}:{index}").into()
    }

    fn old_pin(router: RouterId, namespace: &str, index: u32) -> PathBuf {
        format!("/older/{router}/{namespace}:{index}").into()
    }

    fn namespace(&mut self, router: RouterId, name: &str) -> Result<&mut MemoryNamespace, Error> {
        let namespaces = &mut self.routers.entry(router).or_default().namespaces;
        namespaces
            .get_mut(name)
            .ok_or_else(|| Error::NamespaceGone { name: name.into() })
    }

    fn attached(
        &mut self,
        router: RouterId,
        namespace: &str,
        interface: &Interface,
    ) -> Result<&mut bool, Error> {
        let interfaces = &mut self.namespace(router, namespace)?.interfaces;
        match interfaces.get_mut(&interface.index) {
            Some((_, attached)) => Ok(attached),
            None => Err(Error::InterfaceGone {
                namespace: namespace.into(),
                interface: interface.name.clone(),
            }),
        }
    }

    /// Returns the XDP state of an interface.
    fn xdp_state(
        &self,
        router: RouterId,
        namespace: &str,
        (index, interface): (u32, &str),
        there: Option<Xdp>,
        is_loaded: bool,
    ) -> XdpState {
        let is_classified = self.interfaces.has(interface);
        let wanted = self.xdp.mode_of(interface).filter(|_| is_classified);
        let obstacle = match there {
            Some(Xdp::Foreign) => Some(Obstacle::Foreign),
            Some(Xdp::Refused) => Some(Obstacle::Refused),
            _ => None,
        };
        let own = match there {
            Some(Xdp::Own(mode)) => Some(mode),
            _ => None,
        };
        XdpState {
            pin: Self::xdp_pin(router, namespace, index),
            wanted,
            obstacle: obstacle.filter(|_| wanted.is_some()),
            attached: is_loaded && own.is_some() && own == wanted,
            pinned: own.is_some(),
            inherited: matches!(there, Some(Xdp::Older(_)))
                .then(|| Self::old_xdp_pin(router, namespace, index)),
        }
    }

    fn attach_xdp(
        &mut self,
        router: RouterId,
        namespace: &str,
        interface: &Interface,
        mode: XdpMode,
    ) -> Result<bool, Error> {
        self.attached(router, namespace, interface)?;
        let hooks = &mut self.namespace(router, namespace)?.xdp;
        let before = hooks.get(&interface.index).copied();
        let after = match before {
            Some(Xdp::Foreign) => Xdp::Foreign,
            Some(Xdp::Unable | Xdp::Refused) if mode == XdpMode::Native => Xdp::Refused,
            _ => Xdp::Own(mode),
        };
        hooks.insert(interface.index, after);
        let is_own = |xdp| matches!(xdp, Some(Xdp::Own(_) | Xdp::Older(_)));
        Ok(is_own(Some(after)) && !is_own(before))
    }

    #[expect(clippy::too_many_lines, reason = "an arm for each effect")]
    fn carry_out(&mut self, router: RouterId, effect: &Effect) -> Result<Option<Effect>, Error> {
        let wants_xdp = !self.xdp.is_empty();
        let this = self.routers.entry(router).or_default();
        Ok(match effect {
            Effect::RemoveInstance => {
                this.instance = None;
                this.carrier = None;
                self.seen.remove(&router);
                None
            }
            Effect::RebuildInstance(capacity, table, carrier) => {
                let mut image = Image::empty(*capacity);
                let edit = fill(*capacity, table);
                image.edit(&edit.map_err(|_| Error::Missing("room for the rules"))?);
                this.instance = Some(image);
                this.carrier = Some(*carrier);
                this.is_outdated = false;
                this.has_xdp = wants_xdp;
                self.seen.remove(&router);
                None
            }
            Effect::LoadInstance(capacity, carrier) => {
                this.instance = Some(Image::empty(*capacity));
                this.carrier = Some(*carrier);
                this.is_outdated = false;
                this.has_xdp = wants_xdp;
                Some(Effect::RemoveInstance)
            }
            Effect::RenewInstance(capacity) => {
                let image = this.instance.as_mut().ok_or(Error::Missing("instance"))?;
                *image = image.resized(*capacity);
                this.is_outdated = false;
                this.has_xdp = wants_xdp;
                self.seen.remove(&router);
                None
            }
            Effect::WriteTable(edit) => {
                let image = this.instance.as_mut().ok_or(Error::Missing("instance"))?;
                write(image, edit)?;
                Some(Effect::WriteTable(edit.inverse()))
            }
            Effect::Bind {
                namespace,
                instead_of,
                reads,
            } => {
                self.namespace(router, namespace)?.binding = Some(BindingState::Reading(*reads));
                Effect::undo_of_bind(namespace, *instead_of, *reads)
            }
            Effect::SetCarrier {
                instead_of,
                carrier,
            } => {
                if this.instance.is_none() {
                    return Err(Error::Missing("instance of the router"));
                }
                this.carrier = Some(*carrier);
                instead_of.map(|before| Effect::SetCarrier {
                    instead_of: Some(*carrier),
                    carrier: before,
                })
            }
            Effect::Unbind { namespace, reads } => {
                self.namespace(router, namespace)?.binding = None;
                Some(Effect::Bind {
                    namespace: namespace.clone(),
                    instead_of: BindingState::Absent,
                    reads: *reads,
                })
            }
            Effect::Attach {
                namespace,
                attachment,
            } => {
                *self.attached(router, namespace, &attachment.interface)? = true;
                Some(Effect::Detach {
                    namespace: namespace.clone(),
                    attachment: attachment.clone(),
                })
            }
            Effect::Detach {
                namespace,
                attachment,
            } => {
                *self.attached(router, namespace, &attachment.interface)? = false;
                Some(Effect::Attach {
                    namespace: namespace.clone(),
                    attachment: attachment.clone(),
                })
            }
            Effect::TakeOver {
                namespace,
                attachment,
                ..
            } => {
                let interface = &attachment.interface;
                *self.attached(router, namespace, interface)? = true;
                let this = self.routers.entry(router).or_default();
                if let Some(links) = &mut this.predecessor {
                    links.remove(&(namespace.clone(), interface.index));
                }
                None
            }
            Effect::AttachXdp {
                namespace,
                attachment,
                mode,
                ..
            } => {
                let is_new = self.attach_xdp(router, namespace, &attachment.interface, *mode)?;
                is_new.then(|| Effect::DetachXdp {
                    namespace: namespace.clone(),
                    attachment: attachment.clone(),
                })
            }
            Effect::DetachXdp {
                namespace,
                attachment,
            } => {
                let interface = &attachment.interface;
                let hooks = &mut self.namespace(router, namespace)?.xdp;
                if let Some(Xdp::Own(_)) = hooks.get(&interface.index) {
                    hooks.remove(&interface.index);
                }
                let mode = self.xdp.mode_of(&interface.name);
                mode.map(|mode| Effect::AttachXdp {
                    namespace: namespace.clone(),
                    attachment: attachment.clone(),
                    mode,
                    from: None,
                })
            }
            Effect::ReapLink(pin) => {
                for (name, namespace) in &mut this.namespaces {
                    namespace.xdp.retain(|index, xdp| {
                        !matches!(xdp, Xdp::Older(_))
                            || Self::old_xdp_pin(router, name, *index) != *pin
                    });
                }
                this.dead_links.remove(pin);
                if let Some(links) = &mut this.predecessor {
                    links.retain(|(name, index)| Self::old_pin(router, name, *index) != *pin);
                }
                None
            }
            Effect::RemovePredecessor => {
                this.predecessor = None;
                None
            }
        })
    }
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
            router.instance.is_some()
                || router.predecessor.is_some()
                || !router.dead_links.is_empty()
                || router
                    .namespaces
                    .values()
                    .any(|namespace| namespace.interfaces.values().any(|(_, attached)| *attached))
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
        let MemoryRouter {
            instance,
            carrier,
            namespaces,
            dead_links,
            is_outdated,
            has_xdp,
            predecessor,
        } = self.router(router).clone();
        self.observations += 1;
        let seen = namespaces.keys().cloned().collect();
        self.seen.insert(router, seen);
        let loaded = instance.is_some();
        let nat = namespaces.values().map(|namespace| namespace.has_nat);
        let carrier = CarrierState {
            present: carrier,
            wanted: self.carrier.of(&Nat(nat.collect()), true),
        };
        let namespaces = namespaces.into_iter().map(|(name, namespace)| {
            let interfaces = namespace.interfaces.into_iter();
            let interfaces = interfaces.map(|(index, (interface, attached))| InterfaceState {
                wanted: self.interfaces.has(&interface),
                xdp: self.xdp_state(
                    router,
                    &name,
                    (index, &interface),
                    namespace.xdp.get(&index).copied(),
                    loaded,
                ),
                attachment: Attachment {
                    pin: Self::pin(router, &name, index),
                    interface: Interface {
                        index,
                        name: interface,
                        kind: LinkKind::Ethernet,
                    },
                },
                attached: attached && loaded,
                pinned: attached,
                inherited: predecessor
                    .iter()
                    .flatten()
                    .find(|(of, at)| !attached && *of == name && *at == index)
                    .map(|(of, at)| Self::old_pin(router, of, *at)),
            });
            let interfaces =
                interfaces.filter(|state| state.wanted || state.pinned || state.xdp.pinned);
            NamespaceState {
                interfaces: interfaces.collect(),
                binding: namespace.binding.unwrap_or(BindingState::Absent),
                name,
            }
        });
        Ok(Observed {
            instance: match instance {
                None => InstanceState::Absent,
                Some(image) if is_outdated || (!has_xdp && !self.xdp.is_empty()) => {
                    InstanceState::Outdated(image)
                }
                Some(image) => InstanceState::Current(image),
            },
            carrier,
            namespaces: namespaces.collect(),
            dead_links: dead_links.into_iter().collect(),
            has_predecessor: predecessor.is_some(),
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
