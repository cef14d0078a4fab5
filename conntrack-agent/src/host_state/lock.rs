//! The locks that allow one agent at a time in a state folder and in a runtime folder.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};

use super::{FootprintError, folders::failure, folders::remove_file};

/// The locks in a set of folders.
#[derive(Debug)]
pub(super) struct Locks(Vec<Lock>);

impl Locks {
    /// Takes the locks in the folders that exist. If another process holds one, none is
    /// taken, and the error names the holder.
    pub(super) fn take(folders: &[&Path]) -> Result<Self, FootprintError> {
        let mut locks = Self(Vec::new());
        let mut taken = BTreeSet::new();
        for folder in folders.iter().filter(|folder| folder.is_dir()) {
            let found = fs::metadata(folder).map_err(failure(folder, "examined"))?;
            // Two folders of the configuration may be the same folder.
            if !taken.insert((found.dev(), found.ino())) {
                continue;
            }
            match Lock::take(folder) {
                Ok(lock) => locks.0.push(lock),
                Err(error) => {
                    locks.give_back()?;
                    return Err(error);
                }
            }
        }
        Ok(locks)
    }

    /// Removes the lock files while the locks are held.
    pub(super) fn remove(self) -> Result<(), FootprintError> {
        self.0.into_iter().try_for_each(Lock::remove)
    }

    /// Releases the locks, and removes the lock files that were new.
    pub(super) fn give_back(self) -> Result<(), FootprintError> {
        self.0.into_iter().try_for_each(Lock::give_back)
    }
}

/// A lock, held until it is dropped or the process ends, in whatever way.
#[derive(Debug)]
struct Lock {
    path: PathBuf,
    is_new: bool,
    _file: File,
}

impl Lock {
    /// Takes the lock in this folder; if another process holds it, the error names the
    /// holder.
    fn take(folder: &Path) -> Result<Self, FootprintError> {
        let path = folder.join("lock");
        loop {
            let is_new = !path.exists();
            let file = Self::take_file(&path)?;
            // The former holder may have removed the file after it was opened here: then
            // this is a lock on a deleted file.
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
                return Err(FootprintError::Locked {
                    path: path.to_owned(),
                    holder: holder(path),
                });
            }
            Err(error) => return Err(failure(path, "locked")(error.into())),
        }
        file.set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(failure(path, "written"))?;
        Ok(file)
    }

    /// Removes the lock file while the lock is held.
    fn remove(self) -> Result<(), FootprintError> {
        remove_file(&self.path)
    }

    /// Releases the lock, and removes the file if it was new.
    fn give_back(self) -> Result<(), FootprintError> {
        if self.is_new { self.remove() } else { Ok(()) }
    }
}

/// Describes the holder of the lock, as far as known: its pid, its program, and since
/// when.
fn holder(path: &Path) -> String {
    let written = fs::read_to_string(path).unwrap_or_default();
    let Ok(pid) = written.trim().parse::<u32>() else {
        return "pid unknown".into();
    };
    let mut known = format!("pid {pid}");
    if let Ok(program) = fs::read_link(format!("/proc/{pid}/exe")) {
        known = format!("{known}, {}", program.display());
    }
    if let Ok(since) = fs::metadata(path).and_then(|file| file.modified()) {
        let since = humantime::format_rfc3339_seconds(since);
        known = format!("{known}, since {since}");
    }
    known
}

/// Takes the lock, and waits up to a second for it: a child that a killed agent was just
/// starting holds all its descriptors until it runs its own program.
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
        let program = std::env::current_exe().unwrap();
        let pid = std::process::id();
        let known = format!("(pid {pid}, {}, since 2", program.display());
        assert!(error.contains(&known), "{error}");
        // Where the holder hasn't written yet, or somebody else has.
        fs::write(root.path().join("lock"), "").unwrap();
        let error = Lock::take(root.path()).unwrap_err().to_string();
        assert!(error.contains("(pid unknown)"), "{error}");
        drop(held);
        let again = Lock::take(root.path()).unwrap();
        again.give_back().unwrap();
        assert!(root.path().join("lock").exists(), "it was there before");
        Lock::take(root.path()).unwrap().remove().unwrap();
        assert!(!root.path().join("lock").exists());
        Lock::take(root.path()).unwrap().give_back().unwrap();
        assert!(!root.path().join("lock").exists());
    }

    #[test]
    fn all_are_taken_or_none_and_one_folder_by_two_names_once() {
        let root = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| root.path().join(name));
        fs::create_dir(&one).unwrap();
        fs::create_dir(&two).unwrap();
        let absent = root.path().join("absent");
        let second = Locks::take(&[&two, &absent]).unwrap();
        assert!(Locks::take(&[&one, &two]).is_err());
        assert!(!one.join("lock").exists(), "the first was given back");
        second.remove().unwrap();
        let alias = root.path().join("alias");
        std::os::unix::fs::symlink(&one, &alias).unwrap();
        let both = Locks::take(&[&one, &alias]).unwrap();
        assert!(Locks::take(&[&alias]).is_err());
        both.give_back().unwrap();
        assert!(!absent.exists());
    }
}
