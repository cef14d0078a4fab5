//! Attaches XDP programs by links (Linux 5.9), which their pin and every open descriptor
//! hold.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use aya::programs::{links::LinkInfo, loaded_links};
use nix::net::if_::if_indextoname;
use rustix::io::Errno;

use super::{
    XdpClassifier,
    program::{XdpMode, XdpProgram},
};
use crate::kernel::{
    Attachment, Error, Netns,
    attachment::Target,
    interface::{Listed, interfaces},
    netlink::{Route, is},
    sys, unpin,
};

/// The values `BPF_XDP` of `enum bpf_attach_type` and `BPF_LINK_TYPE_XDP` of
/// `enum bpf_link_type`, include/uapi/linux/bpf.h.
const ATTACH_TYPE: u32 = 37;
const LINK_TYPE: u32 = 6;

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
        match sys::open_pinned(path).and_then(|link| sys::link_info(link.as_fd())) {
            Ok(link) if link.kind == LINK_TYPE => Self::Link {
                program: link.program,
                interface: link.interface,
            },
            _ => Self::Other,
        }
    }

    /// Detaches the link that is pinned at `path` from its interface, and removes the
    /// pin; a missing pin is no error.
    ///
    /// # Errors
    /// [`Error::File`] if it can't be removed.
    pub fn detach(path: &Path) -> Result<(), Error> {
        if let Self::Link { .. } = Self::at(path) {
            // The link is detached at once, whoever else holds it.
            sys::open_pinned(path)
                .and_then(|link| sys::detach_link(&link))
                .map_err(Error::file(path, "detached"))?;
        }
        unpin(path)
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

impl XdpClassifier {
    /// Attaches the program to the interface, in this mode; a program of another owner
    /// stays. A link of this agent's runs it from the next packet on, or is removed first
    /// if it is in another mode. If that fails, the interface has no program of the
    /// agent's. Also returns the MTU that the interface had, in bytes, as the driver's
    /// answer may depend on it.
    ///
    /// # Errors
    /// [`Error`] if the interface is gone, or for any failure that neither the driver nor
    /// another program causes.
    pub fn attach(
        &self,
        mode: XdpMode,
        netns: &Netns,
        attachment: &Attachment,
    ) -> Result<(XdpOutcome, u32), Error> {
        netns.enter(|| {
            let target = Target { netns, attachment };
            let Listed { mtu, xdp, .. } = listed(&target)?;
            Ok((self.attach_here(&target, xdp, mode)?, mtu))
        })
    }

    /// Attaches the program in the calling thread's namespace, which is the target's.
    fn attach_here(
        &self,
        target: &Target<'_>,
        there: Option<XdpProgram>,
        mode: XdpMode,
    ) -> Result<XdpOutcome, Error> {
        let (path, index) = (target.pin(), target.index());
        if XdpPin::at(path).is_of(there, index)
            && there.is_some_and(|there| there.mode == Some(mode))
            && self.replace(path)?
        {
            return Ok(XdpOutcome::Replaced);
        }
        // The link is in another mode, or of an interface that is gone.
        XdpPin::detach(path)?;
        let start = Instant::now();
        loop {
            // The interface is given by its number alone: the kernel's call takes no
            // name. EBUSY means that there is a program already; EEXIST that there is
            // one in another mode, or on an interface above it; EINVAL that there is no
            // such interface; all else is the driver's (`dev_xdp_attach`, net/core/dev.c).
            let error = match sys::make_link(self.program(), index, ATTACH_TYPE, mode.flags()) {
                Ok(link) => {
                    sys::pin(&link, path).map_err(target.failed("pinned"))?;
                    return Ok(XdpOutcome::Attached);
                }
                Err(error) => error,
            };
            if if_indextoname(index).is_err() {
                return Err(target.gone());
            }
            if !is(&error, Errno::BUSY) && !is(&error, Errno::EXIST) {
                return Ok(XdpOutcome::Refused(error));
            }
            // The program that is there may be on a link of the agent's own that has
            // lost its pin.
            match stray(self.id(), index) {
                Stray::Found(link) => {
                    sys::detach_link(&link).map_err(target.failed("rid of its XDP program"))?;
                }
                Stray::Leaving if start.elapsed() < RELEASE => thread::sleep(PAUSE),
                Stray::Leaving | Stray::None => return Ok(XdpOutcome::Refused(error)),
            }
        }
    }

    /// Makes a pinned link run the program from the next packet on. Returns false if its
    /// interface is gone, so that nothing can run it.
    ///
    /// # Errors
    /// [`Error`] if the kernel refuses.
    pub fn replace(&self, pin: &Path) -> Result<bool, Error> {
        match sys::open_pinned(pin).and_then(|link| sys::update_link(&link, self.program())) {
            Ok(()) => Ok(true),
            Err(error) if is(&error, Errno::NOLINK) => Ok(false),
            Err(error) => Err(Error::file(pin, "given another program")(error)),
        }
    }
}

/// Returns the interface as it is now.
fn listed(target: &Target<'_>) -> Result<Listed, Error> {
    let listed = Route::open().and_then(|mut route| interfaces(&mut route));
    let listed = listed.map_err(target.failed("asked for its XDP program"))?;
    let mut listed = listed.into_iter();
    let this = listed.find(|listed| listed.interface.index == target.index());
    this.ok_or_else(|| target.gone())
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
