//! The lock: one agent at a time works with a pair of folders.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};

use super::{FootprintError, folders::failure, folders::remove_file};

/// Held until it is dropped, or the process ends, whatever way.
#[derive(Debug)]
pub(super) struct Lock {
    path: PathBuf,
    is_new: bool,
    _file: File,
}

impl Lock {
    /// Takes the lock in this folder, or says who has it.
    pub(super) fn take(folder: &Path) -> Result<Self, FootprintError> {
        let path = folder.join("lock");
        loop {
            let is_new = !path.exists();
            let file = Self::take_file(&path)?;
            // Whoever had it may have removed it between our opening it and
            // its letting go: then it is a lock on nothing.
            let held = file.metadata().map_err(failure(&path, "examined"))?;
            if fs::metadata(&path).is_ok_and(|named| named.ino() == held.ino()) {
                return Ok(Self {
                    path,
                    is_new,
                    _file: file,
                });
            }
        }
    }

    fn take_file(path: &Path) -> Result<File, FootprintError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(path)
            .map_err(failure(path, "opened"))?;
        match patiently(&file) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let holder = fs::read_to_string(path).unwrap_or_default();
                let holder = holder.trim();
                return Err(FootprintError::Locked {
                    path: path.to_owned(),
                    holder: if holder.is_empty() { "unknown" } else { holder }.to_owned(),
                });
            }
            Err(error) => return Err(failure(path, "locked")(error.into())),
        }
        file.set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(failure(path, "written"))?;
        Ok(file)
    }

    /// Removes the file, while it is held.
    pub(super) fn remove(self) -> Result<(), FootprintError> {
        remove_file(&self.path)
    }

    /// Lets go, as if it had never been taken.
    pub(super) fn give_back(self) -> Result<(), FootprintError> {
        if self.is_new { self.remove() } else { Ok(()) }
    }
}

/// Waits a second for the lock: a child that a killed agent was just starting
/// holds all its descriptors until it runs its own program.
fn patiently(file: &File) -> rustix::io::Result<()> {
    const TRIES: u32 = 20;
    for _ in 1..TRIES {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => thread::sleep(Duration::from_millis(50)),
            other => return other,
        }
    }
    flock(file, FlockOperation::NonBlockingLockExclusive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_to_lock_is_told_who_was_first() {
        let root = tempfile::tempdir().unwrap();
        let held = Lock::take(root.path()).unwrap();
        let error = Lock::take(root.path()).unwrap_err().to_string();
        assert!(error.contains(&std::process::id().to_string()), "{error}");
        drop(held);
        let again = Lock::take(root.path()).unwrap();
        again.give_back().unwrap();
        assert!(root.path().join("lock").exists(), "it was there before");
        Lock::take(root.path()).unwrap().remove().unwrap();
        assert!(!root.path().join("lock").exists());
        Lock::take(root.path()).unwrap().give_back().unwrap();
        assert!(!root.path().join("lock").exists());
    }
}
