//! An instance's program on one interface.

use std::path::{Path, PathBuf};

use aya::{
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType,
        links::{FdLink, LinkError, PinnedLink},
        tc::{SchedClassifierLink, TcAttachOptions, TcError},
    },
    sys::SyscallError,
};
use rustix::io::Errno;

use super::{Error, Instance, Interface, Netns, pins::remove_pin};

/// Where a link goes: an interface, and the pin that keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The interface.
    pub interface: Interface,
    /// Where its link is pinned.
    pub pin: PathBuf,
}

impl Attachment {
    /// Whether the program with this id is on the interface's tcx ingress, as
    /// the kernel tells; none if the interface is gone.
    ///
    /// # Errors
    /// [`Error`] if the kernel can't be asked.
    pub fn has(&self, netns: &Netns, program_id: u32) -> Result<Option<bool>, Error> {
        netns.enter(|| {
            match SchedClassifier::query_tcx(&self.interface.name, TcAttachType::Ingress) {
                Ok((_, programs)) => Ok(Some(
                    programs.iter().any(|program| program.id() == program_id),
                )),
                Err(source) if is_gone(&source) => Ok(None),
                Err(source) => Err(Error::program(format!(
                    "the programs of interface {} in {} cannot be listed",
                    self.interface.name,
                    netns.name()
                ))(source)),
            }
        })
    }

    /// Lets the link that is pinned for this interface run another instance's
    /// program, without a gap. Returns false if no such link is on the
    /// interface: none is pinned, or the one that is belongs to an interface
    /// which had this number before, and may be in another namespace by now.
    ///
    /// # Errors
    /// [`Error`] if the kernel can't be asked, or refuses.
    pub fn replace(&self, netns: &Netns, instance: &mut Instance) -> Result<bool, Error> {
        if !self.pin.exists() {
            return Ok(false);
        }
        match self.has(netns, program_of(&self.pin)?)? {
            Some(true) => replace(&self.pin, instance),
            Some(false) | None => Ok(false),
        }
    }

    /// Puts the instance's program in front of all others on the interface's
    /// tcx ingress, and pins the link. In front, so that no verdict of another
    /// program keeps a packet from it; it gives none itself.
    ///
    /// # Errors
    /// [`Error`] if the kernel refuses; then nothing is attached.
    pub fn attach(&self, netns: &Netns, instance: &mut Instance) -> Result<(), Error> {
        let name = &self.interface.name;
        // A pin that is left is of an interface that is gone, with this number.
        remove_pin(&self.pin)?;
        let program = instance.program();
        netns.enter(|| {
            let failed = |source| {
                if is_gone(&source) {
                    return Error::InterfaceGone {
                        namespace: netns.name().to_owned(),
                        interface: name.clone(),
                    };
                }
                Error::program(format!(
                    "the classifier cannot be attached to interface {name} in {}",
                    netns.name()
                ))(source)
            };
            let link = program
                .attach_with_options(
                    name,
                    TcAttachType::Ingress,
                    TcAttachOptions::TcxOrder(LinkOrder::first()),
                )
                .and_then(|id| program.take_link(id))
                .map_err(failed)?;
            let link: FdLink = link.try_into().map_err(|source| self.link_error(source))?;
            // Where this fails the link is dropped, and with it the attachment.
            let pinned = link.pin(&self.pin).map_err(|source| Error::Pin {
                path: self.pin.clone(),
                source: Box::new(source),
            })?;
            drop(pinned);
            Ok(())
        })
    }

    fn link_error(&self, source: LinkError) -> Error {
        Error::Link {
            path: self.pin.clone(),
            source: Box::new(source),
        }
    }
}

/// Detaches what a pinned link attaches.
///
/// # Errors
/// [`Error::File`] if the pin can't be removed.
pub fn detach(pin: &Path) -> Result<(), Error> {
    // The agent holds no descriptor of a link, so its pin is all that keeps it.
    remove_pin(pin)
}

/// The interface has no number any more, or nothing has that number.
fn is_gone(error: &ProgramError) -> bool {
    match error {
        ProgramError::SyscallError(SyscallError { io_error, .. })
        | ProgramError::TcError(TcError::IoError(io_error)) => {
            io_error.raw_os_error() == Some(Errno::NODEV.raw_os_error())
        }
        ProgramError::UnknownInterface { .. } => true,
        _ => false,
    }
}

/// The kernel's id of the program that a pinned link runs.
fn program_of(pin: &Path) -> Result<u32, Error> {
    let link: Result<FdLink, _> = PinnedLink::from_pin(pin).map(Into::into);
    let info = link.and_then(|link| link.info());
    info.map(|info| info.program_id())
        .map_err(|source| Error::Link {
            path: pin.to_owned(),
            source: Box::new(source),
        })
}

/// Lets a pinned link run another instance's program from the next packet on.
/// Returns false if its interface is gone: there is nothing to run it on.
///
/// # Errors
/// [`Error::Link`] if the kernel refuses.
pub fn replace(pin: &Path, instance: &mut Instance) -> Result<bool, Error> {
    let failed = |source| Error::Link {
        path: pin.to_owned(),
        source: Box::new(source),
    };
    let link: FdLink = PinnedLink::from_pin(pin).map_err(failed)?.into();
    let link: SchedClassifierLink = link.try_into().map_err(failed)?;
    match instance.program().attach_to_link(link) {
        Ok(_) => Ok(true),
        Err(ProgramError::SyscallError(SyscallError { io_error, .. }))
            if io_error.raw_os_error() == Some(Errno::NOLINK.raw_os_error()) =>
        {
            Ok(false)
        }
        Err(source) => Err(Error::program(format!(
            "link {} cannot be given another program",
            pin.display()
        ))(source)),
    }
}
