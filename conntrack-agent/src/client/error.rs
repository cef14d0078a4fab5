//! Why a question to the agent has no answer, or not the one that was wanted.

use std::{io, path::PathBuf, time::Duration};

use hyper::StatusCode;

use crate::model::RuleId;

/// What went wrong, as a sentence for whoever asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// This process can't do what a client needs.
    #[error("the client cannot start")]
    Runtime(#[source] io::Error),
    /// The request could not be put together: a bug.
    #[error("the request cannot be made")]
    NotAsked(#[source] hyper::http::Error),
    /// Nobody can be connected to.
    #[error("the daemon cannot be reached at {}", socket.display())]
    Unreachable {
        /// Where it was looked for.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system lets this user not connect.
    #[error("the daemon's socket {} may not be used", socket.display())]
    SocketForbidden {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The agent lets this user not do that: 401 or 403.
    #[error("{message}")]
    NotPermitted {
        /// The agent's reason.
        message: String,
    },
    /// The agent refused, or failed.
    #[error("{message}")]
    Refused {
        /// The status of its answer, 400 or above.
        status: StatusCode,
        /// The agent's reason.
        message: String,
    },
    /// No rule has this name.
    #[error("there is no rule {0}")]
    NoSuchRule(RuleId),
    /// There is no answer that could be used.
    #[error("{fault}{}", if *.changes { "; whether the change was made is not known" } else { "" })]
    NoAnswer {
        /// What became of it.
        fault: ResponseFault,
        /// Whether the request was to change something.
        changes: bool,
    },
}

/// What became of an answer that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ResponseFault {
    /// It took too long.
    #[error("the daemon gave no whole answer within {} seconds", .0.as_secs_f32())]
    Late(Duration),
    /// It is too large.
    #[error("the daemon's answer is larger than {}", size(*.0))]
    TooLarge(usize),
    /// The connection ended before the answer did.
    #[error("the daemon closed the connection before its answer was whole")]
    Closed(#[source] hyper::Error),
    /// Whoever answers doesn't speak HTTP.
    #[error("what listens on the socket does not answer in HTTP")]
    NotHttp(#[source] hyper::Error),
    /// The status says success, and the body is not what goes with it.
    #[error("the daemon's answer is not understood")]
    NotUnderstood(#[source] serde_json::Error),
    /// The status says neither success nor failure, or failure and no reason.
    #[error("the daemon answered {0} and no reason")]
    NoReason(StatusCode),
}

fn size(bytes: usize) -> String {
    const MEBIBYTE: usize = 1 << 20;
    match (bytes / MEBIBYTE, bytes % MEBIBYTE) {
        (whole @ 1.., 0) => format!("{whole} MiB"),
        _ => format!("{bytes} bytes"),
    }
}
