//! Why the agent's work came to nothing.

use std::path::PathBuf;

use crate::{
    engine::{Inconsistent, Refusal},
    host_state::FootprintError,
    kernel,
    reconcile::ApplyError,
    sources::{listed, rules_file::RulesFileError},
    store::StoreError,
};

/// Why the agent can't take over its state, change it, or go on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The rules file was refused.
    #[error(transparent)]
    Rules(#[from] RulesFileError),
    /// The kernel or nft is not as needed.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// A folder could not be had.
    #[error(transparent)]
    HostState(#[from] FootprintError),
    /// A change of the rules could not be applied; it was taken back.
    #[error("the rules cannot be applied; those in force stay")]
    Apply(#[source] Box<ApplyError>),
    /// The mapping can't become what the rules file says.
    #[error("the rules are refused:{}", listed(.0))]
    Refused(Vec<Refusal>),
    /// The store can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is a good store.
    #[error("the store {} is good; there is nothing to rebuild", .0.display())]
    NothingToRebuild(PathBuf),
    /// There is no rules file to rebuild from.
    #[error("--rebuild rules needs the rules file: give --rules FILE too")]
    NoRulesFile,
    /// What is pinned is no mapping: a bug.
    #[error("the rules in force make no mapping")]
    Inconsistent(#[source] Inconsistent),
    /// The kernel's events can't be had.
    #[error(transparent)]
    Watch(#[from] kernel::WatchError),
}
