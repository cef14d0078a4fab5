//! An instance's programs on the ingress of an interface: the tc program, and in
//! front of it, where that is wanted and possible, the XDP program.
//!
//! For the tc program, two ways lead there. Since Linux 6.6 a **tcx** link, which a pin keeps. On
//! older kernels a **tc filter** (`cls_bpf`, as on a clsact qdisc), which is kept
//! by its interface; in the place of the link's pin it has a folder, so that it
//! is found, reaped and renewed as a link is.

mod clsact;
mod filter;
mod hooks;
mod pin;
mod target;
mod tcx;
mod xdp;

use std::path::PathBuf;

use super::Interface;
pub use hooks::{Hooks, Occupant, OnHook};
pub use pin::{Pin, remove as unpin};
pub use xdp::{XdpMode, XdpOutcome, XdpPin, XdpProgram};

/// How programs get onto an interface's ingress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachMode {
    /// By a tcx link.
    Tcx,
    /// By a tc filter.
    Clsact,
}

/// Where a program goes: an interface, and what keeps the memory of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The interface.
    pub interface: Interface,
    /// Where its link is pinned, or its filter's folder is.
    pub pin: PathBuf,
}

/// An interface, and what is on its ingress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ingress {
    /// The interface.
    pub interface: Interface,
    /// Everybody's programs on tcx, by the kernel's ids of program and link.
    links: Vec<(u32, u32)>,
    /// The kernel's ids of the programs that this agent's filters run.
    filters: Vec<u32>,
    /// Its XDP program, anybody's.
    pub xdp: Option<XdpProgram>,
    /// The largest packet that it sends, in bytes: what a driver's XDP depends on.
    pub mtu: u32,
}

impl Ingress {
    /// Whether the program with this id is on it in this way, and by nothing
    /// else; with the pin in place that keeps it.
    #[must_use]
    pub fn has(&self, way: AttachMode, program: u32, pin: Pin) -> bool {
        match (way, pin) {
            (AttachMode::Tcx, Pin::Link(link)) => {
                self.links.contains(&(program, link)) && self.filters.is_empty()
            }
            (AttachMode::Clsact, Pin::Filter) => self.filters == [program],
            _ => false,
        }
    }

    /// The kernel's ids of the programs on it: everybody's on tcx, and those of
    /// this agent's filters.
    pub fn programs(&self) -> impl Iterator<Item = u32> {
        let links = self.links.iter().map(|(program, _)| *program);
        links.chain(self.filters.iter().copied())
    }

    /// Whether a filter of this agent's is on it, whichever program it runs.
    #[must_use]
    pub fn has_filter(&self) -> bool {
        !self.filters.is_empty()
    }
}
