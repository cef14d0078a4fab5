//! The errors that keep the daemon from starting, or end it.

use std::{ffi::OsString, io};

use crate::{
    agent::AgentError,
    api::{ListenError, TokensError},
    audit::AuditError,
    host_state::FootprintError,
    kernel::{self, CapabilityError},
};

/// The error that keeps the daemon from starting, or ends it.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The agent could not take over its state, or go on.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The process lacks capabilities that it needs.
    #[error(transparent)]
    Capabilities(#[from] CapabilityError),
    /// The pins can't be read, or belong to an agent with a newer ABI.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// A folder can't be created, locked or used.
    #[error(transparent)]
    HostState(#[from] FootprintError),
    /// The agent's thread, or a thread that answers requests, can't be started.
    #[error("no thread can be started")]
    Thread(#[source] io::Error),
    /// A part of the daemon ended without being told to, which is a bug.
    #[error("{0} has ended unexpectedly")]
    Ended(&'static str),
    /// A listener can't be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The token file can't be read, or is refused.
    #[error(transparent)]
    Tokens(#[from] TokensError),
    /// The audit trail can't be opened.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// Signals can't be received.
    #[error("signals cannot be received")]
    Signals(#[source] io::Error),
    /// The service manager's socket can't be opened.
    #[error("the service manager's socket {socket:?} (NOTIFY_SOCKET) cannot be used")]
    Notify {
        /// The address of its socket, as `NOTIFY_SOCKET` gives it.
        socket: OsString,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The process's capabilities can't be reduced.
    #[error("the agent cannot give up the capabilities that it doesn't need")]
    Reduce(#[source] io::Error),
    /// The daemon has ended, but could not remove the datapath as `on_stop` demands.
    #[error("the datapath is not removed; `conntrack-agent cleanup` goes on with it")]
    OnStop(#[source] kernel::Error),
}
