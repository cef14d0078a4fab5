//! Attaches, replaces and removes one agent's programs on the ingress of interfaces.

mod occupants;

use std::path::Path;

use rustix::io::Errno;

use super::{AttachMode, Attachment, Ingress, Pin, clsact, filter, pin, target::Target, tcx};
use crate::kernel::{
    AgentId, Error, Instance, Netns, NetnsFolder,
    interface::{Listed, interfaces},
    netlink::{Route, is},
    sys,
};
pub use occupants::{Occupant, OnHook};

/// One agent's access to the ingress of interfaces.
#[derive(Clone, Copy, Debug)]
pub struct Hooks {
    agent: AgentId,
    has_tcx: bool,
}

impl Hooks {
    /// Asks the kernel whether it has tcx.
    ///
    /// # Errors
    /// [`Error`] if it can't be asked.
    pub fn probe(agent: AgentId) -> Result<Self, Error> {
        let has_tcx = Netns::scratch(|| match sys::tcx_ingress(LOOPBACK) {
            Ok(_) => Ok(true),
            // The kernel has no such hook (`bpf_prog_query`,
            // kernel/bpf/syscall.c).
            Err(error) if is(&error, Errno::INVAL) => Ok(false),
            Err(source) => Err(Error::Ingress {
                namespace: "(scratch)".into(),
                interface: "lo".into(),
                what: "asked for its tcx programs",
                source,
            }),
        })?;
        Ok(Self { agent, has_tcx })
    }

    /// Makes the hooks of an agent that has nothing more to attach.
    #[must_use]
    pub const fn to_remove(agent: AgentId) -> Self {
        Self {
            agent,
            has_tcx: false,
        }
    }

    /// Returns whether the kernel has tcx.
    #[must_use]
    pub const fn has_tcx(&self) -> bool {
        self.has_tcx
    }

    /// Returns the namespace's interfaces, by rising index, with the programs on
    /// each.
    ///
    /// # Errors
    /// [`Error`] if the kernel can't be asked.
    pub fn look(&self, netns: &Netns) -> Result<Vec<Ingress>, Error> {
        netns.enter(|| {
            let mut route = open(netns)?;
            let unlisted = |source| Error::Interfaces {
                name: netns.name().to_owned(),
                source,
            };
            let interfaces = interfaces(&mut route).map_err(unlisted)?;
            let qdiscs = filter::qdiscs(&mut route).map_err(unlisted)?;
            let mut found = Vec::with_capacity(interfaces.len());
            for listed in interfaces {
                let Listed {
                    interface,
                    mtu,
                    xdp,
                } = listed;
                let index = interface.index;
                let links = if self.has_tcx {
                    match sys::tcx_ingress(index) {
                        Ok(links) => links,
                        // The interface was unplugged since it was listed.
                        Err(error) if is(&error, Errno::NODEV) => continue,
                        Err(error) => return Err(unlisted(error)),
                    }
                } else {
                    Vec::new()
                };
                let filters = if qdiscs.contains_key(&index) {
                    filter::programs_of(&mut route, self.agent, index).map_err(unlisted)?
                } else {
                    Vec::new()
                };
                found.push(Ingress {
                    interface,
                    links,
                    filters,
                    xdp,
                    mtu,
                });
            }
            Ok(found)
        })
    }

    /// Attaches the instance's program to the interface's ingress, in this way.
    /// An attachment of this agent's runs it from the next packet on; one that
    /// was made in the other way is then removed. Returns whether a program was
    /// attached in this way already.
    ///
    /// # Errors
    /// [`Error`] if the kernel refuses; then the former attachment stays.
    pub fn attach(
        &self,
        way: AttachMode,
        netns: &Netns,
        attachment: &Attachment,
        instance: &mut Instance,
    ) -> Result<bool, Error> {
        let index = attachment.interface.index;
        netns.enter(|| {
            let mut route = open(netns)?;
            let place = Target { netns, attachment };
            match way {
                AttachMode::Tcx => {
                    let made_qdisc = pin::made_qdisc(&attachment.pin);
                    let was_there = tcx::attach(&place, instance)?;
                    let removed = clsact::remove(&mut route, self.agent, index, made_qdisc)
                        .map_err(place.failed("rid of the tc filter"))?;
                    Ok(was_there || removed)
                }
                AttachMode::Clsact => clsact::attach(&mut route, self.agent, &place, instance),
            }
        })
    }

    /// Removes everything of this agent's from the interface's ingress.
    ///
    /// # Errors
    /// [`Error`] if it can't be removed.
    pub fn detach(&self, netns: &Netns, attachment: &Attachment) -> Result<(), Error> {
        self.take_off(netns, attachment.interface.index, &attachment.pin)
    }

    /// Makes the pinned attachment run another instance's program from the next
    /// packet on. Returns false if its interface is gone, so that nothing can
    /// run it.
    ///
    /// # Errors
    /// [`Error`] if the kernel refuses.
    pub fn replace(
        &self,
        folder: &NetnsFolder,
        pin: &Path,
        instance: &mut Instance,
    ) -> Result<bool, Error> {
        match Pin::at(pin)? {
            Pin::Link(_) => tcx::replace(pin, instance),
            Pin::Absent | Pin::Other => Ok(false),
            Pin::Filter => {
                let Some((netns, index)) = place_of(folder, pin)? else {
                    return Ok(false);
                };
                netns.enter(|| {
                    let mut route = open(&netns)?;
                    let replaced = clsact::replace(&mut route, self.agent, index, instance)?;
                    replaced.map_err(|source| Error::Ingress {
                        namespace: netns.name().to_owned(),
                        interface: format!("{index}"),
                        what: "given another program",
                        source,
                    })
                })
            }
        }
    }

    /// Removes a pin and the attachment that it stands for, even if its
    /// interface is gone.
    ///
    /// # Errors
    /// [`Error`] if it can't be removed.
    pub fn reap(&self, folder: &NetnsFolder, pin: &Path) -> Result<(), Error> {
        if Pin::at(pin)? == Pin::Filter
            && let Some((netns, index)) = place_of(folder, pin)?
        {
            return self.take_off(&netns, index, pin);
        }
        pin::remove(pin)
    }

    /// Removes this agent's filters from all interfaces of a namespace, whatever
    /// is pinned. Returns the number of interfaces that had one.
    ///
    /// # Errors
    /// [`Error`] if one can't be removed.
    pub fn clear(&self, netns: &Netns) -> Result<usize, Error> {
        netns.enter(|| {
            let mut route = open(netns)?;
            let unlisted = |source| Error::Interfaces {
                name: netns.name().to_owned(),
                source,
            };
            let mut cleared = 0;
            for index in filter::qdiscs(&mut route).map_err(unlisted)?.into_keys() {
                let removed = clsact::remove(&mut route, self.agent, index, false);
                cleared += usize::from(removed.map_err(unlisted)?);
            }
            Ok(cleared)
        })
    }

    fn take_off(&self, netns: &Netns, index: u32, pin: &Path) -> Result<(), Error> {
        let made_qdisc = pin::made_qdisc(pin);
        netns.enter(|| {
            let mut route = open(netns)?;
            let removed = clsact::remove(&mut route, self.agent, index, made_qdisc);
            removed.map_err(|source| Error::Ingress {
                namespace: netns.name().to_owned(),
                interface: format!("{index}"),
                what: "rid of the tc filter",
                source,
            })
        })?;
        pin::remove(pin)
    }
}

/// The number of the loopback, the same in every namespace (`LOOPBACK_IFINDEX`,
/// `include/net/net_namespace.h`).
const LOOPBACK: u32 = 1;

fn open(netns: &Netns) -> Result<Route, Error> {
    Route::open().map_err(|source| Error::Interfaces {
        name: netns.name().to_owned(),
        source,
    })
}

/// Returns the namespace and the interface that a pin is named after, or `None`
/// if there is no such namespace.
fn place_of(folder: &NetnsFolder, pin: &Path) -> Result<Option<(Netns, u32)>, Error> {
    let name = pin.file_name().and_then(|name| name.to_str());
    let Some((namespace, index)) = name.and_then(|name| name.rsplit_once(':')) else {
        return Ok(None);
    };
    let Ok(index) = index.parse() else {
        return Ok(None);
    };
    Ok(folder.open(namespace)?.map(|netns| (netns, index)))
}
