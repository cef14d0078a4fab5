//! Reads and writes many elements of a map by one system call.

use std::io;

use aya::{
    Pod,
    maps::{Array, IterableMap as _, MapData},
};

use super::{bpf, number};

/// The commands `BPF_MAP_LOOKUP_BATCH` and `BPF_MAP_UPDATE_BATCH` of `enum
/// bpf_cmd`, include/uapi/linux/bpf.h; for array maps since Linux 5.6.
const MAP_LOOKUP_BATCH: libc::c_long = 24;
const MAP_UPDATE_BATCH: libc::c_long = 26;

/// The `struct { … } batch` of `union bpf_attr`, include/uapi/linux/bpf.h.
#[derive(Debug, Default)]
#[repr(C)]
struct Elements {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    /// The number of elements asked for; after the call, the number done.
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Returns every element of a map, by one system call.
///
/// # Errors
/// The error of bpf(2).
pub(in crate::kernel) fn read_all<V: Pod>(map: &Array<MapData, V>) -> io::Result<Vec<V>> {
    let count = usize::try_from(map.len()).map_err(io::Error::other)?;
    let mut keys = vec![0_u32; count];
    let mut values = Vec::<V>::with_capacity(count);
    let mut cursor = 0_u32;
    let mut batch = Elements {
        out_batch: (&raw mut cursor).addr() as u64,
        keys: keys.as_mut_ptr().addr() as u64,
        values: values.as_mut_ptr().addr() as u64,
        count: map.len(),
        map_fd: number(map.map().fd()),
        ..Elements::default()
    };
    // SAFETY: `Array` has made sure that the map's keys are 4 bytes long and its
    // values as long as a `V`. The kernel writes at most `count` of each, into
    // buffers of `count`, and one key to `out_batch`; all live until it returns.
    unsafe { bpf(MAP_LOOKUP_BATCH, &mut batch) }?;
    if usize::try_from(batch.count) != Ok(count) {
        return Err(io::Error::other("fewer elements than the map has"));
    }
    // SAFETY: the kernel has written all `count` values, and any bytes are a `V`,
    // as it is `Pod`.
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
pub(in crate::kernel) fn write_batch<V: Pod>(
    map: &mut Array<MapData, V>,
    keys: &[u32],
    values: &[V],
) -> Result<(), (usize, io::Error)> {
    let elements = keys.len().min(values.len());
    let mut batch = Elements {
        keys: keys.as_ptr().addr() as u64,
        values: values.as_ptr().addr() as u64,
        count: u32::try_from(elements).map_err(|error| (0, io::Error::other(error)))?,
        map_fd: number(map.map().fd()),
        ..Elements::default()
    };
    // SAFETY: `Array` has made sure that the map's keys are 4 bytes long and its
    // values as long as a `V`. The kernel reads `count` of each, from buffers
    // that have as many and live until it returns.
    let written = unsafe { bpf(MAP_UPDATE_BATCH, &mut batch) };
    let done = usize::try_from(batch.count).unwrap_or(0).min(elements);
    written.map(|_| ()).map_err(|error| (done, error))
}
