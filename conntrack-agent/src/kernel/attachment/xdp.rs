//! By an XDP link (Linux 5.9): kept by its pin, and by whoever holds a
//! descriptor of it.
//!
//! An interface has one XDP program at a time, so what another has put there
//! stays, and what its driver has no XDP for goes without: the tc program
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

use super::{pin, target::Target};
use crate::kernel::{Error, Instance, netlink::is, sys};

/// How long a link may take to leave that nothing holds any more: the kernel
/// does that on a work queue of its own.
const RELEASE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(2);

/// At which point packets meet an XDP program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the interface's driver, before there is an skb.
    Native,
    /// In the network stack, whatever the driver.
    Generic,
}

impl XdpMode {
    /// `XDP_FLAGS_DRV_MODE` and `XDP_FLAGS_SKB_MODE`,
    /// `include/uapi/linux/if_link.h`.
    const fn flags(self) -> u32 {
        match self {
            Self::Native => 1 << 2,
            Self::Generic => 1 << 1,
        }
    }
}

/// An XDP program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpProgram {
    /// The kernel's id of it; 0 where there are several, on the card and off it.
    pub id: u32,
    /// None for one on the card itself, or several.
    pub mode: Option<XdpMode>,
}

/// What is in the place of an XDP link's pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpPin {
    /// Nothing.
    Absent,
    /// An XDP link.
    Link {
        /// The kernel's id of the program that it runs.
        program: u32,
        /// The number of the interface that it is on, in whichever namespace;
        /// 0 for none.
        interface: u32,
    },
    /// Something else.
    Other,
}

impl XdpPin {
    /// What is at `path`.
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

    /// Whether it is the link by which `there` is on the interface with this
    /// number.
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

/// What became of an attempt to attach.
#[derive(Debug)]
pub enum XdpOutcome {
    /// It is attached, and was not before.
    Attached,
    /// What was there already runs the instance's program now.
    Replaced,
    /// The driver can't, or another's program is there; for this reason.
    Refused(io::Error),
}

/// Gives the link that is pinned for the interface the instance's program, or
/// makes one; where that fails, the interface has none of the agent's.
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
    // In another mode, or of an interface that is gone.
    detach(path)?;
    let (program, id) = program_of(instance)?;
    let start = Instant::now();
    loop {
        // By its number alone: the kernel's call takes no name.
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
        // Perhaps by a link of the agent's own that has lost its pin.
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
    /// Nothing holds it any more, and it is not gone yet.
    Leaving,
    None,
}

/// A link of this program's on the interface with this number.
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

/// Takes what is pinned off its interface, and the pin away; none is fine.
pub(super) fn detach(path: &Path) -> Result<(), Error> {
    if let XdpPin::Link { .. } = XdpPin::at(path) {
        // At once, whoever else holds it.
        sys::open_pinned(path)
            .and_then(|link| sys::detach_link(&link))
            .map_err(Error::file(path, "detached"))?;
    }
    pin::remove(path)
}

/// Lets a pinned link run another instance's program from the next packet on.
/// Returns false if its interface is gone: there is nothing to run it on.
pub(super) fn replace(pin: &Path, instance: &Instance) -> Result<bool, Error> {
    let (program, _) = program_of(instance)?;
    match sys::open_pinned(pin).and_then(|link| sys::update_link(&link, program)) {
        Ok(()) => Ok(true),
        Err(error) if is(&error, Errno::NOLINK) => Ok(false),
        Err(error) => Err(Error::file(pin, "given another program")(error)),
    }
}

/// The program and its id.
fn program_of(instance: &Instance) -> Result<(BorrowedFd<'_>, u32), Error> {
    let program = instance.xdp_program().zip(instance.xdp_program_id());
    program.ok_or(Error::Missing("XDP program in the instance"))
}
