//! Defines the errors of the client.

use std::{io, path::PathBuf, time::Duration};

use hyper::StatusCode;

use crate::model::RuleId;

/// The error of a request, as a sentence for the user.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The process can't make a runtime.
    #[error("the client cannot start")]
    Runtime(#[source] io::Error),
    /// The request could not be built, which is a bug.
    #[error("the request cannot be made")]
    NotAsked(#[source] hyper::http::Error),
    /// No agent can be connected to.
    #[error("the daemon cannot be reached at {}", socket.display())]
    Unreachable {
        /// The path of the socket.
        socket: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The user has no permission to connect to the socket.
    #[error("the daemon's socket {} may not be used", socket.display())]
    SocketForbidden {
        /// The socket.
        socket: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The agent does not permit the request (status 401 or 403).
    #[error("{message}")]
    NotPermitted {
        /// The agent's reason.
        message: String,
    },
    /// The agent refused the request, or failed.
    #[error("{message}")]
    Refused {
        /// The status of the answer, 400 or above.
        status: StatusCode,
        /// The agent's reason.
        message: String,
    },
    /// No rule has this id.
    #[error("there is no rule {0}")]
    NoSuchRule(RuleId),
    /// The agent gave no valid answer.
    #[error("{fault}{}", if *.changes { "; whether the change was made is not known" } else { "" })]
    NoAnswer {
        /// The fault of the answer.
        fault: ResponseFault,
        /// Whether the request may have changed something.
        changes: bool,
    },
}

/// The fault of an invalid answer.
#[derive(Debug, thiserror::Error)]
pub enum ResponseFault {
    /// The answer was not complete in time.
    #[error("the daemon gave no whole answer within {} seconds", .0.as_secs_f32())]
    Late(Duration),
    /// The answer is larger than the limit.
    #[error("the daemon's answer is larger than {}", size(*.0))]
    TooLarge(usize),
    /// The connection ended before the answer did.
    #[error("the daemon closed the connection before its answer was whole")]
    Closed(#[source] hyper::Error),
    /// The answer is not HTTP.
    #[error("what listens on the socket does not answer in HTTP")]
    NotHttp(#[source] hyper::Error),
    /// The status is a success, but the body is not the expected resource.
    #[error("the daemon's answer is not understood")]
    NotUnderstood(#[source] serde_json::Error),
    /// The status is neither a success nor a failure, or is a failure without a reason.
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
