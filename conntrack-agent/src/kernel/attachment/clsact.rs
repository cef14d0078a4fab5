//! Attaches programs as tc filters (`tc-bpf(8)`, `net/sched/cls_bpf.c`). The interface
//! holds a filter: it is gone with the interface, or when the interface moves to
//! another namespace (`dev_shutdown` in `__dev_change_net_namespace`,
//! `net/core/dev.c`).
//!
//! The program is in direct-action mode: its return value, -1, is `TC_ACT_UNSPEC` here
//! and hands the packet to the next filter.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use rustix::io::Errno;
use tracing::warn;

use super::{
    Pin,
    filter::{INGRESS, Seat, add_qdisc, delete, delete_qdisc, filters, name, qdiscs, set},
    pin,
    target::Target,
};
use crate::kernel::{
    AgentId, Error, Instance,
    netlink::{Route, is},
};

/// The number of attempts to find a free place, which another tool may take meanwhile.
const ATTEMPTS: usize = 4;

/// Makes the agent's filter on the interface run the instance's program, or makes a
/// filter. Returns whether something of the agent's ran there already.
///
/// As everywhere here, the interface is given by its number. On failure, nothing that
/// was made stays.
pub(super) fn attach(
    route: &mut Route,
    agent: AgentId,
    place: &Target<'_>,
    instance: &mut Instance,
) -> Result<bool, Error> {
    let index = place.index();
    let before = Pin::at(place.pin())?;
    if before == Pin::Other {
        pin::remove(place.pin())?;
    }
    let mut made_qdisc = pin::made_qdisc(place.pin());
    let mut was_there = matches!(before, Pin::Link(_));
    let attached = prepare(route, place, before, &mut made_qdisc).and_then(|()| {
        was_there |= put(route, agent, index, instance, &mut made_qdisc)
            .and_then(|result| result.map_err(place.failed("given a tc filter")))?;
        if before != Pin::Filter {
            // A link that was there can go now that the filter is there.
            pin::remove_link(place.pin())?;
        }
        pin::mark_filter(place.pin(), made_qdisc)
    });
    if attached.is_err() && !was_there {
        // The first error is the one to report.
        let undone = remove(route, agent, index, made_qdisc);
        let undone = undone.map_err(place.failed("rid of the tc filter"));
        if let Err(error) = undone.and_then(|_| pin::remove(place.pin())) {
            warn!(%error, "could not undo a failed attachment");
        }
    }
    attached.map(|()| was_there)
}

/// Ensures that there is a qdisc to put a filter on.
fn prepare(
    route: &mut Route,
    place: &Target<'_>,
    before: Pin,
    made_qdisc: &mut bool,
) -> Result<(), Error> {
    let failed = place.failed("given a qdisc");
    if qdiscs(route).map_err(&failed)?.contains_key(&place.index()) {
        return Ok(());
    }
    *made_qdisc = true;
    if !matches!(before, Pin::Link(_)) {
        // Noted before the qdisc is made: an agent that dies right after must know of
        // it.
        pin::mark_filter(place.pin(), true)?;
    }
    match add_qdisc(route, place.index()) {
        // Another tool was faster.
        Err(error) if is(&error, Errno::EXIST) => {
            *made_qdisc = false;
            pin::forget_qdisc(place.pin())
        }
        result => result.map_err(failed),
    }
}

/// Puts the filter on the interface. The outer error is about the instance, the inner
/// one is the kernel's.
fn put(
    route: &mut Route,
    agent: AgentId,
    index: u32,
    instance: &mut Instance,
    made_qdisc: &mut bool,
) -> Result<io::Result<bool>, Error> {
    let program = descriptor(instance)?;
    Ok((|| {
        for attempt in 1.. {
            let there = filters(route, index)?;
            let own: Vec<_> = there
                .iter()
                .filter_map(|filter| filter.own(agent))
                .collect();
            if let [first, surplus @ ..] = &own[..] {
                *made_qdisc |= own.iter().any(|own| own.made_qdisc);
                let name = name(agent, *made_qdisc);
                route.change(&set(index, first.seat, program, name), NLM_F_REPLACE)?;
                for own in surplus {
                    delete(route, index, own.seat)?;
                }
                return Ok(true);
            }
            let seat = Seat::free_among(&there)?;
            let name = name(agent, *made_qdisc);
            let flags = NLM_F_CREATE | NLM_F_EXCL;
            match route.change(&set(index, seat, program, name), flags) {
                // Another tool has taken the place meanwhile, with a filter like this
                // or of another kind.
                Err(error)
                    if attempt < ATTEMPTS
                        && (is(&error, Errno::EXIST) || is(&error, Errno::INVAL)) => {}
                result => return result.map(|()| false),
            }
        }
        Err(io::ErrorKind::QuotaExceeded.into())
    })())
}

/// Makes the agent's filters on the interface run the instance's program from the next
/// packet on. Returns false if there is none.
pub(super) fn replace(
    route: &mut Route,
    agent: AgentId,
    index: u32,
    instance: &mut Instance,
) -> Result<io::Result<bool>, Error> {
    let program = descriptor(instance)?;
    Ok(filters(route, index).and_then(|there| {
        let mut replaced = false;
        for own in there.iter().filter_map(|filter| filter.own(agent)) {
            let name = name(agent, own.made_qdisc);
            route.change(&set(index, own.seat, program, name), NLM_F_REPLACE)?;
            replaced = true;
        }
        Ok(replaced)
    }))
}

/// Removes the agent's filters from the interface, and the qdisc if it was made for
/// them and has no other user. Returns whether there were any filters.
pub(super) fn remove(
    route: &mut Route,
    agent: AgentId,
    index: u32,
    made_qdisc: bool,
) -> io::Result<bool> {
    let Some(kind) = qdiscs(route)?.remove(&index) else {
        return Ok(false);
    };
    let (mut made_qdisc, mut removed) = (made_qdisc, false);
    for own in filters(route, index)?
        .iter()
        .filter_map(|filter| filter.own(agent))
    {
        made_qdisc |= own.made_qdisc;
        delete(route, index, own.seat)?;
        removed = true;
    }
    // A qdisc of another kind was put there since, which isn't the agent's.
    if made_qdisc && kind == INGRESS && filters(route, index)?.is_empty() {
        delete_qdisc(route, index)?;
    }
    Ok(removed)
}

/// Returns the program's descriptor, as its number goes into a message.
fn descriptor(instance: &mut Instance) -> Result<u32, Error> {
    let program = instance.program().fd();
    let program = program.map_err(Error::program("the classifier is not loaded"))?;
    Ok(program.as_fd().as_raw_fd().cast_unsigned())
}
