//! The interface that a program is put on.

use std::{
    io,
    path::{Path, PathBuf},
};

use rustix::io::Errno;

use crate::kernel::{Error, Interface, Netns, netlink::is};

/// The place of a program: an interface, and the pin or folder that records it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The interface.
    pub interface: Interface,
    /// The path of the link's pin, or of the filter's folder.
    pub pin: PathBuf,
}

/// The interface that is being worked on, in its namespace.
pub(super) struct Target<'a> {
    pub(super) netns: &'a Netns,
    pub(super) attachment: &'a Attachment,
}

impl Target<'_> {
    pub(super) fn index(&self) -> u32 {
        self.attachment.interface.index
    }

    pub(super) fn pin(&self) -> &Path {
        &self.attachment.pin
    }

    pub(super) fn gone(&self) -> Error {
        Error::InterfaceGone {
            namespace: self.netns.name().to_owned(),
            interface: self.attachment.interface.name.clone(),
        }
    }

    /// An error of the kernel's; what the interface can't be.
    pub(super) fn failed(&self, what: &'static str) -> impl Fn(io::Error) -> Error {
        move |source| {
            if is(&source, Errno::NODEV) || is(&source, Errno::NXIO) {
                return self.gone();
            }
            Error::Ingress {
                namespace: self.netns.name().to_owned(),
                interface: self.attachment.interface.name.clone(),
                what,
                source,
            }
        }
    }
}
