//! The BPF filesystem that pins live in.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustix::{
    fs::statfs,
    mount::{MountFlags, mount},
};

use super::Error;

/// The magic number `BPF_FS_MAGIC`, include/uapi/linux/magic.h.
const BPF_FS_MAGIC: u32 = 0xcafe_4a11;

/// Returns whether `folder` is inside a bpffs; a folder that doesn't exist is
/// not.
#[must_use]
pub fn is_bpffs(folder: &Path) -> bool {
    statfs(folder)
        .is_ok_and(|found| u32::try_from(found.f_type).is_ok_and(|magic| magic == BPF_FS_MAGIC))
}

/// Checks that `folder` is inside a bpffs. Anywhere else a pin can't be made,
/// and the folders for one would be hidden by the bpffs that is to be mounted
/// there.
///
/// # Errors
/// [`Error::NoBpffs`] if not.
pub fn require_mounted(folder: &Path) -> Result<(), Error> {
    if is_bpffs(folder) {
        return Ok(());
    }
    Err(Error::NoBpffs {
        path: folder.to_owned(),
        source: io::Error::other("it is not mounted any more"),
    })
}

/// Returns whether the bpffs mounted at `root` has no pins but the kernel's
/// own.
///
/// The kernel itself puts two iterators into each bpffs (kernel/bpf/preload).
#[must_use]
pub fn is_unused(root: &Path) -> bool {
    const PRELOADED: [&str; 2] = ["maps.debug", "progs.debug"];
    let known = |entry: io::Result<fs::DirEntry>| {
        entry.is_ok_and(|entry| PRELOADED.iter().any(|name| entry.file_name() == *name))
    };
    fs::read_dir(root).is_ok_and(|mut entries| entries.all(known))
}

/// Ensures that `folder` is inside a bpffs, by mounting one there if necessary.
/// Returns whether one was mounted.
///
/// # Errors
/// [`Error::NoBpffs`] if there is none and none can be mounted. A folder that
/// isn't empty is not mounted over, as that would hide its contents.
pub fn ensure_mounted(folder: &Path) -> Result<bool, Error> {
    if is_bpffs(folder) {
        return Ok(false);
    }
    let failed = |source| Error::NoBpffs {
        path: folder.to_owned(),
        source,
    };
    let mut entries = fs::read_dir(folder).map_err(failed)?;
    if entries.next().is_some() {
        return Err(failed(io::ErrorKind::DirectoryNotEmpty.into()));
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("bpf", folder, "bpf", flags, Some(c"mode=0700")).map_err(|error| failed(error.into()))?;
    Ok(true)
}

/// Makes a folder, and none above it; one that is there is fine.
pub(super) fn make_one(folder: &Path) -> Result<(), Error> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(Error::file(folder, "made")(error))
        }
        _ => Ok(()),
    }
}

/// Removes a folder; one that isn't empty, or isn't there, stays as it is.
pub(crate) fn remove_if_empty(folder: &Path) -> Result<(), Error> {
    use io::ErrorKind::{DirectoryNotEmpty, NotFound, ResourceBusy};
    match fs::remove_dir(folder) {
        // Busy: a mount point, somebody else's to remove.
        Err(error) if !matches!(error.kind(), DirectoryNotEmpty | NotFound | ResourceBusy) => {
            Err(Error::file(folder, "removed")(error))
        }
        _ => Ok(()),
    }
}

/// Removes a pin; none is fine.
pub(super) fn remove_pin(pin: &Path) -> Result<(), Error> {
    match fs::remove_file(pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::file(pin, "removed")(error))
        }
        _ => Ok(()),
    }
}

/// The paths in a folder, sorted; none if there is no folder.
pub(super) fn entries(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let unreadable = |error| Error::file(folder, "read")(error);
    let listing = match fs::read_dir(folder) {
        Ok(listing) => listing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let paths: Result<Vec<_>, _> = listing
        .map(|entry| entry.map(|entry| entry.path()))
        .collect();
    let mut paths = paths.map_err(unreadable)?;
    paths.sort();
    Ok(paths)
}
