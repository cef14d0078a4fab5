//! Defines the errors of the agent.

use std::path::PathBuf;

use crate::{
    engine::{Inconsistent, Refusal},
    host_state::FootprintError,
    kernel,
    reconcile::ApplyError,
    sources::{listed, rules_file::RulesFileError},
    store::StoreError,
};

/// The error when the agent can't start from its state, change it, or go on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The rules file was refused.
    #[error(transparent)]
    Rules(#[from] RulesFileError),
    /// The kernel or nft failed, or lacks something that the agent needs.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// A folder of the agent can't be used.
    #[error(transparent)]
    HostState(#[from] FootprintError),
    /// A change of the rules could not be applied, and was undone.
    #[error("the rules cannot be applied; those in force stay")]
    Apply(#[source] Box<ApplyError>),
    /// The rules of the rules file are not allowed.
    #[error("the rules are refused:{}", listed(.0))]
    Refused(Vec<Refusal>),
    /// The store can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store is valid, so it needs no rebuild.
    #[error("the store {} is good; there is nothing to rebuild", .0.display())]
    NothingToRebuild(PathBuf),
    /// No rules file is given from which to rebuild the store.
    #[error("--rebuild rules needs the rules file: give --rules FILE too")]
    NoRulesFile,
    /// The pinned rules contradict each other, which is a bug.
    #[error("the rules in force make no mapping")]
    Inconsistent(#[source] Inconsistent),
    /// The kernel's events can't be watched.
    #[error(transparent)]
    Watch(#[from] kernel::WatchError),
}
