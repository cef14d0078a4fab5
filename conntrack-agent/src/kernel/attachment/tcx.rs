//! Attaches programs by tcx links, which their pin and every open descriptor hold.

use std::{
    os::fd::OwnedFd,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use aya::{
    programs::{
        LinkOrder, ProgramError, TcAttachType,
        links::{FdLink, PinnedLink},
        tc::{SchedClassifierLink, TcAttachOptions, TcError},
    },
    sys::SyscallError,
};
use nix::net::if_::if_indextoname;
use rustix::io::Errno;

use super::{Pin, pin, target::Target};
use crate::kernel::{Error, Instance, netlink::is, sys};

/// The time that a link may take to go when nothing holds it any more: the kernel
/// releases it on a work queue, after an RCU grace period.
const RELEASE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(2);

/// Makes the link that is pinned for the interface run the instance's program, or
/// makes a link. It comes in front of all others, so that no verdict of another
/// program keeps a packet from ours, which gives none itself. Returns whether there
/// was a link.
///
/// The interface's namespace is the calling thread's.
pub(super) fn attach(place: &Target<'_>, instance: &mut Instance) -> Result<bool, Error> {
    let path = place.pin();
    let found = Pin::at(path)?;
    if let Pin::Link(pinned) = found
        && on_hook(place)?.iter().any(|(_, link)| *link == pinned)
    {
        return replace(path, instance);
    }
    if found != Pin::Filter {
        // The pin's link is of an interface that had this number and is gone, or
        // that is in another namespace by now.
        pin::remove(path)?;
    }
    let link = link(place, instance)?;
    if found == Pin::Filter {
        // The filter itself goes when the link is pinned.
        pin::remove(path)?;
    }
    // Where this fails the link is dropped, and with it the attachment.
    match link {
        Link::Found(descriptor) => sys::pin(&descriptor, path).map_err(place.failed("pinned")),
        Link::Made(link) => link.pin(path).map(drop).map_err(|source| Error::Pin {
            path: path.to_owned(),
            source: Box::new(source),
        }),
    }?;
    Ok(false)
}

enum Link {
    Made(FdLink),
    Found(OwnedFd),
}

/// Finds or makes a link that runs the instance's program on the interface. The
/// kernel takes no program twice on one hook (`bpf_mprog_attach`,
/// kernel/bpf/mprog.c), so a link that lost its pin is found again, or waited for
/// until it is gone.
fn link(place: &Target<'_>, instance: &mut Instance) -> Result<Link, Error> {
    let program = instance.program_id();
    let start = Instant::now();
    loop {
        let there = on_hook(place)?;
        let own = there.iter().find(|(running, _)| *running == program);
        if let Some((_, link)) = own {
            match sys::link_by_id(*link) {
                Ok(descriptor) => return Ok(Link::Found(descriptor)),
                Err(error) if is(&error, Errno::NOENT) && start.elapsed() < RELEASE => {
                    thread::sleep(PAUSE);
                    continue;
                }
                Err(error) => return Err(place.failed("given back its link")(error)),
            }
        }
        return make(place, instance).map(Link::Made);
    }
}

fn make(place: &Target<'_>, instance: &mut Instance) -> Result<FdLink, Error> {
    // This is the current name: the interface may have been renamed since it was
    // listed.
    let name = if_indextoname(place.index()).map_err(|_| place.gone())?;
    let name = name.to_string_lossy();
    let program = instance.program();
    let link = program
        .attach_with_options(
            &name,
            TcAttachType::Ingress,
            TcAttachOptions::TcxOrder(LinkOrder::first()),
        )
        .and_then(|id| program.take_link(id))
        .map_err(|source| {
            if is_gone(&source) {
                return place.gone();
            }
            Error::program(format!(
                "the classifier cannot be attached to interface {name} in {}",
                place.netns.name()
            ))(source)
        })?;
    link.try_into().map_err(|source| Error::Link {
        path: place.pin().to_owned(),
        source: Box::new(source),
    })
}

fn on_hook(place: &Target<'_>) -> Result<Vec<(u32, u32)>, Error> {
    sys::tcx_ingress(place.index()).map_err(place.failed("asked for its tcx programs"))
}

/// Returns whether the error means that the interface has no number any more, or
/// that no interface has it.
fn is_gone(error: &ProgramError) -> bool {
    match error {
        ProgramError::SyscallError(SyscallError { io_error, .. })
        | ProgramError::TcError(TcError::IoError(io_error)) => is(io_error, Errno::NODEV),
        ProgramError::UnknownInterface { .. } => true,
        _ => false,
    }
}

/// Makes a pinned link run another instance's program from the next packet on.
/// Returns false if its interface is gone, so that nothing can run it.
pub(super) fn replace(pin: &Path, instance: &mut Instance) -> Result<bool, Error> {
    let failed = |source| Error::Link {
        path: pin.to_owned(),
        source: Box::new(source),
    };
    let link: FdLink = PinnedLink::from_pin(pin).map_err(failed)?.into();
    let link: SchedClassifierLink = link.try_into().map_err(failed)?;
    match instance.program().attach_to_link(link) {
        Ok(_) => Ok(true),
        Err(ProgramError::SyscallError(SyscallError { io_error, .. }))
            if is(&io_error, Errno::NOLINK) =>
        {
            Ok(false)
        }
        Err(source) => Err(Error::program(format!(
            "link {} cannot be given another program",
            pin.display()
        ))(source)),
    }
}
