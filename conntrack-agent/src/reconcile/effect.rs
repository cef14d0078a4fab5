//! The effects: changes of a router in the kernel, as data that is planned, logged and
//! carried out.

use std::{fmt, path::PathBuf};

use crate::{
    kernel::{Attachment, BindingCarriers, BindingState, Carrier, XdpMode, carrier_name},
    port_table::{Capacity, Edit, Wanted},
};

/// One step towards what is desired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Put an instance with this port table in the place of remains that can't
    /// be used, and of the program that links may still run.
    RebuildInstance(Capacity, Wanted, Carrier),
    /// Load an instance with an empty port table, which uses this carrier.
    LoadInstance(Capacity, Carrier),
    /// Put an instance of this capacity, with the same rules and counters, in
    /// the place of the one that there is; no packet goes unclassified.
    RenewInstance(Capacity),
    /// Write to the port table.
    WriteTable(Edit),
    /// Install the binding in a namespace.
    Bind {
        /// The namespace.
        namespace: String,
        /// What is there in its place now.
        instead_of: BindingState,
        /// The carriers that it reads.
        reads: BindingCarriers,
    },
    /// Have the instance's programs use a carrier.
    SetCarrier {
        /// What they use now; none if it is none that is known.
        instead_of: Option<Carrier>,
        /// What they are to use.
        carrier: Carrier,
    },
    /// Attach the instance's program to an interface.
    Attach {
        /// The interface's namespace.
        namespace: String,
        /// The interface and its pin.
        attachment: Attachment,
    },
    /// Have the link that an agent with an older ABI left on an interface run
    /// the instance's program; no packet goes unclassified.
    TakeOver {
        /// The interface's namespace.
        namespace: String,
        /// The interface and its pin.
        attachment: Attachment,
        /// Where the link is pinned.
        from: PathBuf,
    },
    /// Detach the program from an interface.
    Detach {
        /// The interface's namespace.
        namespace: String,
        /// The interface and its pin.
        attachment: Attachment,
    },
    /// Attach the instance's XDP program to an interface, or have what the agent
    /// has there run it.
    AttachXdp {
        /// The interface's namespace.
        namespace: String,
        /// The interface and its XDP link's pin.
        attachment: Attachment,
        /// In which mode.
        mode: XdpMode,
        /// Where an agent with an older ABI has pinned the link, if one has.
        from: Option<PathBuf>,
    },
    /// Detach the XDP program from an interface.
    DetachXdp {
        /// The interface's namespace.
        namespace: String,
        /// The interface and its XDP link's pin.
        attachment: Attachment,
    },
    /// Remove a pinned link whose interface or namespace is gone.
    ReapLink(PathBuf),
    /// Remove the binding from a namespace.
    Unbind {
        /// The namespace.
        namespace: String,
        /// The carriers that it reads now.
        reads: BindingCarriers,
    },
    /// Remove the instance, and with it what its rules have counted.
    RemoveInstance,
    /// Remove what an agent with an older ABI has left.
    RemovePredecessor,
}

impl Effect {
    /// What takes an installed binding back: none where there was a table that
    /// was no binding.
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

    /// Whether nothing can bring back what it takes away.
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
