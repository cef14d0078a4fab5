//! System calls that have no safe wrapper: the agent's only unsafe code.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::{
    Pod,
    maps::{Array, IterableMap as _, MapData},
};
use rustix::thread::{UnshareFlags, unshare_unsafe};

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

/// `BPF_MAP_LOOKUP_BATCH` and `BPF_MAP_UPDATE_BATCH` of `enum bpf_cmd`,
/// include/uapi/linux/bpf.h; for array maps since Linux 5.6.
const MAP_LOOKUP_BATCH: libc::c_long = 24;
const MAP_UPDATE_BATCH: libc::c_long = 26;

/// `struct { … } batch` of `union bpf_attr`, include/uapi/linux/bpf.h.
#[derive(Debug)]
#[repr(C)]
struct Elements {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    /// How many elements are asked for; then, how many were done.
    count: u32,
    map_fd: libc::c_int,
    elem_flags: u64,
    flags: u64,
}

/// Every element of a map, by one system call.
///
/// # Errors
/// bpf(2).
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
/// How many were written, and why the next was not: E2BIG for a key that the
/// map doesn't have (`array_map_update_elem`, kernel/bpf/arraymap.c).
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
    written.map_err(|error| (done, error))
}

/// # Safety
/// What `batch` points to must be as the command wants it.
#[expect(unsafe_code, reason = "a system call")]
unsafe fn bpf(command: libc::c_long, batch: &mut Elements) -> io::Result<()> {
    // SAFETY: the third argument is the size of what the second points to; the
    // rest is the caller's promise.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(batch),
            size_of::<Elements>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
