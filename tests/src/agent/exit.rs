//! The end of a program, and what it has said until then.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::process::{Process, Stream};

/// How a run of a program ended.
#[derive(Debug)]
pub struct Exit {
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Its data.
    pub stdout: String,
    /// Its diagnostics.
    pub stderr: String,
}

impl Exit {
    /// Runs a program, which must end by itself.
    #[must_use]
    pub fn of(command: Command, limit: Duration) -> Self {
        Self::wait(&mut Process::start(None, command), limit)
    }

    /// Waits for the end of a process.
    pub(super) fn wait(process: &mut Process, limit: Duration) -> Self {
        let status = process.wait(limit).unwrap_or_else(|error| {
            let said = process.lines().join("\n");
            panic!("{error}; it said:\n{said}")
        });
        Self {
            code: status.code(),
            stdout: process.text(Stream::Out),
            stderr: process.text(Stream::Err),
        }
    }

    /// The data of a program that must have succeeded.
    #[must_use]
    #[track_caller]
    pub fn good(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }

    /// The same where they are JSON.
    #[must_use]
    #[track_caller]
    pub fn json(self) -> Value {
        let data = self.good();
        serde_json::from_str(&data).unwrap_or_else(|error| panic!("{error}: {data}"))
    }
}
