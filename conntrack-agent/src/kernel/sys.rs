//! System calls without a safe wrapper: the agent's only unsafe code.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use aya::{
    Pod,
    maps::{Array, IterableMap as _, MapData},
};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Makes all threads share two heaps. By default glibc gives each thread its own,
/// and the others can't use what one has freed. With 10,000 rules the agent had
/// 69 MiB after three reloads, and has 41 (Linux 6.18, glibc 2.36). Large blocks
/// are also kept out of the heaps, and returned when they are freed: by default
/// glibc does that only until the first is freed, so that a heap keeps the size
/// of the longest answer ever.
///
/// Must be called before there is a second thread. Returns whether it took
/// effect.
pub(crate) fn share_heaps() -> bool {
    #[cfg(target_env = "gnu")]
    {
        const HEAPS: libc::c_int = 2;
        /// The default of glibc, in bytes, until glibc changes it.
        const LARGE: libc::c_int = 128 << 10;
        let set = |what, to| {
            // SAFETY: mallopt(3) sets one number, which is read when a thread
            // allocates; there is no other thread to race with.
            #[expect(unsafe_code, reason = "the call has no safe form")]
            let done = unsafe { libc::mallopt(what, to) };
            done == 1
        };
        set(libc::M_ARENA_MAX, HEAPS) && set(libc::M_MMAP_THRESHOLD, LARGE)
    }
    #[cfg(not(target_env = "gnu"))]
    false
}

/// Moves the calling thread into a network namespace of its own.
///
/// # Errors
/// EPERM without `CAP_SYS_ADMIN` (unshare(2)).
pub(super) fn unshare_network() -> io::Result<()> {
    // SAFETY: unshare is unsafe because CLONE_FILES would give the thread
    // another descriptor table than the one that owned descriptors are in;
    // CLONE_NEWNET touches no descriptor.
    #[expect(unsafe_code, reason = "the call has no safe form")]
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
    Ok(())
}

/// The commands `BPF_MAP_LOOKUP_BATCH` and `BPF_MAP_UPDATE_BATCH` of `enum
/// bpf_cmd`, include/uapi/linux/bpf.h; for array maps since Linux 5.6.
const MAP_LOOKUP_BATCH: libc::c_long = 24;
const MAP_UPDATE_BATCH: libc::c_long = 26;

/// The `struct { … } batch` of `union bpf_attr`, include/uapi/linux/bpf.h.
#[derive(Debug)]
#[repr(C)]
struct Elements {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    /// The number of elements asked for; after the call, the number done.
    count: u32,
    map_fd: libc::c_int,
    elem_flags: u64,
    flags: u64,
}

/// Returns every element of a map, by one system call.
///
/// # Errors
/// The error of bpf(2).
pub(super) fn read_all<V: Pod>(map: &Array<MapData, V>) -> io::Result<Vec<V>> {
    let count = usize::try_from(map.len()).map_err(io::Error::other)?;
    let mut keys = vec![0_u32; count];
    let mut values = Vec::<V>::with_capacity(count);
    let mut cursor = 0_u32;
    let mut batch = Elements {
        in_batch: 0,
        out_batch: (&raw mut cursor).addr() as u64,
        keys: keys.as_mut_ptr().addr() as u64,
        values: values.as_mut_ptr().addr() as u64,
        count: map.len(),
        map_fd: map.map().fd().as_fd().as_raw_fd(),
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: `Array` has made sure that the map's keys are 4 bytes long and its
    // values as long as a `V`. The kernel writes at most `count` of each, into
    // buffers of `count`, and one key to `out_batch`; all live until it returns.
    #[expect(unsafe_code, reason = "the call has no safe form")]
    unsafe { bpf(MAP_LOOKUP_BATCH, &mut batch) }?;
    if usize::try_from(batch.count) != Ok(count) {
        return Err(io::Error::other("fewer elements than the map has"));
    }
    // SAFETY: the kernel has written all `count` values, and any bytes are a `V`,
    // as it is `Pod`.
    #[expect(unsafe_code, reason = "the kernel has filled it")]
    unsafe {
        values.set_len(count);
    }
    Ok(values)
}

/// Writes elements of a map by one system call, in their order.
///
/// # Errors
/// The number of elements written, and the error of the next: E2BIG for a key
/// that the map doesn't have (`array_map_update_elem`, kernel/bpf/arraymap.c).
pub(super) fn write_batch<V: Pod>(
    map: &mut Array<MapData, V>,
    keys: &[u32],
    values: &[V],
) -> Result<(), (usize, io::Error)> {
    let elements = keys.len().min(values.len());
    let mut batch = Elements {
        in_batch: 0,
        out_batch: 0,
        keys: keys.as_ptr().addr() as u64,
        values: values.as_ptr().addr() as u64,
        count: u32::try_from(elements).map_err(|error| (0, io::Error::other(error)))?,
        map_fd: map.map().fd().as_fd().as_raw_fd(),
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: `Array` has made sure that the map's keys are 4 bytes long and its
    // values as long as a `V`. The kernel reads `count` of each, from buffers
    // that have as many and live until it returns.
    #[expect(unsafe_code, reason = "the call has no safe form")]
    let written = unsafe { bpf(MAP_UPDATE_BATCH, &mut batch) };
    let done = usize::try_from(batch.count).unwrap_or(0).min(elements);
    written.map(|_| ()).map_err(|error| (done, error))
}

/// The commands `BPF_OBJ_PIN`, `BPF_OBJ_GET`, `BPF_OBJ_GET_INFO_BY_FD`,
/// `BPF_PROG_QUERY` and `BPF_LINK_GET_FD_BY_ID` of `enum bpf_cmd`,
/// include/uapi/linux/bpf.h.
const OBJ_PIN: libc::c_long = 6;
const OBJ_GET: libc::c_long = 7;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const PROG_QUERY: libc::c_long = 16;
const LINK_GET_FD_BY_ID: libc::c_long = 30;

/// The commands `BPF_LINK_CREATE`, `…_UPDATE` and `…_DETACH` there; for XDP links
/// since Linux 5.9.
const LINK_CREATE: libc::c_long = 28;
const LINK_UPDATE: libc::c_long = 29;
const LINK_DETACH: libc::c_long = 34;

/// The values `BPF_XDP` of `enum bpf_attach_type` and `BPF_LINK_TYPE_XDP` of
/// `enum bpf_link_type`, include/uapi/linux/bpf.h.
const XDP: u32 = 37;
const LINK_TYPE_XDP: u32 = 6;

/// The value `BPF_TCX_INGRESS` of `enum bpf_attach_type`,
/// include/uapi/linux/bpf.h.
const TCX_INGRESS: u32 = 46;

/// The most programs that a hook can have: `BPF_MPROG_MAX`,
/// `include/linux/bpf_mprog.h`.
const MOST_PROGRAMS: usize = 64;

/// The `struct { … } query` of `union bpf_attr`, include/uapi/linux/bpf.h.
#[derive(Debug)]
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
pub(super) fn tcx_ingress(interface: u32) -> io::Result<Vec<(u32, u32)>> {
    let mut programs = [0_u32; MOST_PROGRAMS];
    let mut links = [0_u32; MOST_PROGRAMS];
    let mut query = Query {
        target_ifindex: interface,
        attach_type: TCX_INGRESS,
        flags: 0,
        attach_flags: 0,
        prog_ids: programs.as_mut_ptr().addr() as u64,
        count: u32::try_from(MOST_PROGRAMS).map_err(io::Error::other)?,
        padding: 0,
        prog_attach_flags: 0,
        link_ids: links.as_mut_ptr().addr() as u64,
        link_attach_flags: 0,
        revision: 0,
    };
    // SAFETY: the kernel writes at most `count` numbers of 4 bytes each to
    // `prog_ids` and `link_ids`, which have room for as many and live until it
    // returns (`bpf_mprog_query`, kernel/bpf/mprog.c).
    #[expect(unsafe_code, reason = "the call has no safe form")]
    unsafe { bpf(PROG_QUERY, &mut query) }?;
    let count = usize::try_from(query.count).map_err(io::Error::other)?;
    Ok(programs.into_iter().zip(links).take(count).collect())
}

/// Opens a descriptor of the link with this id. Needs `CAP_SYS_ADMIN`.
///
/// # Errors
/// ENOENT if there is no such link, or if it is being released.
pub(super) fn link_by_id(id: u32) -> io::Result<OwnedFd> {
    /// The fields `link_id` … `open_flags` of `union bpf_attr`.
    #[repr(C)]
    struct ById {
        id: u32,
        next_id: u32,
        open_flags: u32,
    }
    let mut attributes = ById {
        id,
        next_id: 0,
        open_flags: 0,
    };
    // SAFETY: the command reads the id alone; there is no pointer.
    #[expect(unsafe_code, reason = "the call has no safe form")]
    let descriptor = unsafe { bpf(LINK_GET_FD_BY_ID, &mut attributes) }?;
    // SAFETY: the kernel has just made it for this call's result.
    #[expect(unsafe_code, reason = "a system call's result")]
    let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
    Ok(descriptor)
}

/// The fields of `union bpf_attr` that `BPF_OBJ_*` commands read.
#[derive(Debug)]
#[repr(C)]
struct ObjAttr {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Opens the object pinned at a path.
///
/// # Errors
/// The error of bpf(2).
pub(super) fn open_pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut place = ObjAttr {
        pathname: path.as_ptr().addr() as u64,
        bpf_fd: 0,
        file_flags: 0,
    };
    // SAFETY: the path is a C string that lives until the call returns.
    #[expect(unsafe_code, reason = "the call has no safe form")]
    let opened = unsafe { bpf(OBJ_GET, &mut place) }?;
    // SAFETY: the kernel has just made this descriptor, and it has no other
    // owner.
    #[expect(unsafe_code, reason = "bpf(2) returns a bare descriptor")]
    let opened = unsafe { OwnedFd::from_raw_fd(opened) };
    Ok(opened)
}

/// Pins the object of a descriptor.
///
/// # Errors
/// The error of bpf(2): EEXIST if there is something at `path`.
pub(super) fn pin(descriptor: &impl AsFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut place = ObjAttr {
        pathname: path.as_ptr().addr() as u64,
        bpf_fd: descriptor.as_fd().as_raw_fd().cast_unsigned(),
        file_flags: 0,
    };
    // SAFETY: `path` ends with a NUL and lives until the kernel returns.
    #[expect(unsafe_code, reason = "the call has no safe form")]
    unsafe { bpf(OBJ_PIN, &mut place) }?;
    Ok(())
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
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    padding: u32,
    interface: u32,
    attach_type: u32,
}

/// Returns the number of the interface that a tcx or XDP link is attached to; 0
/// once the interface is gone or somebody has detached the link
/// (`tcx_link_fill_info`, kernel/bpf/tcx.c; `bpf_xdp_link_fill_link_info`,
/// net/core/dev.c).
///
/// # Errors
/// The error of bpf(2).
pub(super) fn link_interface(link: BorrowedFd<'_>) -> io::Result<u32> {
    link_info(link).map(|info| info.interface)
}

/// Returns the id of the program that an XDP link runs, and the number of its
/// interface as [`link_interface`] returns it, or `None` for a link of another
/// kind.
///
/// # Errors
/// The error of bpf(2).
pub(super) fn xdp_link(link: BorrowedFd<'_>) -> io::Result<Option<(u32, u32)>> {
    let info = link_info(link)?;
    Ok((info.kind == LINK_TYPE_XDP).then_some((info.program, info.interface)))
}

fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut info = LinkInfo::default();
    let mut inquiry = Inquiry {
        bpf_fd: link.as_raw_fd().cast_unsigned(),
        info_len: u32::try_from(size_of::<LinkInfo>()).map_err(io::Error::other)?,
        info: (&raw mut info).addr() as u64,
    };
    // SAFETY: the kernel writes at most `info_len` bytes to `info`, which lives
    // until the call returns and in which any bytes are numbers.
    #[expect(unsafe_code, reason = "the call has no safe form")]
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut inquiry) }?;
    Ok(info)
}

/// Attaches an XDP program to the interface with this number, in the calling
/// thread's namespace; `flags` give the mode. The link ends when no descriptor
/// and no pin holds it.
///
/// This replaces aya's call: where the kernel says EINVAL, aya goes on to attach
/// by netlink, which no pin would keep.
///
/// # Errors
/// EBUSY if there is a program already; EEXIST if there is one in another mode,
/// or on an interface above it; the driver's error (`dev_xdp_attach`,
/// net/core/dev.c). EINVAL if there is no such interface.
pub(super) fn make_xdp_link(
    program: BorrowedFd<'_>,
    interface: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    /// The beginning of `struct { … } link_create` of `union bpf_attr`.
    #[repr(C)]
    struct Create {
        program: u32,
        interface: u32,
        attach_type: u32,
        flags: u32,
    }
    let mut attributes = Create {
        program: program.as_raw_fd().cast_unsigned(),
        interface,
        attach_type: XDP,
        flags,
    };
    // SAFETY: four numbers, none of them an address.
    #[expect(unsafe_code, reason = "the call has no safe form")]
    let link = unsafe { bpf(LINK_CREATE, &mut attributes) }?;
    // SAFETY: the kernel has just made this descriptor, and it has no other
    // owner.
    #[expect(unsafe_code, reason = "bpf(2) returns a bare descriptor")]
    let link = unsafe { OwnedFd::from_raw_fd(link) };
    Ok(link)
}

/// Makes a link run another program of the same kind, from the next packet on.
///
/// # Errors
/// ENOLINK if the link is on no interface any more (`bpf_xdp_link_update`,
/// net/core/dev.c).
pub(super) fn update_link(link: &impl AsFd, program: BorrowedFd<'_>) -> io::Result<()> {
    /// The `struct { … } link_update` of `union bpf_attr`.
    #[repr(C)]
    struct LinkUpdateAttr {
        link: u32,
        program: u32,
        flags: u32,
        old_program: u32,
    }
    let mut attributes = LinkUpdateAttr {
        link: link.as_fd().as_raw_fd().cast_unsigned(),
        program: program.as_raw_fd().cast_unsigned(),
        flags: 0,
        old_program: 0,
    };
    // SAFETY: four numbers, none of them an address.
    #[expect(unsafe_code, reason = "the call has no safe form")]
    unsafe { bpf(LINK_UPDATE, &mut attributes) }?;
    Ok(())
}

/// Detaches a link from its interface, whoever holds it; a detached link stays
/// so.
///
/// # Errors
/// The error of bpf(2).
pub(super) fn detach_link(link: &impl AsFd) -> io::Result<()> {
    let mut attributes = link.as_fd().as_raw_fd().cast_unsigned();
    // SAFETY: the command reads one number, the link's descriptor.
    #[expect(unsafe_code, reason = "the call has no safe form")]
    unsafe { bpf(LINK_DETACH, &mut attributes) }?;
    Ok(())
}

/// Makes a bpf(2) call. Returns its result: 0, or a new descriptor.
///
/// # Safety
/// The memory that `attributes` points to must be as the command requires.
#[expect(unsafe_code, reason = "a system call")]
unsafe fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<libc::c_int> {
    // SAFETY: the third argument is the size of what the second points to; the
    // rest is the caller's promise.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    libc::c_int::try_from(result).map_err(io::Error::other)
}
