//! The effects: changes of a router in the kernel, as data that is planned, logged and
//! carried out.

use std::{fmt, path::PathBuf};

use super::xdp::XdpEffect;
use crate::{
    kernel::{Attachment, BindingCarriers, BindingState, Carrier, carrier_name},
    port_table::{Capacity, Edit, Wanted},
};

/// A step towards the desired state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Replaces unusable remains, and the program that links may still run, by
    /// an instance with this port table.
    RebuildInstance(Capacity, Wanted, Carrier),
    /// Loads an instance with an empty port table, which uses this carrier.
    LoadInstance(Capacity, Carrier),
    /// Replaces the instance by one of this capacity, with the same rules and
    /// counters; no packet goes unclassified.
    RenewInstance(Capacity),
    /// Writes to the port table.
    WriteTable(Edit),
    /// Installs the binding in a namespace.
    Bind {
        /// The namespace.
        namespace: String,
        /// The state of the binding's place there.
        instead_of: BindingState,
        /// The carriers that it reads.
        reads: BindingCarriers,
    },
    /// Makes the instance's programs use a carrier.
    SetCarrier {
        /// The carrier that they use now; `None` if it is not a known one.
        instead_of: Option<Carrier>,
        /// The carrier that they should use.
        carrier: Carrier,
    },
    /// Attaches the instance's program to an interface.
    Attach(Attachment),
    /// Makes the link that an agent with an older ABI left on an interface run
    /// the instance's program; no packet goes unclassified.
    TakeOver {
        /// The interface and its pin.
        attachment: Attachment,
        /// The path where the link is pinned.
        from: PathBuf,
    },
    /// Detaches the program from an interface.
    Detach(Attachment),
    /// Changes the XDP program in front of it.
    Xdp(XdpEffect),
    /// Removes a pinned link whose interface or namespace is gone.
    ReapLink(PathBuf),
    /// Removes the binding from a namespace.
    Unbind {
        /// The namespace.
        namespace: String,
        /// The carriers that it reads now.
        reads: BindingCarriers,
    },
    /// Removes the instance, and with it the counts of its rules.
    RemoveInstance,
    /// Removes the pins that an agent with an older ABI has left.
    RemovePredecessor,
}

impl Effect {
    /// Returns the effect that undoes it, where it changed something that can be
    /// changed back.
    pub(super) fn inverse(&self) -> Option<Self> {
        Some(match self {
            Self::LoadInstance(..) => Self::RemoveInstance,
            Self::WriteTable(edit) => Self::WriteTable(edit.inverse()),
            Self::Bind {
                namespace,
                instead_of,
                reads,
            } => match *instead_of {
                BindingState::Absent => Self::Unbind {
                    namespace: namespace.clone(),
                    reads: *reads,
                },
                BindingState::Reading(before) => Self::Bind {
                    namespace: namespace.clone(),
                    instead_of: BindingState::Reading(*reads),
                    reads: before,
                },
                // There was a table that was no binding.
                BindingState::Different => return None,
            },
            Self::SetCarrier {
                instead_of,
                carrier,
            } => Self::SetCarrier {
                instead_of: Some(*carrier),
                carrier: (*instead_of)?,
            },
            Self::Attach(attachment) | Self::TakeOver { attachment, .. } => {
                Self::Detach(attachment.clone())
            }
            Self::Detach(attachment) => Self::Attach(attachment.clone()),
            Self::Xdp(effect) => Self::Xdp(effect.inverse()?),
            Self::Unbind { namespace, reads } => Self::Bind {
                namespace: namespace.clone(),
                instead_of: BindingState::Absent,
                reads: *reads,
            },
            Self::RebuildInstance(..)
            | Self::RenewInstance(_)
            | Self::ReapLink(_)
            | Self::RemoveInstance
            | Self::RemovePredecessor => return None,
        })
    }

    /// Returns whether the effect can't be undone.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::RemoveInstance | Self::RemovePredecessor)
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RebuildInstance(..) => write!(formatter, "rebuild a broken instance"),
            Self::LoadInstance(Capacity { pages, slots }, _) => {
                write!(
                    formatter,
                    "load an instance of {pages} pages, {slots} slots"
                )
            }
            Self::RenewInstance(Capacity { pages, slots }) => {
                write!(
                    formatter,
                    "renew the instance with {pages} pages, {slots} slots"
                )
            }
            Self::WriteTable(edit) => {
                write!(formatter, "{} writes to the port table", edit.len())
            }
            Self::Bind {
                namespace, reads, ..
            } => write!(
                formatter,
                "install the binding in {namespace}, which reads {reads}"
            ),
            Self::SetCarrier { carrier, .. } => {
                write!(formatter, "carry by {}", carrier_name(*carrier))
            }
            Self::Attach(attachment) => write!(formatter, "attach to {attachment}"),
            Self::TakeOver { attachment, .. } => {
                write!(formatter, "take over the link on {attachment}")
            }
            Self::Detach(attachment) => write!(formatter, "detach from {attachment}"),
            Self::Xdp(effect) => effect.fmt(formatter),
            Self::ReapLink(pin) => write!(formatter, "reap the dead link {}", pin.display()),
            Self::Unbind { namespace, .. } => {
                write!(formatter, "remove the binding from {namespace}")
            }
            Self::RemoveInstance => write!(formatter, "remove the instance"),
            Self::RemovePredecessor => write!(formatter, "remove the older ABI's instance"),
        }
    }
}
