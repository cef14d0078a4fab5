//! `cleanup`: removes everything that the agent ever made.

use crate::{
    api::{ListenError, SOCKET, remove_socket},
    audit,
    config::Config,
    host_state::{AbandonedState, FootprintError},
    kernel::{self, CapabilityError, Nft, require_capabilities},
    teardown::{Removed, remove_datapath},
};

/// The error after which something may be left.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// The process lacks capabilities that it needs.
    #[error(transparent)]
    NotPermitted(#[from] CapabilityError),
    /// An agent is running, or its folders can't be used.
    #[error(transparent)]
    HostState(#[from] FootprintError),
    /// The socket's file can't be removed.
    #[error(transparent)]
    Socket(#[from] ListenError),
    /// The kernel or nft refused.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
}

/// Removes links, then bindings, then instances, then files: at no moment does
/// a classifier run without its binding.
///
/// # Errors
/// Returns [`CleanupError`] if something could not be removed; another call goes on
/// from there.
pub fn cleanup(config: &Config) -> Result<Removed, CleanupError> {
    require_capabilities()?;
    // Before anything is looked at: an agent that runs must not lose it.
    let remains = AbandonedState::of(config)?;
    let mut removed = remove_datapath(
        &Nft::new(&config.nft),
        remains.bpffs_dir(config),
        remains.netns_dir(config),
        remains.agent(),
    )?;
    // Of an agent that was killed; none can be listening, as none runs.
    remove_socket(&config.runtime_dir.join(SOCKET))?;
    remains.remove()?;
    removed.audit_trail_stays =
        audit::files(&config.state_dir).is_ok_and(|files| !files.is_empty());
    Ok(removed)
}
