//! Lists tc filters and qdiscs of the ingress side by rtnetlink.
//!
//! A filter's name is the agent's to choose, so it carries the agent's id, as
//! the binding's table does.
//!
//! The qdisc that the agent makes is `ingress` and not `clsact`: an interface
//! can have only one of the two, both have the same filters, and Neutron's
//! limits for floating IPs want `ingress` and fail on the other. An existing
//! qdisc of either kind is used. For the same reason priority 1 is left alone:
//! Neutron's filters are there, and one priority takes only filters of one
//! protocol and kind.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use netlink_packet_core::{DecodeError, NLM_F_CREATE, NLM_F_EXCL, parse_string, parse_u32};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{
        TcAttribute, TcBpfFlags, TcFilterBpfOption, TcHandle, TcHeader, TcMessage, TcOption,
        TcU32OptionFlags,
    },
};
use rustix::io::Errno;

use crate::kernel::{
    AgentId,
    netlink::{Route, attribute, is},
};

/// The attributes `TCA_KIND` and `TCA_OPTIONS`, include/uapi/linux/rtnetlink.h.
pub(in crate::kernel) const TCA_KIND: u16 = 1;
pub(in crate::kernel) const TCA_OPTIONS: u16 = 2;

/// The attributes `TCA_BPF_NAME` and `TCA_BPF_ID`,
/// `include/uapi/linux/pkt_cls.h`.
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_ID: u16 = 11;

/// The size of `struct tcmsg`, include/uapi/linux/rtnetlink.h.
const HEADER: usize = 20;

/// The protocol `ETH_P_ALL`, `include/uapi/linux/if_ether.h`.
const ALL_PROTOCOLS: u16 = 3;

/// The kind of the qdisc that the agent makes.
pub(super) const INGRESS: &str = "ingress";

/// The kind of filters that run a program.
const BPF: &str = "bpf";

/// The parent of ingress filters, on either kind of qdisc.
const PARENT: TcHandle = TcHandle {
    major: u16::MAX,
    minor: TcHandle::MIN_INGRESS,
};
/// The handle of the qdisc itself.
const QDISC: TcHandle = TcHandle {
    major: u16::MAX,
    minor: 0,
};

/// The handle of the agent's filter. It is alone in its priority, so any handle
/// will do.
const HANDLE: TcHandle = TcHandle { major: 0, minor: 1 };

/// The suffix in the name of a filter whose qdisc was made for it.
const MADE_QDISC: &str = "+qdisc";

/// A filter, whoever its owner is.
pub(super) struct Filter {
    seat: Seat,
    kind: String,
    /// The name of a bpf filter.
    name: Option<String>,
    program: Option<u32>,
}

#[derive(Clone, Copy)]
pub(super) struct Seat {
    priority: u16,
    handle: TcHandle,
    info: u32,
}

/// A filter that belongs to this agent.
pub(super) struct Own {
    pub(super) seat: Seat,
    program: u32,
    pub(super) made_qdisc: bool,
}

impl Filter {
    /// Returns the kernel's id of the program that it runs, whoever the
    /// program's owner is, or `None` if it is no bpf filter.
    pub(super) const fn program(&self) -> Option<u32> {
        self.program
    }

    /// Returns the filter's kind, such as `u32`.
    pub(super) fn kind(&self) -> &str {
        &self.kind
    }

    /// Returns whether it can get packets. The kernel also lists each kind and
    /// priority by itself, before its filters (`tcf_chain_dump`,
    /// `net/sched/cls_api.c`). For bpf this entry is no filter. For other kinds
    /// it holds all that is needed.
    pub(super) fn is_met(&self) -> bool {
        self.kind != BPF || self.seat.handle != TcHandle::default()
    }

    pub(super) fn own(&self, agent: AgentId) -> Option<Own> {
        let rest = self.name.as_ref()?.strip_prefix(&name(agent, false))?;
        Some(Own {
            seat: self.seat,
            program: self.program?,
            made_qdisc: match rest {
                "" => false,
                MADE_QDISC => true,
                _ => return None,
            },
        })
    }
}

pub(super) fn name(agent: AgentId, made_qdisc: bool) -> String {
    let end = if made_qdisc { MADE_QDISC } else { "" };
    format!("conntrack-agent-{agent}{end}")
}

/// Returns the interfaces that have a qdisc for ingress, with its kind.
pub(in crate::kernel) fn qdiscs(route: &mut Route) -> io::Result<BTreeMap<u32, String>> {
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

/// Returns the programs that this agent's filters run on an interface with a
/// qdisc.
pub(super) fn programs_of(
    route: &mut Route,
    agent: AgentId,
    interface: u32,
) -> io::Result<Vec<u32>> {
    let filters = filters(route, interface)?;
    let own = filters.iter().filter_map(|filter| filter.own(agent));
    Ok(own.map(|own| own.program).collect())
}

pub(super) fn filters(route: &mut Route, index: u32) -> io::Result<Vec<Filter>> {
    filters_as(route, index, read)
}

/// Returns the filters on an interface with a qdisc, as `read` understands the
/// messages' payload.
pub(in crate::kernel) fn filters_as<T>(
    route: &mut Route,
    index: u32,
    mut read: impl FnMut(&[u8]) -> Result<T, DecodeError>,
) -> io::Result<Vec<T>> {
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
        seat: Seat {
            priority: u16::try_from(header.info >> 16).unwrap_or_default(),
            handle: header.handle,
            info: header.info,
        },
        kind: String::new(),
        name: None,
        program: None,
    };
    // Filters of others may have any shape; only ours has to be understood.
    let kind = attribute(attributes, TCA_KIND)?.and_then(|kind| parse_string(kind).ok());
    read.kind = kind.unwrap_or_default();
    if read.kind == BPF
        && let Some(options) = attribute(attributes, TCA_OPTIONS)?
    {
        let name = attribute(options, TCA_BPF_NAME)?;
        read.name = name.and_then(|name| parse_string(name).ok());
        read.program = attribute(options, TCA_BPF_ID)?.map(parse_u32).transpose()?;
    }
    Ok(read)
}

pub(in crate::kernel) fn split(message: &[u8]) -> Result<(TcHeader, &[u8]), DecodeError> {
    let header = TcHeader::parse(message)?;
    Ok((header, message.get(HEADER..).unwrap_or_default()))
}

impl Seat {
    /// Returns the first priority without a filter, in front of as many filters
    /// as possible.
    pub(super) fn free_among(there: &[Filter]) -> io::Result<Self> {
        let taken: BTreeSet<_> = there.iter().map(|filter| filter.seat.priority).collect();
        let priority = (2..=u16::MAX).find(|priority| !taken.contains(priority));
        let priority = priority.ok_or(io::ErrorKind::QuotaExceeded)?;
        Ok(Self {
            priority,
            handle: HANDLE,
            info: u32::from(priority) << 16 | u32::from(ALL_PROTOCOLS.to_be()),
        })
    }
}

pub(super) fn set(index: u32, seat: Seat, program: u32, name: String) -> RouteNetlinkMessage {
    let options = [
        TcFilterBpfOption::ProgFd(program),
        TcFilterBpfOption::ProgName(name),
        TcFilterBpfOption::Flags(TcBpfFlags::DirectAction),
        // A card must not run the program: the mark would be lost.
        TcFilterBpfOption::FlagsGeneric(TcU32OptionFlags::SkipHw),
    ];
    let attributes = vec![
        TcAttribute::Kind(BPF.into()),
        TcAttribute::Options(options.into_iter().map(TcOption::Bpf).collect()),
    ];
    RouteNetlinkMessage::NewTrafficFilter(TcMessage::from_parts(
        filter_header(index, seat),
        attributes,
    ))
}

pub(super) fn delete(route: &mut Route, index: u32, seat: Seat) -> io::Result<()> {
    let message = TcMessage::from_parts(filter_header(index, seat), Vec::new());
    gone_is_fine(route.change(&RouteNetlinkMessage::DelTrafficFilter(message), 0))
}

fn filter_header(index: u32, seat: Seat) -> TcHeader {
    TcHeader {
        index: index.cast_signed(),
        handle: seat.handle,
        parent: PARENT,
        info: seat.info,
        ..TcHeader::default()
    }
}

pub(super) fn add_qdisc(route: &mut Route, index: u32) -> io::Result<()> {
    let message = RouteNetlinkMessage::NewQueueDiscipline(qdisc(index));
    route.change(&message, NLM_F_CREATE | NLM_F_EXCL)
}

pub(super) fn delete_qdisc(route: &mut Route, index: u32) -> io::Result<()> {
    let message = RouteNetlinkMessage::DelQueueDiscipline(qdisc(index));
    match route.change(&message, 0) {
        // A qdisc of another kind was put there meanwhile, which isn't the
        // agent's.
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
