//! Maps errors to exit codes (sysexits.h).

use crate::{
    agent::AgentError, client::ClientError, config::ConfigError, daemon::RunError,
    sources::rules_file::RulesFileError,
};

/// The exit code, as in sysexits.h where that has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// The command succeeded.
    Success = 0,
    /// The command failed.
    Failure = 1,
    /// The command line is wrong; the code is clap's.
    Usage = 2,
    /// The daemon can't be reached: `EX_UNAVAILABLE`.
    Unavailable = 69,
    /// The user is not allowed to do that: `EX_NOPERM`.
    NotPermitted = 77,
    /// The configuration or the rules file is wrong: `EX_CONFIG`.
    Configuration = 78,
}

/// A failure, and the exit code that goes with it.
#[derive(Debug)]
pub(super) struct Failed(pub(super) Status, pub(super) anyhow::Error);

impl From<ConfigError> for Failed {
    fn from(error: ConfigError) -> Self {
        Self(Status::Configuration, error.into())
    }
}

impl From<RulesFileError> for Failed {
    fn from(error: RulesFileError) -> Self {
        Self(Status::Configuration, error.into())
    }
}

impl From<RunError> for Failed {
    fn from(error: RunError) -> Self {
        let status = match error {
            RunError::Agent(AgentError::Rules(_) | AgentError::Refused(_)) => Status::Configuration,
            _ => Status::Failure,
        };
        Self(status, error.into())
    }
}

impl From<ClientError> for Failed {
    fn from(error: ClientError) -> Self {
        let status = match error {
            ClientError::Unreachable { .. } => Status::Unavailable,
            ClientError::SocketForbidden { .. } | ClientError::NotPermitted { .. } => {
                Status::NotPermitted
            }
            ClientError::Runtime(_)
            | ClientError::NotAsked(_)
            | ClientError::Refused { .. }
            | ClientError::NoSuchRule(_)
            | ClientError::NoAnswer { .. } => Status::Failure,
        };
        Self(status, error.into())
    }
}

impl From<anyhow::Error> for Failed {
    fn from(error: anyhow::Error) -> Self {
        Self(Status::Failure, error)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn exit_codes_are_what_scripts_depend_on() {
        for (status, code) in [
            (Status::Success, 0),
            (Status::Failure, 1),
            (Status::Usage, 2),
            (Status::Unavailable, 69),
            (Status::NotPermitted, 77),
            (Status::Configuration, 78),
        ] {
            assert_eq!(status as u8, code);
        }
    }

    #[test]
    fn a_socket_that_may_not_be_used_is_told_from_one_that_is_not_there() {
        let forbidden = ClientError::SocketForbidden {
            socket: "/run/x".into(),
            source: io::ErrorKind::PermissionDenied.into(),
        };
        let unreachable = ClientError::Unreachable {
            socket: "/run/x".into(),
            source: io::ErrorKind::NotFound.into(),
        };
        for (error, status, part) in [
            (forbidden, Status::NotPermitted, "/run/x may not be used"),
            (
                unreachable,
                Status::Unavailable,
                "cannot be reached at /run/x",
            ),
        ] {
            let failed = Failed::from(error);
            assert_eq!(failed.0, status, "{part}");
            assert!(failed.1.to_string().contains(part), "{failed:?}");
        }
    }
}
