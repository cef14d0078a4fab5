//! The observed state of a router.

use std::path::PathBuf;

use super::xdp::XdpState;
use crate::{
    kernel::{Attachment, BindingState, Carrier},
    port_table::Image,
};

/// Everything that the kernel holds for one router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The state of its instance.
    pub instance: InstanceState,
    /// The carrier of its helper marks.
    pub carrier: CarrierState,
    /// Those of its namespaces that exist.
    pub namespaces: Vec<NamespaceState>,
    /// The pinned links that belong to no interface of these namespaces.
    pub dead_links: Vec<PathBuf>,
    /// Whether an agent with an older ABI has left any pins.
    pub has_predecessor: bool,
}

/// The carrier of a router's helper marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CarrierState {
    /// The carrier that its instance uses; `None` without a usable instance.
    pub present: Option<Carrier>,
    /// The carrier that it should use.
    pub wanted: Carrier,
}

/// The state of the pins of the router's instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InstanceState {
    /// There are no pins.
    Absent,
    /// There are remains that can't be used.
    Broken,
    /// There is an instance of another program, one that was loaded with other
    /// globals than are configured now, or one that shares other maps than the
    /// pinned ones.
    Outdated(Image),
    /// There is an instance as it should be.
    Current(Image),
}

/// The state of one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceState {
    /// The namespace's name.
    pub name: String,
    /// The state of the binding's place.
    pub binding: BindingState,
    /// Its interfaces that should be classified, or that are classified and
    /// shouldn't be.
    pub interfaces: Vec<InterfaceState>,
}

/// The state of one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceState {
    /// The interface, and the path where its link is or would be pinned.
    pub attachment: Attachment,
    /// Whether it should be classified.
    pub wanted: bool,
    /// Whether the instance's program is on its ingress as it should be: in the
    /// configured way, kept by a pin, and without anything else of the agent's
    /// beside it.
    pub attached: bool,
    /// Whether anything of the agent's is in its pin's place or on its ingress.
    pub pinned: bool,
    /// The link that an agent with an older ABI has pinned for it, if its own
    /// pin's place is empty.
    pub inherited: Option<PathBuf>,
    /// The state of the XDP program in front of that program.
    pub xdp: XdpState,
}

impl InterfaceState {
    /// Returns whether it should have, or has, anything of the agent's.
    pub(super) const fn is_ours(&self) -> bool {
        self.wanted || self.pinned || self.xdp.pinned
    }
}
