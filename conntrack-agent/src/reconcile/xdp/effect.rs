//! The changes of an interface's XDP program.

use std::{fmt, path::PathBuf};

use crate::kernel::{Attachment, XdpMode};

/// A change of the XDP program of one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum XdpEffect {
    /// Attaches the instance's XDP program to an interface, or makes the agent's
    /// link there run it.
    Attach {
        /// The interface and its XDP link's pin.
        attachment: Attachment,
        /// The mode of the program.
        mode: XdpMode,
        /// The path where an agent with an older ABI has pinned the link, if it
        /// has.
        from: Option<PathBuf>,
    },
    /// Detaches the XDP program from an interface.
    Detach {
        /// The interface and its XDP link's pin.
        attachment: Attachment,
        /// The mode in which the program is attached again if that is undone;
        /// `None` if the interface should have none.
        back: Option<XdpMode>,
    },
}

impl XdpEffect {
    /// Returns the interface, with its XDP link's pin.
    pub(in crate::reconcile) const fn attachment(&self) -> &Attachment {
        match self {
            Self::Attach { attachment, .. } | Self::Detach { attachment, .. } => attachment,
        }
    }

    /// Returns the effect that undoes it.
    pub(in crate::reconcile) fn inverse(&self) -> Option<Self> {
        Some(match self {
            Self::Attach {
                attachment, mode, ..
            } => Self::Detach {
                attachment: attachment.clone(),
                back: Some(*mode),
            },
            Self::Detach { attachment, back } => Self::Attach {
                attachment: attachment.clone(),
                mode: (*back)?,
                from: None,
            },
        })
    }
}

impl fmt::Display for XdpEffect {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attach {
                attachment, mode, ..
            } => {
                let mode = match mode {
                    XdpMode::Native => "native",
                    XdpMode::Generic => "generic",
                };
                write!(formatter, "attach {mode} XDP to {attachment}")
            }
            Self::Detach { attachment, .. } => write!(formatter, "detach XDP from {attachment}"),
        }
    }
}
