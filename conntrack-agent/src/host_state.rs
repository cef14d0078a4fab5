//! The agent's id and the files, folders and mounts that it made on this host.
//!
//! `footprint.json` in the state folder names the agent and everything that it made
//! outside of its own pins, so that `cleanup` can restore the host, and change nothing
//! else.

mod folders;
mod lock;
mod record;
mod remount;

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    audit,
    config::Config,
    kernel::{self, AgentId},
    store,
};
use folders::{Mounted, make_folder, remove_file, remove_folders};
use lock::Locks;
use record::HostStateFile;
pub use remount::Bpffs;

/// The error when host state can't be read, made or removed.
#[derive(Debug, thiserror::Error)]
pub enum FootprintError {
    /// An operation on a file or folder failed.
    #[error("{} cannot be {what}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// The operation that failed, as a participle.
        what: &'static str,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The footprint exists, but can't be parsed.
    #[error(
        "{} is damaged ({said}); move it away, and the agent takes its name from what is pinned",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The damage that was found.
        said: String,
    },
    /// Another agent runs with these folders.
    #[error("another agent is running ({holder}) and holds {}", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// The holder: its pid, and what else is known of it.
        holder: String,
    },
    /// The configuration names another folder than the one that the agent works in.
    #[error(
        "{key} is {} now, and what the agent made is in {}; \
         set it back, or run `conntrack-agent cleanup` first", configured.display(), used.display()
    )]
    Moved {
        /// The configuration key.
        key: &'static str,
        /// The folder that the configuration names.
        configured: PathBuf,
        /// The folder that it named when the agent first ran.
        used: PathBuf,
    },
    /// There is no bpffs and none can be mounted, or an empty folder can't be
    /// removed.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
}

/// The agent's hold on its folders, exclusive as long as the value lives.
#[derive(Debug)]
pub struct HostState {
    state_dir: PathBuf,
    record: HostStateFile,
    agent: AgentId,
    /// Whether this process made the footprint.
    fresh: bool,
    /// Whether this process made the store.
    store_is_new: bool,
    locks: Locks,
}

impl HostState {
    /// Locks the folders and creates what is missing. An agent without a footprint takes
    /// the id that `pinned` returns, or gets a new one. On failure, everything that was
    /// created is removed again.
    ///
    /// # Errors
    /// Returns [`FootprintError`], for instance if another agent holds the folders, and
    /// any error of `pinned`.
    pub fn claim<E: From<FootprintError>>(
        config: &Config,
        pinned: impl FnOnce() -> Result<Option<AgentId>, E>,
    ) -> Result<Self, E> {
        let mut created = Vec::new();
        let claimed = make_folder(&config.runtime_dir, 0o755, &mut created)
            .and_then(|()| make_folder(&config.state_dir, 0o700, &mut created))
            .and_then(|()| Locks::take(&[&config.runtime_dir, &config.state_dir]))
            .map_err(E::from)
            .and_then(|locks| Self::claim_locked(config, pinned, locks, &mut created));
        if claimed.is_err() {
            remove_folders(&created)?;
        }
        claimed
    }

    fn claim_locked<E: From<FootprintError>>(
        config: &Config,
        pinned: impl FnOnce() -> Result<Option<AgentId>, E>,
        locks: Locks,
        created: &mut Vec<PathBuf>,
    ) -> Result<Self, E> {
        match Self::establish(config, pinned, created) {
            Ok((record, agent, fresh)) => Ok(Self {
                state_dir: config.state_dir.clone(),
                record,
                agent,
                fresh,
                store_is_new: false,
                locks,
            }),
            Err(error) => {
                locks.give_back()?;
                Err(error)
            }
        }
    }

    fn establish<E: From<FootprintError>>(
        config: &Config,
        pinned: impl FnOnce() -> Result<Option<AgentId>, E>,
        created: &mut Vec<PathBuf>,
    ) -> Result<(HostStateFile, AgentId, bool), E> {
        let known = HostStateFile::read(&config.state_dir)?;
        if let Some((record, _)) = &known {
            check_unmoved(config, record)?;
        }
        let (mut record, agent, fresh) = if let Some((record, agent)) = known.clone() {
            (record, agent, false)
        } else {
            let agent = pinned()?.unwrap_or_else(AgentId::random);
            (HostStateFile::new(config, agent), agent, true)
        };
        // By now another bpffs may be mounted there, which is not the agent's.
        record.mounted = record.mounted.filter(Mounted::is_there);
        let mounted = Mounted::ensure(config.bpffs_root(), created)?;
        record.created.extend(created.iter().cloned());
        record.mounted = mounted.clone().or(record.mounted);
        // A start that changes nothing doesn't write the file.
        if known.is_none_or(|(known, _)| known != record)
            && let Err(error) = record.save(&config.state_dir)
        {
            if let Some(mounted) = mounted {
                mounted.unmount()?;
            }
            return Err(error.into());
        }
        Ok((record, agent, fresh))
    }

    /// Returns the id of the agent that owns these folders, whether it runs or not;
    /// `None` if there never was one. It locks and creates nothing.
    ///
    /// # Errors
    /// Returns [`FootprintError`] if that can't be told, or an agent would not start on
    /// it.
    pub fn known(config: &Config) -> Result<Option<AgentId>, FootprintError> {
        let Some((record, agent)) = HostStateFile::read(&config.state_dir)? else {
            return Ok(None);
        };
        check_unmoved(config, &record)?;
        Ok(Some(agent))
    }

    /// Returns the agent's id.
    #[must_use]
    pub const fn agent(&self) -> AgentId {
        self.agent
    }

    /// Returns whether a store was made here before.
    #[must_use]
    pub const fn has_store(&self) -> bool {
        self.record.store
    }

    /// Records that there is a store now, and whether this process made it.
    ///
    /// # Errors
    /// Returns [`FootprintError`] if that can't be written.
    pub fn note_store(&mut self, is_new: bool) -> Result<(), FootprintError> {
        self.store_is_new = is_new;
        if self.record.store {
            return Ok(());
        }
        self.record.store = true;
        self.record.save(&self.state_dir)
    }

    /// Undoes the claim of an agent that could not start; an agent that had started
    /// before keeps its footprint.
    ///
    /// # Errors
    /// Returns [`FootprintError`] if something can't be removed.
    pub fn abandon(self) -> Result<(), FootprintError> {
        // A store that was there before must stay, whether the footprint was lost or is
        // kept.
        if self.store_is_new {
            remove_store(&self.state_dir)?;
        }
        if !self.fresh {
            return Ok(());
        }
        remove_audit(&self.state_dir)?;
        remove_record(&self.state_dir, &self.record)?;
        self.locks.give_back()?;
        remove_folders(&self.record.created)
    }
}

/// The state that a stopped agent has left, locked so that no agent starts.
#[derive(Debug)]
pub struct AbandonedState {
    state_dir: PathBuf,
    record: Option<(HostStateFile, AgentId)>,
    /// The locks of the folders that exist; without its folders no agent can be running.
    locks: Locks,
}

impl AbandonedState {
    /// Locks and reads what exists.
    ///
    /// # Errors
    /// Returns [`FootprintError::Locked`] if an agent is running, and other errors if the
    /// footprint can't be read.
    pub fn of(config: &Config) -> Result<Self, FootprintError> {
        let locks = Locks::take(&[&config.runtime_dir, &config.state_dir])?;
        match HostStateFile::read(&config.state_dir) {
            Ok(record) => Ok(Self {
                state_dir: config.state_dir.clone(),
                record,
                locks,
            }),
            Err(error) => {
                locks.give_back()?;
                Err(error)
            }
        }
    }

    /// Returns the agent's id, if it is recorded.
    #[must_use]
    pub fn agent(&self) -> Option<AgentId> {
        self.record.as_ref().map(|(_, agent)| *agent)
    }

    /// Returns the folder of its pins, as recorded or else as configured.
    #[must_use]
    pub fn bpffs_dir<'a>(&'a self, config: &'a Config) -> &'a Path {
        let written = self.record.as_ref().map(|(record, _)| &record.bpffs_dir);
        written.unwrap_or(&config.bpffs_dir)
    }

    /// Returns the folder of the namespaces with its tables, as recorded or else as
    /// configured.
    #[must_use]
    pub fn netns_dir<'a>(&'a self, config: &'a Config) -> &'a Path {
        let written = self.record.as_ref().map(|(record, _)| &record.netns_dir);
        written.unwrap_or(&config.netns_dir)
    }

    /// Removes all recorded state, including the store; a store that was set aside as
    /// damaged is left to the operator.
    ///
    /// # Errors
    /// Returns [`FootprintError`] if something can't be removed.
    pub fn remove(self) -> Result<(), FootprintError> {
        let mut created = Vec::new();
        if let Some((record, _)) = self.record {
            remove_store(&self.state_dir)?;
            remove_record(&self.state_dir, &record)?;
            created = record.created;
        }
        self.locks.remove()?;
        remove_folders(&created)
    }
}

/// Removes the audit trail of an agent that never was ready.
fn remove_audit(state_dir: &Path) -> Result<(), FootprintError> {
    let files = audit::files(state_dir).map_err(|source| FootprintError::File {
        path: state_dir.to_owned(),
        what: "read",
        source,
    })?;
    files.iter().try_for_each(|file| remove_file(file))
}

fn remove_store(state_dir: &Path) -> Result<(), FootprintError> {
    let store = state_dir.join(store::NAME);
    remove_file(&store)?;
    remove_file(&store::counter(&store))?;
    remove_file(&store::unfinished(&store))
}

fn remove_record(state_dir: &Path, record: &HostStateFile) -> Result<(), FootprintError> {
    if let Some(mounted) = &record.mounted {
        mounted.unmount()?;
    }
    remove_file(&state_dir.join(record::NAME))
}

fn check_unmoved(config: &Config, record: &HostStateFile) -> Result<(), FootprintError> {
    for (key, configured, used) in [
        ("bpffs_dir", &config.bpffs_dir, &record.bpffs_dir),
        ("netns_dir", &config.netns_dir, &record.netns_dir),
    ] {
        if configured != used {
            return Err(FootprintError::Moved {
                key,
                configured: configured.clone(),
                used: used.clone(),
            });
        }
    }
    Ok(())
}
