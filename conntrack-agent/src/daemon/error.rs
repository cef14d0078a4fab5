//! The errors that keep the daemon from starting, or end it.

use std::{ffi::OsString, io};

use crate::{
    agent::AgentError,
    api::{ListenError, TokensError},
    audit::AuditError,
    host_state::FootprintError,
    kernel::{self, CapabilityError},
};

/// Why the agent did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The agent could not take over its state, or go on.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// It may not do what it has to.
    #[error(transparent)]
    Capabilities(#[from] CapabilityError),
    /// The pins can't be read, or are a newer agent's.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// A folder could not be had.
    #[error(transparent)]
    HostState(#[from] FootprintError),
    /// The agent's thread, or one that answers requests, can't be started.
    #[error("no thread can be started")]
    Thread(#[source] io::Error),
    /// A part of it has ended without being told to: a bug.
    #[error("{0} has ended unexpectedly")]
    Ended(&'static str),
    /// Nobody could be listened to.
    #[error(transparent)]
    Listen(#[from] ListenError),
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
