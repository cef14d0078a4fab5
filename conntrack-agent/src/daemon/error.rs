//! The errors that keep the daemon from starting, or end it.

use std::{ffi::OsString, io, path::PathBuf};

use crate::{
    api::{AccessError, ListenError, TokensError},
    audit::AuditError,
    engine::{Inconsistent, Refusal},
    host_state::FootprintError,
    kernel,
    reconcile::ApplyError,
    sources::{listed, rules_file::RulesFileError},
    store::StoreError,
};

/// Why the agent did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The rules file was refused.
    #[error(transparent)]
    Rules(#[from] RulesFileError),
    /// It may not do what it has to.
    #[error("the agent lacks {}", list(.0))]
    Capabilities(Vec<kernel::MissingCapability>),
    /// Its own capabilities could not be read.
    #[error("the agent's capabilities cannot be read")]
    Unknown(#[source] io::Error),
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
    /// The agent's thread, or one that answers requests, can't be started.
    #[error("no thread can be started")]
    Thread(#[source] io::Error),
    /// The kernel's events can't be had.
    #[error(transparent)]
    Watch(#[from] kernel::WatchError),
    /// A part of it has ended without being told to: a bug.
    #[error("{0} has ended unexpectedly")]
    Ended(&'static str),
    /// Nobody could be listened to.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The grants can't be read.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The tokens can't be had.
    #[error(transparent)]
    Tokens(#[from] TokensError),
    /// The audit trail can't be written.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// Signals can't be received.
    #[error("signals cannot be received")]
    Signals(#[source] io::Error),
    /// The service manager can't be talked to.
    #[error("the service manager's socket {socket:?} (NOTIFY_SOCKET) cannot be used")]
    Notify {
        /// As the environment has it.
        socket: OsString,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Its capabilities can't be reduced.
    #[error("the agent cannot give up the capabilities that it doesn't need")]
    Reduce(#[source] io::Error),
    /// It has ended, and its datapath could not be removed as `on_stop` wants it.
    #[error("the datapath is not removed; `conntrack-agent cleanup` goes on with it")]
    OnStop(#[source] kernel::Error),
}

fn list(missing: &[kernel::MissingCapability]) -> String {
    let needs = missing
        .iter()
        .map(|missing| format!("{} (to {})", missing.name, missing.needed_for));
    needs.collect::<Vec<_>>().join(" and ")
}
