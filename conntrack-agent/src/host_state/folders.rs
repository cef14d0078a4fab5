//! Creates folders and mounts a bpffs, and records what was created so that `cleanup` can
//! remove it.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use rustix::mount::{UnmountFlags, unmount};
use serde::{Deserialize, Serialize};

use super::FootprintError;
use crate::kernel;

/// Creates a folder and its missing parents, and adds each new one to `created`.
pub(super) fn make_folder(
    path: &Path,
    mode: u32,
    created: &mut Vec<PathBuf>,
) -> Result<(), FootprintError> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_folder(parent, 0o755, created)?;
    }
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => created.push(path.to_owned()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        Err(error) => return Err(failure(path, "made")(error)),
    }
    Ok(())
}

/// Removes the folders that are empty.
pub(super) fn remove_folders(outermost_first: &[PathBuf]) -> Result<(), FootprintError> {
    for folder in outermost_first.iter().rev() {
        kernel::remove_if_empty(folder)?;
    }
    Ok(())
}

/// Removes a file, if it exists.
pub(super) fn remove_file(path: &Path) -> Result<(), FootprintError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failure(path, "removed")(error))
        }
        _ => Ok(()),
    }
}

pub(super) fn failure(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> FootprintError {
    let path = path.to_owned();
    move |source| FootprintError::File { path, what, source }
}

/// A bpffs that the agent mounted. After a reboot, or after somebody unmounted it, a file
/// system mounted in its place is not the agent's.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mounted {
    path: PathBuf,
    /// The id of the boot, from `/proc/sys/kernel/random/boot_id`.
    boot: String,
    /// The device (`st_dev`): each mount of a bpffs is a file system of its own.
    device: u64,
}

impl Mounted {
    /// Mounts a bpffs at `path` if there is none.
    pub(super) fn ensure(
        path: &Path,
        created: &mut Vec<PathBuf>,
    ) -> Result<Option<Self>, FootprintError> {
        if !kernel::is_bpffs(path) {
            make_folder(path, 0o755, created)?;
        }
        if !kernel::ensure_mounted(path)? {
            return Ok(None);
        }
        Ok(Some(Self {
            path: path.to_owned(),
            boot: boot_id()?,
            device: device(path)?,
        }))
    }

    /// Returns whether this bpffs is still mounted there.
    pub(super) fn is_there(&self) -> bool {
        kernel::is_bpffs(&self.path)
            && boot_id().is_ok_and(|boot| boot == self.boot)
            && device(&self.path).is_ok_and(|device| device == self.device)
    }

    /// Unmounts the bpffs, unless others use it by now.
    pub(super) fn unmount(&self) -> Result<(), FootprintError> {
        if self.is_there() && kernel::is_unused(&self.path) {
            unmount(&self.path, UnmountFlags::empty())
                .map_err(|error| failure(&self.path, "unmounted")(error.into()))?;
        }
        Ok(())
    }
}

fn boot_id() -> Result<String, FootprintError> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let text = fs::read_to_string(path).map_err(failure(path, "read"))?;
    Ok(text.trim().to_owned())
}

fn device(path: &Path) -> Result<u64, FootprintError> {
    let metadata = fs::metadata(path).map_err(failure(path, "examined"))?;
    Ok(metadata.dev())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_noted_as_they_are_made_and_removed_if_empty() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("a/b/c");
        let mut created = Vec::new();
        make_folder(&deep, 0o700, &mut created).unwrap();
        assert_eq!(created.len(), 3);
        make_folder(&deep, 0o700, &mut created).unwrap();
        assert_eq!(created.len(), 3);
        fs::write(root.path().join("a/file"), "").unwrap();
        remove_folders(&created).unwrap();
        assert!(root.path().join("a/file").exists());
        assert!(!root.path().join("a/b").exists());
    }
}
