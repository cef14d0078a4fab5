//! Lists all programs and tc filters on the ingress of interfaces, of the agent and
//! of others.

use rustix::io::Errno;

use super::{super::filter, Hooks, open};
use crate::kernel::{
    Error, Interface, Netns,
    interface::{Listed, interfaces},
    netlink::is,
    sys,
};

/// The place of a program on an interface's ingress, in the order in which packets
/// reach them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OnHook {
    /// The program is in the interface's driver, or in front of the network stack.
    Xdp,
    /// The program is on tcx.
    Tcx,
    /// The program is in a tc filter.
    Filter,
}

/// A program or filter that packets pass on an interface's ingress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occupant {
    /// The place where it is attached.
    pub by: OnHook,
    /// The kernel's id of the eBPF program; 0 for several XDP programs, on the card
    /// and off it. `None` for a tc filter that runs no program.
    pub program: Option<u32>,
    /// The kind of a tc filter: `bpf`, `u32`.
    pub kind: Option<String>,
    /// Whether it is in a filter whose name says that it is this agent's.
    pub is_own_filter: bool,
}

impl Hooks {
    /// Returns the namespace's interfaces, by rising index, with the programs and
    /// the tc filters that packets pass on each, first to last. Adjoining filters of
    /// one kind that run no program count as one.
    ///
    /// # Errors
    /// [`Error`] if the kernel can't be asked.
    pub fn occupants(&self, netns: &Netns) -> Result<Vec<(Interface, Vec<Occupant>)>, Error> {
        netns.enter(|| {
            let mut route = open(netns)?;
            let unlisted = |source| Error::Interfaces {
                name: netns.name().to_owned(),
                source,
            };
            let listing = interfaces(&mut route).map_err(unlisted)?;
            let qdiscs = filter::qdiscs(&mut route).map_err(unlisted)?;
            let mut found = Vec::with_capacity(listing.len());
            for Listed { interface, xdp, .. } in listing {
                let other = |by, program| Occupant {
                    by,
                    program: Some(program),
                    kind: None,
                    is_own_filter: false,
                };
                let xdp = xdp.map(|xdp| other(OnHook::Xdp, xdp.id));
                let mut occupants: Vec<_> = xdp.into_iter().collect();
                if self.has_tcx {
                    match sys::tcx_ingress(interface.index) {
                        Ok(links) => {
                            let programs = links.into_iter().map(|(program, _)| program);
                            occupants.extend(programs.map(|id| other(OnHook::Tcx, id)));
                        }
                        // The interface was unplugged since it was listed.
                        Err(error) if is(&error, Errno::NODEV) => continue,
                        Err(error) => return Err(unlisted(error)),
                    }
                }
                if qdiscs.contains_key(&interface.index) {
                    let filters = filter::filters(&mut route, interface.index);
                    let filters = filters.map_err(unlisted)?;
                    let met = filters.iter().filter(|filter| filter.is_met());
                    occupants.extend(met.map(|filter| Occupant {
                        by: OnHook::Filter,
                        program: filter.program(),
                        kind: Some(filter.kind().to_owned()),
                        is_own_filter: filter.own(self.agent).is_some(),
                    }));
                    occupants.dedup();
                }
                found.push((interface, occupants));
            }
            Ok(found)
        })
    }
}
