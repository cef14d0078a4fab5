//! By a tc filter (tc-bpf(8), net/sched/cls_bpf.c): kept by its interface, and
//! gone with it, or when it moves to another namespace (`dev_shutdown` in
//! `__dev_change_net_namespace`, net/core/dev.c).
//!
//! A filter's name is the agent's to choose, so it carries the agent's id, as
//! the binding's table does. The program is in direct action: what it returns,
//! -1, is `TC_ACT_UNSPEC` here and hands the packet to the next filter.
//!
//! The qdisc that the agent makes is `ingress` and not `clsact`: an interface
//! can have one of both, the filters are the same, and Neutron's limits for
//! floating IPs want `ingress` and fail on the other. Whichever is there is
//! used. For the same reason priority 1 is left alone: Neutron's filters are
//! there, and one priority takes filters of one protocol and kind only.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::{AsFd as _, AsRawFd as _},
};

use netlink_packet_core::{
    DecodeError, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, parse_string, parse_u32,
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{
        TcAttribute, TcBpfFlags, TcFilterBpfOption, TcHandle, TcHeader, TcMessage, TcOption,
        TcU32OptionFlags,
    },
};
use rustix::io::Errno;
use tracing::warn;

use super::{Error, Instance, Pin, Place, pin};
use crate::kernel::{
    AgentId,
    netlink::{Route, attribute, is},
};

/// `TCA_KIND` and `TCA_OPTIONS`, include/uapi/linux/rtnetlink.h.
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;

/// `TCA_BPF_NAME` and `TCA_BPF_ID`, include/uapi/linux/pkt_cls.h.
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_ID: u16 = 11;

/// `struct tcmsg`, include/uapi/linux/rtnetlink.h.
const HEADER: usize = 20;

/// `ETH_P_ALL`, include/uapi/linux/if_ether.h.
const ALL_PROTOCOLS: u16 = 3;

/// The kind of the qdisc that the agent makes.
const INGRESS: &str = "ingress";

/// Of the ingress side, on either kind of qdisc.
const PARENT: TcHandle = TcHandle {
    major: u16::MAX,
    minor: TcHandle::MIN_INGRESS,
};
/// The qdisc itself.
const QDISC: TcHandle = TcHandle {
    major: u16::MAX,
    minor: 0,
};

/// Of its own in its priority, so any will do.
const HANDLE: TcHandle = TcHandle { major: 0, minor: 1 };

/// What a filter's name ends with whose qdisc was made for it.
const MADE_QDISC: &str = "+qdisc";

/// How often a place is looked for that another takes meanwhile.
const ATTEMPTS: usize = 4;

/// A filter of anybody's.
struct Filter {
    place: FilterPlace,
    /// Of a bpf filter.
    name: Option<String>,
    program: Option<u32>,
}

#[derive(Clone, Copy)]
struct FilterPlace {
    priority: u16,
    handle: TcHandle,
    info: u32,
}

/// A filter of this agent's.
struct Own {
    place: FilterPlace,
    program: u32,
    made_qdisc: bool,
}

impl Filter {
    fn own(&self, agent: AgentId) -> Option<Own> {
        let rest = self.name.as_ref()?.strip_prefix(&name(agent, false))?;
        Some(Own {
            place: self.place,
            program: self.program?,
            made_qdisc: match rest {
                "" => false,
                MADE_QDISC => true,
                _ => return None,
            },
        })
    }
}

fn name(agent: AgentId, made_qdisc: bool) -> String {
    let end = if made_qdisc { MADE_QDISC } else { "" };
    format!("conntrack-agent-{agent}{end}")
}

/// Which interfaces have a qdisc for what comes in, and of which kind.
pub(super) fn qdiscs(route: &mut Route) -> io::Result<BTreeMap<u32, String>> {
    let ask = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
    let found = route.dump(&ask, |qdisc| {
        let (header, attributes) = split(qdisc)?;
        if header.parent != TcHandle::INGRESS {
            return Ok(None);
        }
        let kind = attribute(attributes, TCA_KIND)?.map(parse_string);
        let kind = kind.transpose()?.unwrap_or_default();
        Ok(Some((header.index.cast_unsigned(), kind)))
    })?;
    Ok(found.into_iter().collect())
}

/// The programs that this agent's filters run on an interface with a qdisc.
pub(super) fn programs_of(
    route: &mut Route,
    agent: AgentId,
    interface: u32,
) -> io::Result<Vec<u32>> {
    let filters = filters(route, interface)?;
    let own = filters.iter().filter_map(|filter| filter.own(agent));
    Ok(own.map(|own| own.program).collect())
}

/// Gives the agent's filter on the interface the instance's program, or makes
/// one. Returns whether something of the agent's ran there already.
///
/// Named by the interface's number, as all of this. Where it fails, nothing of
/// what it made stays.
pub(super) fn attach(
    route: &mut Route,
    agent: AgentId,
    place: &Place<'_>,
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
            // A link that was there goes now that the filter is.
            pin::remove_link(place.pin())?;
        }
        pin::mark_filter(place.pin(), made_qdisc)
    });
    if attached.is_err() && !was_there {
        // The first error is the one to tell.
        let undone = remove(route, agent, index, made_qdisc);
        let undone = undone.map_err(place.failed("rid of the tc filter"));
        if let Err(error) = undone.and_then(|_| pin::remove(place.pin())) {
            warn!(%error, "could not undo a failed attachment");
        }
    }
    attached.map(|()| was_there)
}

/// Sees to it that there is a qdisc to put a filter on.
fn prepare(
    route: &mut Route,
    place: &Place<'_>,
    before: Pin,
    made_qdisc: &mut bool,
) -> Result<(), Error> {
    let failed = place.failed("given a qdisc");
    if qdiscs(route).map_err(&failed)?.contains_key(&place.index()) {
        return Ok(());
    }
    *made_qdisc = true;
    if !matches!(before, Pin::Link(_)) {
        // Before it is made: an agent that dies right after must know.
        pin::mark_filter(place.pin(), true)?;
    }
    match add_qdisc(route, place.index()) {
        // Somebody else was faster.
        Err(error) if is(&error, Errno::EXIST) => {
            *made_qdisc = false;
            pin::forget_qdisc(place.pin())
        }
        result => result.map_err(failed),
    }
}

/// The filter itself: the outer error is about the instance, the inner one the
/// kernel's.
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
                route.change(&set(index, first.place, program, name), NLM_F_REPLACE)?;
                for own in surplus {
                    delete(route, index, own.place)?;
                }
                return Ok(true);
            }
            let place = FilterPlace::free_among(&there)?;
            let name = name(agent, *made_qdisc);
            let flags = NLM_F_CREATE | NLM_F_EXCL;
            match route.change(&set(index, place, program, name), flags) {
                // Another has taken the place meanwhile, with a filter like
                // this or of another kind.
                Err(error)
                    if attempt < ATTEMPTS
                        && (is(&error, Errno::EXIST) || is(&error, Errno::INVAL)) => {}
                result => return result.map(|()| false),
            }
        }
        Err(io::ErrorKind::QuotaExceeded.into())
    })())
}

/// Lets the agent's filters on the interface run the instance's program from
/// the next packet on. Returns false if there is none.
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
            route.change(&set(index, own.place, program, name), NLM_F_REPLACE)?;
            replaced = true;
        }
        Ok(replaced)
    }))
}

/// Removes the agent's filters from the interface, and the qdisc if it was
/// made for them and nobody else uses it. Returns whether there were any.
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
        delete(route, index, own.place)?;
        removed = true;
    }
    // Another kind was put there since: another's.
    if made_qdisc && kind == INGRESS && filters(route, index)?.is_empty() {
        delete_qdisc(route, index)?;
    }
    Ok(removed)
}

fn filters(route: &mut Route, index: u32) -> io::Result<Vec<Filter>> {
    let header = TcHeader {
        index: index.cast_signed(),
        parent: PARENT,
        ..TcHeader::default()
    };
    let ask = TcMessage::from_parts(header, Vec::new());
    route.dump(&RouteNetlinkMessage::GetTrafficFilter(ask), |filter| {
        read(filter).map(Some)
    })
}

fn read(filter: &[u8]) -> Result<Filter, DecodeError> {
    let (header, attributes) = split(filter)?;
    let mut read = Filter {
        place: FilterPlace {
            priority: u16::try_from(header.info >> 16).unwrap_or_default(),
            handle: header.handle,
            info: header.info,
        },
        name: None,
        program: None,
    };
    // Another's may be of any shape; only ours has to be understood.
    let is_bpf = attribute(attributes, TCA_KIND)?.is_some_and(|kind| kind == b"bpf\0");
    if is_bpf && let Some(options) = attribute(attributes, TCA_OPTIONS)? {
        let name = attribute(options, TCA_BPF_NAME)?;
        read.name = name.and_then(|name| parse_string(name).ok());
        read.program = attribute(options, TCA_BPF_ID)?.map(parse_u32).transpose()?;
    }
    Ok(read)
}

fn split(message: &[u8]) -> Result<(TcHeader, &[u8]), DecodeError> {
    let header = TcHeader::parse(message)?;
    Ok((header, message.get(HEADER..).unwrap_or_default()))
}

impl FilterPlace {
    /// In front of as many as may be, but not where anybody's filter is.
    fn free_among(there: &[Filter]) -> io::Result<Self> {
        let taken: BTreeSet<_> = there.iter().map(|filter| filter.place.priority).collect();
        let priority = (2..=u16::MAX).find(|priority| !taken.contains(priority));
        let priority = priority.ok_or(io::ErrorKind::QuotaExceeded)?;
        Ok(Self {
            priority,
            handle: HANDLE,
            info: u32::from(priority) << 16 | u32::from(ALL_PROTOCOLS.to_be()),
        })
    }
}

fn set(index: u32, place: FilterPlace, program: u32, name: String) -> RouteNetlinkMessage {
    let options = [
        TcFilterBpfOption::ProgFd(program),
        TcFilterBpfOption::ProgName(name),
        TcFilterBpfOption::Flags(TcBpfFlags::DirectAction),
        // No card shall be asked to run it: the mark would be lost.
        TcFilterBpfOption::FlagsGeneric(TcU32OptionFlags::SkipHw),
    ];
    let attributes = vec![
        TcAttribute::Kind("bpf".into()),
        TcAttribute::Options(options.into_iter().map(TcOption::Bpf).collect()),
    ];
    RouteNetlinkMessage::NewTrafficFilter(TcMessage::from_parts(
        filter_header(index, place),
        attributes,
    ))
}

fn delete(route: &mut Route, index: u32, place: FilterPlace) -> io::Result<()> {
    let message = TcMessage::from_parts(filter_header(index, place), Vec::new());
    gone_is_fine(route.change(&RouteNetlinkMessage::DelTrafficFilter(message), 0))
}

fn filter_header(index: u32, place: FilterPlace) -> TcHeader {
    TcHeader {
        index: index.cast_signed(),
        handle: place.handle,
        parent: PARENT,
        info: place.info,
        ..TcHeader::default()
    }
}

fn add_qdisc(route: &mut Route, index: u32) -> io::Result<()> {
    let message = RouteNetlinkMessage::NewQueueDiscipline(qdisc(index));
    route.change(&message, NLM_F_CREATE | NLM_F_EXCL)
}

fn delete_qdisc(route: &mut Route, index: u32) -> io::Result<()> {
    let message = RouteNetlinkMessage::DelQueueDiscipline(qdisc(index));
    match route.change(&message, 0) {
        // Another kind was put there meanwhile: another's.
        Err(error) if is(&error, Errno::INVAL) => Ok(()),
        result => gone_is_fine(result),
    }
}

fn qdisc(index: u32) -> TcMessage {
    let header = TcHeader {
        index: index.cast_signed(),
        handle: QDISC,
        parent: TcHandle::INGRESS,
        ..TcHeader::default()
    };
    TcMessage::from_parts(header, vec![TcAttribute::Kind(INGRESS.into())])
}

fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if is(&error, Errno::NOENT) || is(&error, Errno::NODEV) => Ok(()),
        result => result,
    }
}

/// The program's descriptor, as its number goes into a message.
fn descriptor(instance: &mut Instance) -> Result<u32, Error> {
    let program = instance.program().fd();
    let program = program.map_err(Error::program("the classifier is not loaded"))?;
    Ok(program.as_fd().as_raw_fd().cast_unsigned())
}
