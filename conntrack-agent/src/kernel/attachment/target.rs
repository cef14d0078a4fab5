//! The interface that a program is put on.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use rustix::io::Errno;

use crate::kernel::{Error, Interface, Netns, netlink::is};

/// The place of a program: an interface, and the pin or folder that records it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The name of the interface's namespace.
    pub namespace: String,
    /// The interface.
    pub interface: Interface,
    /// The path of the link's pin, or of the filter's folder.
    pub pin: PathBuf,
}

impl fmt::Display for Attachment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            namespace,
            interface,
            ..
        } = self;
        write!(formatter, "{} in {namespace}", interface.name)
    }
}

/// The interface that is being worked on, in its namespace.
pub(in crate::kernel) struct Target<'a> {
    pub(in crate::kernel) netns: &'a Netns,
    pub(in crate::kernel) attachment: &'a Attachment,
}

impl Target<'_> {
    pub(in crate::kernel) fn index(&self) -> u32 {
        self.attachment.interface.index
    }

    pub(in crate::kernel) fn pin(&self) -> &Path {
        &self.attachment.pin
    }

    pub(in crate::kernel) fn gone(&self) -> Error {
        Error::InterfaceGone {
            namespace: self.netns.name().to_owned(),
            interface: self.attachment.interface.name.clone(),
        }
    }

    /// An error of the kernel's; what the interface can't be.
    pub(in crate::kernel) fn failed(&self, what: &'static str) -> impl Fn(io::Error) -> Error {
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
