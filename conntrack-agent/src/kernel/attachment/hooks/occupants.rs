//! Lists all programs and tc filters on the ingress of interfaces, the agent's and
//! others'.

use rustix::io::Errno;

use super::{super::filter, Hooks, open};
use crate::kernel::{
    Error, Interface, Netns,
    interface::{Listed, interfaces},
    netlink::is,
    sys,
};

/// How a program is on an interface, in the order in which packets meet them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OnHook {
    /// In its driver, or in front of the network stack.
    Xdp,
    /// By tcx.
    Tcx,
    /// By a tc filter.
    Filter,
}

/// What packets meet on an interface's ingress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occupant {
    /// How it is there.
    pub by: OnHook,
    /// The kernel's id of the eBPF program that it is; 0 of several XDP programs, on
    /// the card and off it. None of a tc filter that runs none.
    pub program: Option<u32>,
    /// Of a tc filter, its kind: `bpf`, `u32`.
    pub kind: Option<String>,
    /// Whether it is in a filter that says it is this agent's.
    pub is_own_filter: bool,
}

impl Hooks {
    /// The namespace's interfaces, by rising index, with the programs and the tc
    /// filters that packets meet on each, first to last. Filters of one kind that
    /// are next to each other are one, if they run no program.
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
                        // Unplugged since it was listed.
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
