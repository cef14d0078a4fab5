//! What the agent leaves on the host's file systems, and who it is there.
//!
//! `footprint.json` in the state folder names the agent and everything that it
//! made outside of its own pins, so that `cleanup` can put the host back to
//! what it was, and nothing further.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, flock},
    mount::{UnmountFlags, unmount},
};
use serde::{Deserialize, Serialize};

use crate::{
    config::Config,
    kernel::{self, AgentId},
    store,
};

const NAME: &str = "footprint.json";
const LOCK: &str = "lock";

/// What could not be read, made or removed.
#[derive(Debug, thiserror::Error)]
pub enum FootprintError {
    /// A file or folder.
    #[error("{} cannot be {what}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The footprint is there and says nothing that can be understood.
    #[error(
        "{} is damaged ({said}); move it away, and the agent takes its name from what is pinned",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// In what way.
        said: String,
    },
    /// Another agent runs with these folders.
    #[error("another agent is running (pid {holder}) and holds {}", path.display())]
    Locked {
        /// The lock.
        path: PathBuf,
        /// Who holds it.
        holder: String,
    },
    /// There is no bpffs and none can be mounted.
    #[error(transparent)]
    Bpffs(#[from] kernel::Error),
}

/// What the file says.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
struct Record {
    agent: String,
    /// Folders that were not there before, outermost first.
    created: Vec<PathBuf>,
    /// Where a bpffs was mounted that was not there before.
    mounted: Option<PathBuf>,
    /// Whether a store was made: from then on, one that is not there is lost.
    store: bool,
}

/// The agent's hold on its folders: exclusive while it lives.
#[derive(Debug)]
pub struct Footprint {
    path: PathBuf,
    lock_path: PathBuf,
    record: Record,
    /// Whether this process made it.
    fresh: bool,
    /// Whether this process made the store.
    store_is_new: bool,
    /// Held until the process ends, whatever way.
    _lock: File,
}

/// The agent's name as the state folder has it; none before its first start.
///
/// # Errors
/// [`FootprintError`] if there is a footprint that can't be read.
pub fn agent_id(config: &Config) -> Result<Option<AgentId>, FootprintError> {
    let path = config.state_dir.join(NAME);
    match read(&path)? {
        None => Ok(None),
        Some(record) => parse_agent(&path, &record).map(Some),
    }
}

impl Footprint {
    /// Takes hold of the folders, making what is missing: with the name `agent`
    /// if they have none yet. Where that fails, nothing of it stays.
    ///
    /// # Errors
    /// [`FootprintError`], if another agent has them among others.
    pub fn claim(config: &Config, agent: AgentId) -> Result<Self, FootprintError> {
        let mut created = Vec::new();
        let claimed = Self::claim_noting(config, agent, &mut created);
        if claimed.is_err() {
            remove_folders(&created)?;
        }
        claimed
    }

    fn claim_noting(
        config: &Config,
        agent: AgentId,
        created: &mut Vec<PathBuf>,
    ) -> Result<Self, FootprintError> {
        make_folder(&config.runtime_dir, 0o755, created)?;
        let lock_path = config.runtime_dir.join(LOCK);
        let lock_is_new = !lock_path.exists();
        let lock = lock(&lock_path)?;
        let claimed = Self::claim_locked(config, agent, created, lock_path.clone(), lock);
        if claimed.is_err() && lock_is_new {
            remove_file(&lock_path)?;
        }
        claimed
    }

    fn claim_locked(
        config: &Config,
        agent: AgentId,
        created: &mut Vec<PathBuf>,
        lock_path: PathBuf,
        lock: File,
    ) -> Result<Self, FootprintError> {
        make_folder(&config.state_dir, 0o700, created)?;
        let path = config.state_dir.join(NAME);
        let known = read(&path)?;
        let mut footprint = Self {
            fresh: known.is_none(),
            store_is_new: false,
            record: known.unwrap_or_else(|| Record {
                agent: agent.to_string(),
                created: Vec::new(),
                mounted: None,
                store: false,
            }),
            path,
            lock_path,
            _lock: lock,
        };
        let known = footprint.record.clone();
        let mounted = mount_bpffs(config, created)?;
        footprint.record.created.extend(created.iter().cloned());
        if let Some(mounted) = &mounted {
            footprint.record.mounted = Some(mounted.clone());
        }
        // A start that changes nothing writes nothing.
        let unchanged = !footprint.fresh && footprint.record == known;
        let saved = if unchanged { Ok(()) } else { footprint.save() };
        if let Err(error) = saved {
            if let Some(mounted) = mounted {
                unmount_if_unused(&mounted)?;
            }
            return Err(error);
        }
        Ok(footprint)
    }

    /// Whether a store was made here before.
    #[must_use]
    pub const fn has_store(&self) -> bool {
        self.record.store
    }

    /// Notes that there is a store now, and whether this process made it.
    ///
    /// # Errors
    /// [`FootprintError`] if that can't be written down.
    pub fn note_store(&mut self, is_new: bool) -> Result<(), FootprintError> {
        self.store_is_new = is_new;
        if self.record.store {
            return Ok(());
        }
        self.record.store = true;
        self.save()
    }

    /// Undoes a claim of an agent that could not start; one that had started
    /// before keeps its footprint.
    ///
    /// # Errors
    /// [`FootprintError`] if something can't be removed.
    pub fn abandon(self) -> Result<(), FootprintError> {
        match (self.fresh, self.store_is_new) {
            (true, true) => self.remove(),
            // The footprint had been lost, the rules had not.
            (true, false) => self.remove_all_but_store(),
            (false, _) => Ok(()),
        }
    }

    /// Removes all that the file names, the store, and the file.
    ///
    /// # Errors
    /// [`FootprintError`] if something can't be removed.
    pub fn remove(self) -> Result<(), FootprintError> {
        // One that was set aside as damaged is the operator's to remove.
        let store = self.path.with_file_name(store::NAME);
        remove_file(&store)?;
        remove_file(&store::unfinished(&store))?;
        self.remove_all_but_store()
    }

    fn remove_all_but_store(self) -> Result<(), FootprintError> {
        if let Some(mounted) = &self.record.mounted {
            unmount_if_unused(mounted)?;
        }
        remove_file(&self.path)?;
        remove_file(&self.lock_path)?;
        remove_folders(&self.record.created)
    }

    /// Written beside and renamed, so that there is never half of it.
    fn save(&self) -> Result<(), FootprintError> {
        let failed = |what| failure(&self.path, what);
        let beside = self.path.with_extension("new");
        let text = serde_json::to_vec_pretty(&self.record)
            .map_err(|error| failed("written")(error.into()))?;
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)
            .map_err(failed("made"))?;
        file.write_all(&text)
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&beside, &self.path))
            .map_err(|error| {
                // Nothing refers to it; the first error is the one to tell.
                drop(fs::remove_file(&beside));
                failed("written")(error)
            })
    }
}

/// Takes hold of an existing footprint, for `cleanup`; none if the agent never
/// ran, or what it left was removed.
///
/// # Errors
/// [`FootprintError::Locked`] if an agent is running; others if it can't be read.
pub fn existing(config: &Config) -> Result<Option<Footprint>, FootprintError> {
    let path = config.state_dir.join(NAME);
    let lock_path = config.runtime_dir.join(LOCK);
    let Some(record) = read(&path)? else {
        return Ok(None);
    };
    // After a reboot there is no runtime folder, and nothing runs.
    let mut created = Vec::new();
    make_folder(&config.runtime_dir, 0o755, &mut created)?;
    let lock = lock(&lock_path)?;
    let mut footprint = Footprint {
        path,
        lock_path,
        record,
        fresh: false,
        store_is_new: false,
        _lock: lock,
    };
    footprint.record.created.append(&mut created);
    Ok(Some(footprint))
}

/// Where a bpffs was mounted for the pins, if one had to be.
fn mount_bpffs(
    config: &Config,
    created: &mut Vec<PathBuf>,
) -> Result<Option<PathBuf>, FootprintError> {
    // A checked configuration has a parent here.
    let Some(parent) = config.bpffs_dir.parent() else {
        return Ok(None);
    };
    if !kernel::is_bpffs(parent) {
        make_folder(parent, 0o755, created)?;
    }
    let mounted = kernel::ensure_mounted(parent)?;
    Ok(mounted.then(|| parent.to_owned()))
}

fn lock(path: &Path) -> Result<File, FootprintError> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .open(path)
        .map_err(failure(path, "opened"))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
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

fn read(path: &Path) -> Result<Option<Record>, FootprintError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failure(path, "read")(error)),
    };
    let record = serde_json::from_slice(&text).map_err(|error| FootprintError::Damaged {
        path: path.to_owned(),
        said: error.to_string(),
    })?;
    parse_agent(path, &record)?;
    Ok(Some(record))
}

fn parse_agent(path: &Path, record: &Record) -> Result<AgentId, FootprintError> {
    record
        .agent
        .parse()
        .map_err(|error| FootprintError::Damaged {
            path: path.to_owned(),
            said: format!("agent: {error}"),
        })
}

/// Makes a folder and those above it, noting each that was not there.
fn make_folder(path: &Path, mode: u32, created: &mut Vec<PathBuf>) -> Result<(), FootprintError> {
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

fn remove_folders(outermost_first: &[PathBuf]) -> Result<(), FootprintError> {
    for folder in outermost_first.iter().rev() {
        kernel::remove_if_empty(folder)?;
    }
    Ok(())
}

fn remove_file(path: &Path) -> Result<(), FootprintError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failure(path, "removed")(error))
        }
        _ => Ok(()),
    }
}

/// Others may have come to use a bpffs that the agent mounted.
fn unmount_if_unused(mounted: &Path) -> Result<(), FootprintError> {
    if kernel::is_bpffs(mounted) && kernel::is_unused(mounted) {
        unmount(mounted, UnmountFlags::empty())
            .map_err(|error| failure(mounted, "unmounted")(error.into()))?;
    }
    Ok(())
}

fn failure(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> FootprintError {
    let path = path.to_owned();
    move |source| FootprintError::File { path, what, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(root: &Path) -> Config {
        Config {
            state_dir: root.join("var/state"),
            runtime_dir: root.join("run/agent"),
            // Under a file system that has no bpffs: the tests that need one
            // run in the lab.
            bpffs_dir: "/nonexistent-for-tests/bpf/agent".into(),
            ..Config::default()
        }
    }

    #[test]
    fn a_damaged_footprint_is_refused_and_stays() {
        let root = tempfile::tempdir().unwrap();
        let config = config(root.path());
        fs::create_dir_all(&config.state_dir).unwrap();
        let path = config.state_dir.join(NAME);
        for text in [
            "",
            "{}",
            "not json",
            r#"{"agent":"x","created":[],"mounted":null,"store":false}"#,
        ] {
            fs::write(&path, text).unwrap();
            let error = agent_id(&config).unwrap_err().to_string();
            assert!(error.contains("damaged"), "{error}");
            assert!(existing(&config).is_err());
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert!(!config.runtime_dir.exists());
    }

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

    #[test]
    fn the_second_to_lock_is_told_who_was_first() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join(LOCK);
        let held = lock(&path).unwrap();
        let error = lock(&path).unwrap_err().to_string();
        assert!(error.contains(&std::process::id().to_string()), "{error}");
        drop(held);
        lock(&path).unwrap();
    }
}
