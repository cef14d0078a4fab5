//! Mounts the bpffs again after somebody unmounted it.

use std::path::PathBuf;

use super::{
    FootprintError,
    folders::Mounted,
    record::{self, HostStateFile},
};
use crate::{config::Config, kernel};

/// The place of the bpffs that the agent pins in.
#[derive(Debug)]
pub struct Bpffs {
    root: PathBuf,
    state_dir: PathBuf,
}

impl Bpffs {
    /// Returns the place that is configured, for an agent that has its footprint.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            root: config.bpffs_root().to_owned(),
            state_dir: config.state_dir.clone(),
        }
    }

    /// Mounts a bpffs if there is none any more, and records it, so that `cleanup`
    /// unmounts it. Returns whether it mounted one.
    ///
    /// # Errors
    /// Returns [`FootprintError`] if none can be mounted, or that can't be recorded; then
    /// none is mounted.
    pub fn ensure(&self) -> Result<bool, FootprintError> {
        if kernel::is_bpffs(&self.root) {
            return Ok(false);
        }
        let Some((mut record, _)) = HostStateFile::read(&self.state_dir)? else {
            return Err(FootprintError::Damaged {
                path: self.state_dir.join(record::NAME),
                said: "it is gone".to_owned(),
            });
        };
        let mut created = Vec::new();
        let Some(mounted) = Mounted::ensure(&self.root, &mut created)? else {
            return Ok(false);
        };
        record.created.extend(created);
        record.mounted = Some(mounted.clone());
        if let Err(error) = record.save(&self.state_dir) {
            mounted.unmount()?;
            return Err(error);
        }
        Ok(true)
    }
}
