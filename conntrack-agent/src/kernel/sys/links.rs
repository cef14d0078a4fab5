//! Makes, examines and ends the links that hold programs on interfaces.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use super::{bpf, bpf_descriptor, number};

/// The commands `BPF_OBJ_GET_INFO_BY_FD`, `BPF_PROG_QUERY` and
/// `BPF_LINK_GET_FD_BY_ID` of `enum bpf_cmd`, include/uapi/linux/bpf.h.
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const PROG_QUERY: libc::c_long = 16;
const LINK_GET_FD_BY_ID: libc::c_long = 30;

/// The commands `BPF_LINK_CREATE`, `…_UPDATE` and `…_DETACH` there; for XDP links
/// since Linux 5.9.
const LINK_CREATE: libc::c_long = 28;
const LINK_UPDATE: libc::c_long = 29;
const LINK_DETACH: libc::c_long = 34;

/// The value `BPF_TCX_INGRESS` of `enum bpf_attach_type`,
/// include/uapi/linux/bpf.h.
const TCX_INGRESS: u32 = 46;

/// The most programs that a hook can have: `BPF_MPROG_MAX`,
/// `include/linux/bpf_mprog.h`.
const MOST_PROGRAMS: usize = 64;

/// The `struct { … } query` of `union bpf_attr`, include/uapi/linux/bpf.h.
#[derive(Debug, Default)]
#[repr(C)]
struct Query {
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    /// The number of entries that there is room for; after the call, the number
    /// of programs.
    count: u32,
    padding: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// Returns the ids of the programs on an interface's tcx ingress, first to last,
/// and of the links that put them there (0 for none), in the calling thread's
/// namespace.
///
/// The interface is given by its number: its name may belong to another one by
/// now.
///
/// # Errors
/// ENODEV if no interface has that number (`tcx_prog_query`, kernel/bpf/tcx.c);
/// EINVAL on a kernel without tcx.
pub(in crate::kernel) fn tcx_ingress(interface: u32) -> io::Result<Vec<(u32, u32)>> {
    let mut programs = [0_u32; MOST_PROGRAMS];
    let mut links = [0_u32; MOST_PROGRAMS];
    let mut query = Query {
        target_ifindex: interface,
        attach_type: TCX_INGRESS,
        prog_ids: programs.as_mut_ptr().addr() as u64,
        count: u32::try_from(MOST_PROGRAMS).map_err(io::Error::other)?,
        link_ids: links.as_mut_ptr().addr() as u64,
        ..Query::default()
    };
    // SAFETY: the kernel writes at most `count` numbers of 4 bytes each to
    // `prog_ids` and `link_ids`, which have room for as many and live until it
    // returns (`bpf_mprog_query`, kernel/bpf/mprog.c).
    unsafe { bpf(PROG_QUERY, &mut query) }?;
    let count = usize::try_from(query.count).map_err(io::Error::other)?;
    Ok(programs.into_iter().zip(links).take(count).collect())
}

/// Opens a descriptor of the link with this id. Needs `CAP_SYS_ADMIN`.
///
/// # Errors
/// ENOENT if there is no such link, or if it is being released.
pub(in crate::kernel) fn link_by_id(id: u32) -> io::Result<OwnedFd> {
    // `link_id`, `next_id` and `open_flags` of `union bpf_attr`.
    let mut attributes = [id, 0, 0];
    // SAFETY: the command reads numbers, none of them an address, and returns a
    // descriptor.
    unsafe { bpf_descriptor(LINK_GET_FD_BY_ID, &mut attributes) }
}

/// The `struct { … } info` of `union bpf_attr`.
#[derive(Debug)]
#[repr(C)]
struct Inquiry {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The beginning of `struct bpf_link_info`, with `tcx` of its union, which is
/// aligned to 8 bytes.
#[derive(Debug, Default)]
#[repr(C)]
pub(in crate::kernel) struct LinkInfo {
    pub(in crate::kernel) kind: u32,
    id: u32,
    pub(in crate::kernel) program: u32,
    padding: u32,
    pub(in crate::kernel) interface: u32,
    attach_type: u32,
}

/// Returns the number of the interface that a tcx or XDP link is attached to; 0
/// once the interface is gone or somebody has detached the link
/// (`tcx_link_fill_info`, kernel/bpf/tcx.c; `bpf_xdp_link_fill_link_info`,
/// net/core/dev.c).
///
/// # Errors
/// The error of bpf(2).
pub(in crate::kernel) fn link_interface(link: BorrowedFd<'_>) -> io::Result<u32> {
    link_info(link).map(|info| info.interface)
}

/// Returns the kind of a link, its program, and its interface as
/// [`link_interface`] returns it.
///
/// # Errors
/// The error of bpf(2).
pub(in crate::kernel) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut info = LinkInfo::default();
    let mut inquiry = Inquiry {
        bpf_fd: number(&link),
        info_len: u32::try_from(size_of::<LinkInfo>()).map_err(io::Error::other)?,
        info: (&raw mut info).addr() as u64,
    };
    // SAFETY: the kernel writes at most `info_len` bytes to `info`, which lives
    // until the call returns and in which any bytes are numbers.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut inquiry) }?;
    Ok(info)
}

/// Attaches a program to the interface with this number, in the calling thread's
/// namespace. The link ends when no descriptor and no pin holds it.
///
/// This replaces aya's call: where the kernel says EINVAL, aya goes on to attach
/// by netlink, which no pin would keep.
///
/// # Errors
/// The error of bpf(2).
pub(in crate::kernel) fn make_link(
    program: BorrowedFd<'_>,
    interface: u32,
    attach_type: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    // `prog_fd`, `target_ifindex`, `attach_type` and `flags` of the `struct { … }
    // link_create` of `union bpf_attr`.
    let mut attributes = [number(&program), interface, attach_type, flags];
    // SAFETY: the command reads numbers, none of them an address, and returns a
    // descriptor.
    unsafe { bpf_descriptor(LINK_CREATE, &mut attributes) }
}

/// Makes a link run another program of the same kind, from the next packet on.
///
/// # Errors
/// ENOLINK if the link is on no interface any more (`bpf_xdp_link_update`,
/// net/core/dev.c).
pub(in crate::kernel) fn update_link(link: &impl AsFd, program: BorrowedFd<'_>) -> io::Result<()> {
    // `link_fd`, `new_prog_fd`, `flags` and `old_prog_fd` of the `struct { … }
    // link_update` of `union bpf_attr`.
    let mut attributes = [number(link), number(&program), 0, 0];
    // SAFETY: the command reads numbers, none of them an address.
    unsafe { bpf(LINK_UPDATE, &mut attributes) }.map(drop)
}

/// Detaches a link from its interface, whoever holds it; a detached link stays
/// so.
///
/// # Errors
/// The error of bpf(2).
pub(in crate::kernel) fn detach_link(link: &impl AsFd) -> io::Result<()> {
    // SAFETY: the command reads one number, the link's descriptor.
    unsafe { bpf(LINK_DETACH, &mut number(link)) }.map(drop)
}
