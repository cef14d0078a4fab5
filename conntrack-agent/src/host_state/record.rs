//! The file `footprint.json`, which holds the host state.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    FootprintError,
    folders::{Mounted, failure, remove_file},
};
use crate::{config::Config, kernel::AgentId};

/// The file's name in the state folder.
pub(super) const NAME: &str = "footprint.json";

/// The content of the file.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HostStateFile {
    agent: String,
    /// The folders of the agent's pins, and of the namespaces with its tables.
    pub(super) bpffs_dir: PathBuf,
    pub(super) netns_dir: PathBuf,
    /// The folders that the agent created, outermost first.
    pub(super) created: Vec<PathBuf>,
    /// The bpffs that the agent mounted.
    pub(super) mounted: Option<Mounted>,
    /// Whether a store was made: from then on, a missing store is a lost one.
    pub(super) store: bool,
}

impl HostStateFile {
    pub(super) fn new(config: &Config, agent: AgentId) -> Self {
        Self {
            agent: agent.to_string(),
            bpffs_dir: config.bpffs_dir.clone(),
            netns_dir: config.netns_dir.clone(),
            created: Vec::new(),
            mounted: None,
            store: false,
        }
    }

    /// Reads the file in this folder; `None` if there is no file.
    pub(super) fn read(folder: &Path) -> Result<Option<(Self, AgentId)>, FootprintError> {
        let path = folder.join(NAME);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failure(&path, "read")(error)),
        };
        let damaged = |said: String| FootprintError::Damaged {
            path: path.clone(),
            said,
        };
        let record: Self =
            serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        let agent = record.agent.parse();
        let agent = agent.map_err(|error| damaged(format!("agent: {error}")))?;
        Ok(Some((record, agent)))
    }

    /// Writes the file under another name and renames it, so that it is never incomplete.
    pub(super) fn save(&self, folder: &Path) -> Result<(), FootprintError> {
        let path = folder.join(NAME);
        let beside = path.with_extension("new");
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| failure(&path, "written")(error.into()))?;
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)
            .and_then(|mut file| {
                file.write_all(&text)?;
                file.sync_all()?;
                fs::rename(&beside, &path)
            });
        written.map_err(|error| {
            // Nothing refers to the file; the first error is the one to report.
            drop(remove_file(&beside));
            failure(&path, "written")(error)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_refused_and_stays() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join(NAME);
        let mut strange =
            serde_json::to_value(HostStateFile::new(&Config::default(), AgentId::random()))
                .unwrap();
        strange["agent"] = "x".into();
        for text in ["", "{}", "not json", &strange.to_string()] {
            fs::write(&path, text).unwrap();
            let error = HostStateFile::read(root.path()).unwrap_err().to_string();
            assert!(error.contains("damaged"), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn what_was_saved_is_read() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(HostStateFile::read(root.path()).unwrap(), None);
        let agent = AgentId::random();
        let record = HostStateFile::new(&Config::default(), agent);
        record.save(root.path()).unwrap();
        assert_eq!(
            HostStateFile::read(root.path()).unwrap(),
            Some((record, agent))
        );
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }
}
