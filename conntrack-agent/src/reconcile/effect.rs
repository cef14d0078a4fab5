//! The effects: changes of a router in the kernel, as data that is planned, logged and
//! carried out.

use std::{fmt, path::PathBuf};

use crate::{
    kernel::{Attachment, BindingCarriers, BindingState, Carrier, XdpMode, carrier_name},
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
    Attach {
        /// The interface's namespace.
        namespace: String,
        /// The interface and its pin.
        attachment: Attachment,
    },
    /// Makes the link that an agent with an older ABI left on an interface run
    /// the instance's program; no packet goes unclassified.
    TakeOver {
        /// The interface's namespace.
        namespace: String,
        /// The interface and its pin.
        attachment: Attachment,
        /// The path where the link is pinned.
        from: PathBuf,
    },
    /// Detaches the program from an interface.
    Detach {
        /// The interface's namespace.
        namespace: String,
        /// The interface and its pin.
        attachment: Attachment,
    },
    /// Attaches the instance's XDP program to an interface, or makes the agent's
    /// link there run it.
    AttachXdp {
        /// The interface's namespace.
        namespace: String,
        /// The interface and its XDP link's pin.
        attachment: Attachment,
        /// The mode of the program.
        mode: XdpMode,
        /// The path where an agent with an older ABI has pinned the link, if it
        /// has.
        from: Option<PathBuf>,
    },
    /// Detaches the XDP program from an interface.
    DetachXdp {
        /// The interface's namespace.
        namespace: String,
        /// The interface and its XDP link's pin.
        attachment: Attachment,
    },
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
    /// Returns the effect that undoes the installation of a binding, or `None`
    /// where there was a table that was no binding.
    pub(super) fn undo_of_bind(
        namespace: &str,
        instead_of: BindingState,
        reads: BindingCarriers,
    ) -> Option<Self> {
        let namespace = namespace.to_owned();
        match instead_of {
            BindingState::Absent => Some(Self::Unbind { namespace, reads }),
            BindingState::Reading(before) => Some(Self::Bind {
                namespace,
                instead_of: BindingState::Reading(reads),
                reads: before,
            }),
            BindingState::Different => None,
        }
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
            Self::Attach {
                namespace,
                attachment,
            } => write!(
                formatter,
                "attach to {} in {namespace}",
                attachment.interface.name
            ),
            Self::TakeOver {
                namespace,
                attachment,
                ..
            } => write!(
                formatter,
                "take over the link on {} in {namespace}",
                attachment.interface.name
            ),
            Self::Detach {
                namespace,
                attachment,
            } => write!(
                formatter,
                "detach from {} in {namespace}",
                attachment.interface.name
            ),
            Self::AttachXdp {
                namespace,
                attachment,
                mode,
                ..
            } => write!(
                formatter,
                "attach {} XDP to {} in {namespace}",
                match mode {
                    XdpMode::Native => "native",
                    XdpMode::Generic => "generic",
                },
                attachment.interface.name
            ),
            Self::DetachXdp {
                namespace,
                attachment,
            } => write!(
                formatter,
                "detach XDP from {} in {namespace}",
                attachment.interface.name
            ),
            Self::ReapLink(pin) => write!(formatter, "reap the dead link {}", pin.display()),
            Self::Unbind { namespace, .. } => {
                write!(formatter, "remove the binding from {namespace}")
            }
            Self::RemoveInstance => write!(formatter, "remove the instance"),
            Self::RemovePredecessor => write!(formatter, "remove the older ABI's instance"),
        }
    }
}
