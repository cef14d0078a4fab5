//! An instance's tc program on the ingress of an interface.
//!
//! It is attached in one of two ways. Since Linux 6.6 it has a **tcx** link, which a
//! pin keeps. On older kernels it has a **tc filter** (`cls_bpf`, as on a clsact qdisc), which
//! its interface keeps; in place of the link's pin there is a folder, so that the filter is
//! found, reaped and renewed as a link is.

mod clsact;
pub(super) mod filter;
mod hooks;
mod pin;
mod target;
mod tcx;

use super::{Interface, XdpProgram};
pub use hooks::{Hooks, Occupant, OnHook};
pub use pin::{Pin, remove as unpin};
pub use target::Attachment;
pub(super) use target::Target;

/// The way in which programs are attached to an interface's ingress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachMode {
    /// A tcx link.
    Tcx,
    /// A tc filter.
    Clsact,
}

/// An interface and the programs on its ingress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ingress {
    /// The interface.
    pub interface: Interface,
    /// The programs of all owners on tcx, by the kernel's ids of program and link.
    links: Vec<(u32, u32)>,
    /// The kernel's ids of the programs that this agent's filters run.
    filters: Vec<u32>,
    /// The interface's XDP program, whoever its owner is.
    pub xdp: Option<XdpProgram>,
    /// The size of the largest packet that it sends, in bytes. A driver's XDP depends on it.
    pub mtu: u32,
}

impl Ingress {
    /// Returns whether the program with this id is attached in this way, with the pin in place
    /// that keeps it and without another filter of this agent's.
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

    /// Returns the kernel's ids of the attached programs: those of all owners on tcx, and those
    /// of this agent's filters.
    pub fn programs(&self) -> impl Iterator<Item = u32> {
        let links = self.links.iter().map(|(program, _)| *program);
        links.chain(self.filters.iter().copied())
    }

    /// Returns whether a filter of this agent is attached, whichever program it runs.
    #[must_use]
    pub fn has_filter(&self) -> bool {
        !self.filters.is_empty()
    }
}
