//! System calls that have no safe wrapper: the agent's only unsafe code.

use std::io;

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
