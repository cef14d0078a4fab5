//! The observed state of a router.

use std::path::PathBuf;

use crate::{
    kernel::{Attachment, BindingState, Carrier, XdpMode},
    port_table::Image,
};

/// Everything that the kernel holds for one router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Its instance.
    pub instance: InstanceState,
    /// What carries its helper marks.
    pub carrier: CarrierState,
    /// Each of its namespaces that exist.
    pub namespaces: Vec<NamespaceState>,
    /// Pinned links that belong to no interface of these namespaces.
    pub dead_links: Vec<PathBuf>,
    /// Whether an agent with an older ABI has left something.
    pub has_predecessor: bool,
}

/// What carries a router's helper marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CarrierState {
    /// What its instance uses; none without an instance that can be used.
    pub present: Option<Carrier>,
    /// What it is to use.
    pub wanted: Carrier,
}

/// What is pinned as the router's instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InstanceState {
    /// Nothing.
    Absent,
    /// Remains that can't be used.
    Broken,
    /// An instance of another program, one that was loaded with other globals
    /// than are configured now, or one that shares other maps than are pinned.
    Outdated(Image),
    /// An instance.
    Current(Image),
}

/// What one namespace holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceState {
    /// Its name.
    pub name: String,
    /// What is in the binding's place.
    pub binding: BindingState,
    /// Its interfaces that are to be classified, or are though they aren't.
    pub interfaces: Vec<InterfaceState>,
}

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceState {
    /// The interface, and where its link is or would be pinned.
    pub attachment: Attachment,
    /// Whether it is one of those that are to be classified.
    pub wanted: bool,
    /// Whether the instance's program is on its ingress as it should be: in the
    /// configured way, kept by a pin, and nothing else of the agent's beside it.
    pub attached: bool,
    /// Whether anything of the agent's is in its pin's place or on its ingress.
    pub pinned: bool,
    /// The link that an agent with an older ABI has pinned for it, if there is
    /// none in its pin's place.
    pub inherited: Option<PathBuf>,
    /// The XDP program in front of that.
    pub xdp: XdpState,
}

/// What one interface has of XDP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct XdpState {
    /// Where its XDP link is or would be pinned.
    pub pin: PathBuf,
    /// In which mode it is to have the instance's XDP program; none for not at all.
    pub wanted: Option<XdpMode>,
    /// Why it can't have it: then the tc program does all by itself.
    pub obstacle: Option<Obstacle>,
    /// Whether it has it, in that mode and kept by the pin.
    pub attached: bool,
    /// Whether anything of the agent's is in the pin's place.
    pub pinned: bool,
    /// The link that an agent with an older ABI has pinned for it, if there is
    /// none in its pin's place.
    pub inherited: Option<PathBuf>,
}

/// Why an interface can't have the XDP program that it is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// Another's XDP program is on it, and an interface has one.
    Foreign,
    /// The kernel refused when it was tried last, and the interface is as it was
    /// then.
    Refused,
}

impl XdpState {
    /// The mode in which it is to have the program and can.
    #[must_use]
    pub const fn reachable(&self) -> Option<XdpMode> {
        match self.obstacle {
            None => self.wanted,
            Some(_) => None,
        }
    }
}
