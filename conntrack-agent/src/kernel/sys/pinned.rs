//! Pins objects, and opens pinned ones.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use super::{bpf, bpf_descriptor, number};

/// The commands `BPF_OBJ_PIN` and `BPF_OBJ_GET` of `enum bpf_cmd`,
/// include/uapi/linux/bpf.h.
const OBJ_PIN: libc::c_long = 6;
const OBJ_GET: libc::c_long = 7;

/// The fields of `union bpf_attr` that `BPF_OBJ_*` commands read.
#[derive(Debug, Default)]
#[repr(C)]
struct PinnedObject {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Opens the object pinned at a path.
///
/// # Errors
/// The error of bpf(2).
pub(in crate::kernel) fn open_pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut object = PinnedObject {
        pathname: path.as_ptr().addr() as u64,
        ..PinnedObject::default()
    };
    // SAFETY: the path is a C string that lives until the call returns; the
    // command returns a descriptor.
    unsafe { bpf_descriptor(OBJ_GET, &mut object) }
}

/// Pins the object of a descriptor.
///
/// # Errors
/// The error of bpf(2): EEXIST if there is something at `path`.
pub(in crate::kernel) fn pin(descriptor: &impl AsFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut object = PinnedObject {
        pathname: path.as_ptr().addr() as u64,
        bpf_fd: number(descriptor),
        ..PinnedObject::default()
    };
    // SAFETY: `path` ends with a NUL and lives until the kernel returns.
    unsafe { bpf(OBJ_PIN, &mut object) }.map(drop)
}
