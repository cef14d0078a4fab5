//! System calls without a safe wrapper: the agent's only unsafe code.

#![expect(unsafe_code, reason = "none of these calls has a safe form")]

mod batch;
mod links;
mod pinned;

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use rustix::thread::{UnshareFlags, unshare_unsafe};

pub(super) use batch::{read_all, write_batch};
pub(super) use links::{
    detach_link, link_by_id, link_info, link_interface, make_link, tcx_ingress, update_link,
};
pub(super) use pinned::{open_pinned, pin};

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
            unsafe { libc::mallopt(what, to) == 1 }
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
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.map_err(io::Error::from)
}

/// Makes a bpf(2) call. Returns its result: 0, or a new descriptor.
///
/// # Safety
/// The memory that `attributes` points to must be as the command requires.
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

/// Makes a bpf(2) call whose result is a new descriptor.
///
/// # Safety
/// As for [`bpf`]; and the command must return a descriptor.
unsafe fn bpf_descriptor<T>(command: libc::c_long, attributes: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise.
    let descriptor = unsafe { bpf(command, attributes) }?;
    // SAFETY: the kernel has just made this descriptor, and it has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Returns a descriptor as `union bpf_attr` has it.
fn number(descriptor: &impl AsFd) -> u32 {
    descriptor.as_fd().as_raw_fd().cast_unsigned()
}

/// Reads a socket option that is a struct of the caller's size. Returns the number of
/// bytes that the kernel has written.
///
/// # Errors
/// The error of getsockopt(2).
pub(super) fn socket_option(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: &mut [u8],
) -> io::Result<usize> {
    let mut length = libc::socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    // SAFETY: the kernel writes at most `length` bytes to `value`, which has as many,
    // and a number to `length`; both live until it returns.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            option,
            value.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    usize::try_from(length).map_err(io::Error::other)
}
