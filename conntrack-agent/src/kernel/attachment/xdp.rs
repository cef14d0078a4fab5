//! Attaches programs by XDP links (Linux 5.9), which their pin and every open
//! descriptor hold.
//!
//! An interface has one XDP program at a time, so a program of another owner
//! stays, and an interface whose driver has no XDP goes without: the tc program
//! classifies either way.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use aya::programs::{links::LinkInfo, loaded_links};
use nix::net::if_::if_indextoname;
use rustix::io::Errno;

use super::{
    pin,
    target::Target,
    xdp_program::{XdpMode, XdpProgram},
};
use crate::kernel::{Error, Instance, netlink::is, sys};

/// The time that a link may take to go when nothing holds it any more: the
/// kernel releases it on a work queue.
const RELEASE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(2);

/// The file in the place of an XDP link's pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpPin {
    /// There is nothing.
    Absent,
    /// There is an XDP link.
    Link {
        /// The kernel's id of the program that it runs.
        program: u32,
        /// The number of the interface that it is on, in whichever namespace; 0
        /// for none.
        interface: u32,
    },
    /// There is something else.
    Other,
}

impl XdpPin {
    /// Returns the kind of file at `path`.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        if path.symlink_metadata().is_err() {
            return Self::Absent;
        }
        match sys::open_pinned(path).and_then(|link| sys::xdp_link(link.as_fd())) {
            Ok(Some((program, interface))) => Self::Link { program, interface },
            _ => Self::Other,
        }
    }

    /// Returns whether it is the link that puts `there` on the interface with
    /// this number.
    #[must_use]
    pub fn is_of(self, there: Option<XdpProgram>, index: u32) -> bool {
        match (self, there) {
            (Self::Link { program, interface }, Some(there)) => {
                program == there.id && interface == index
            }
            _ => false,
        }
    }
}

/// The outcome of an attempt to attach.
#[derive(Debug)]
pub enum XdpOutcome {
    /// The program is attached, and was not before.
    Attached,
    /// The link that was there runs the instance's program now.
    Replaced,
    /// The driver can't attach it, or another owner's program is there; for this
    /// reason.
    Refused(io::Error),
}

/// Makes the link that is pinned for the interface run the instance's program,
/// or makes a link. If that fails, the interface has no program of the agent's.
///
/// The interface's namespace is the calling thread's.
pub(super) fn attach(
    place: &Target<'_>,
    there: Option<XdpProgram>,
    mode: XdpMode,
    instance: &Instance,
) -> Result<XdpOutcome, Error> {
    let path = place.pin();
    if XdpPin::at(path).is_of(there, place.index())
        && there.is_some_and(|there| there.mode == Some(mode))
        && replace(path, instance)?
    {
        return Ok(XdpOutcome::Replaced);
    }
    // The link is in another mode, or of an interface that is gone.
    detach(path)?;
    let (program, id) = program_of(instance)?;
    let start = Instant::now();
    loop {
        // The interface is given by its number alone: the kernel's call takes no
        // name.
        let error = match sys::make_xdp_link(program, place.index(), mode.flags()) {
            Ok(link) => {
                sys::pin(&link, path).map_err(place.failed("pinned"))?;
                return Ok(XdpOutcome::Attached);
            }
            Err(error) => error,
        };
        if if_indextoname(place.index()).is_err() {
            return Err(place.gone());
        }
        if !is(&error, Errno::BUSY) && !is(&error, Errno::EXIST) {
            return Ok(XdpOutcome::Refused(error));
        }
        // The program that is there may be on a link of the agent's own that has
        // lost its pin.
        match stray(id, place.index()) {
            Stray::Found(link) => {
                sys::detach_link(&link).map_err(place.failed("rid of its XDP program"))?;
            }
            Stray::Leaving if start.elapsed() < RELEASE => thread::sleep(PAUSE),
            Stray::Leaving | Stray::None => return Ok(XdpOutcome::Refused(error)),
        }
    }
}

enum Stray {
    Found(OwnedFd),
    /// Nothing holds the link any more, and it is not gone yet.
    Leaving,
    None,
}

/// Finds a link of this program on the interface with this number.
fn stray(program: u32, index: u32) -> Stray {
    let mut is_leaving = false;
    let of_it = |info: &LinkInfo| info.program_id() == program;
    for info in loaded_links().filter_map(Result::ok).filter(of_it) {
        match sys::link_by_id(info.id()) {
            Ok(link) => {
                if sys::link_interface(link.as_fd()).is_ok_and(|interface| interface == index) {
                    return Stray::Found(link);
                }
            }
            Err(_) => is_leaving = true,
        }
    }
    if is_leaving {
        Stray::Leaving
    } else {
        Stray::None
    }
}

/// Detaches the pinned link from its interface and removes the pin; a missing
/// pin is no error.
pub(super) fn detach(path: &Path) -> Result<(), Error> {
    if let XdpPin::Link { .. } = XdpPin::at(path) {
        // The link is detached at once, whoever else holds it.
        sys::open_pinned(path)
            .and_then(|link| sys::detach_link(&link))
            .map_err(Error::file(path, "detached"))?;
    }
    pin::remove(path)
}

/// Makes a pinned link run another instance's program from the next packet on.
/// Returns false if its interface is gone, so that nothing can run it.
pub(super) fn replace(pin: &Path, instance: &Instance) -> Result<bool, Error> {
    let (program, _) = program_of(instance)?;
    match sys::open_pinned(pin).and_then(|link| sys::update_link(&link, program)) {
        Ok(()) => Ok(true),
        Err(error) if is(&error, Errno::NOLINK) => Ok(false),
        Err(error) => Err(Error::file(pin, "given another program")(error)),
    }
}

/// Returns the instance's XDP program and its id.
fn program_of(instance: &Instance) -> Result<(BorrowedFd<'_>, u32), Error> {
    let program = instance.xdp_program().zip(instance.xdp_program_id());
    program.ok_or(Error::Missing("XDP program in the instance"))
}
