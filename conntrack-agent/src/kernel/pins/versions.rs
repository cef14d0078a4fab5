//! Lists the ABI versions that have pins.

use std::{fs, io, path::Path};

use super::{Pins, SHARED};
use crate::kernel::{Error, bpffs::entries};

impl Pins {
    /// Returns the pins of every ABI version that has any, the oldest first.
    ///
    /// # Errors
    /// [`Error::File`] if a folder can't be read.
    pub fn of_all_versions(bpffs_dir: &Path) -> Result<Vec<Self>, Error> {
        Self::of_versions(bpffs_dir, |_| true)
    }

    fn of_versions(bpffs_dir: &Path, wanted: impl Fn(u32) -> bool) -> Result<Vec<Self>, Error> {
        let mut versions = Vec::new();
        for folder in entries(bpffs_dir)? {
            if let Some(abi) = version_of(&folder).filter(|abi| wanted(*abi))
                && has_routers(&folder)?
            {
                let bpffs_dir = bpffs_dir.to_owned();
                versions.push(Self { bpffs_dir, abi });
            }
        }
        versions.sort_by_key(Self::abi);
        Ok(versions)
    }

    /// Returns the pins of the versions before this one, the oldest first.
    ///
    /// # Errors
    /// [`Error::File`] if a folder can't be read.
    pub fn older(&self) -> Result<Vec<Self>, Error> {
        Self::of_versions(&self.bpffs_dir, |abi| abi < self.abi)
    }

    /// Checks that a later version than this one has no pins, as an agent of
    /// this version can't know what they mean.
    ///
    /// # Errors
    /// [`Error::NewerAbi`] if one has; [`Error::File`] if a folder can't be
    /// read.
    pub fn require_none_newer(&self) -> Result<(), Error> {
        let newer = Self::of_versions(&self.bpffs_dir, |abi| abi > self.abi)?;
        match newer.last() {
            Some(newest) => Err(Error::NewerAbi {
                folder: newest.version(),
                pinned: newest.abi,
                known: self.abi,
            }),
            None => Ok(()),
        }
    }
}

/// Returns the ABI version that a folder is for.
pub(super) fn version_of(folder: &Path) -> Option<u32> {
    let abi: u32 = folder
        .file_name()?
        .to_str()?
        .strip_prefix('v')?
        .parse()
        .ok()?;
    // "v01" and "v+1" are no version's folders.
    (folder.file_name()?.to_str()? == format!("v{abi}")).then_some(abi)
}

/// Returns whether a version's folder has anything but the shared maps; what is
/// no folder has nothing. It makes no list, which would have an entry for each
/// router.
pub(super) fn has_routers(folder: &Path) -> Result<bool, Error> {
    use io::ErrorKind::{NotADirectory, NotFound};
    match fs::read_dir(folder) {
        // An entry that can't be read counts too.
        Ok(mut listing) => {
            Ok(listing.any(|entry| entry.map_or(true, |entry| entry.file_name() != SHARED)))
        }
        Err(error) if matches!(error.kind(), NotADirectory | NotFound) => Ok(false),
        Err(error) => Err(Error::file(folder, "read")(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pins(root: &Path, abi: u32) -> Pins {
        Pins {
            bpffs_dir: root.to_owned(),
            abi,
        }
    }

    #[test]
    fn versions_are_told_apart_by_number_and_empty_or_strange_folders_are_none() {
        let root = tempfile::tempdir().unwrap();
        assert!(
            Pins::of_all_versions(&root.path().join("none"))
                .unwrap()
                .is_empty()
        );
        for folder in [
            "v9/router",
            "v10/router",
            "v11",
            "v02/router",
            "v+3/router",
            "x4/router",
        ] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        fs::write(root.path().join("v12"), "").unwrap();
        let abis = |versions: Vec<Pins>| versions.iter().map(Pins::abi).collect::<Vec<_>>();
        assert_eq!(abis(Pins::of_all_versions(root.path()).unwrap()), [9, 10]);
        assert_eq!(abis(pins(root.path(), 10).older().unwrap()), [9]);
        assert_eq!(abis(pins(root.path(), 9).older().unwrap()), [0; 0]);
        pins(root.path(), 10).require_none_newer().unwrap();
        let refused = pins(root.path(), 8).require_none_newer().unwrap_err();
        let refused = refused.to_string();
        assert!(refused.contains("ABI version 10"), "{refused}");
        assert!(refused.contains("this agent knows 8"), "{refused}");
    }
}
