//! The API, asked as an operator would: with curl.

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::accounts::launcher;

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status; 0 if there was no connection.
    pub status: u16,
    /// Its body; null if it has none.
    pub body: Value,
}

impl Answer {
    /// Neutron's name for the kind of error; empty if it is none.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.body["NeutronError"]["type"].as_str().unwrap_or("")
    }

    /// Asserts that it is a refusal of this status and kind, which says this.
    #[track_caller]
    pub fn assert_refused(&self, status: u16, kind: &str, words: &str) {
        assert_eq!((self.status, self.kind()), (status, kind), "{self:?}");
        assert!(self.message().contains(words), "{words:?}: {self:?}");
    }

    /// What the error says.
    #[must_use]
    pub fn message(&self) -> &str {
        self.body["NeutronError"]["message"].as_str().unwrap_or("")
    }
}

/// A request, as a table has it.
#[derive(Clone, Debug)]
pub struct ApiRequest {
    /// Its method.
    pub method: String,
    /// Its path.
    pub path: String,
    /// Its body of JSON; empty for none.
    pub body: String,
}

impl ApiRequest {
    /// Reads the first two cells of a row: `METHOD PATH | BODY`.
    #[must_use]
    pub fn of(row: &[String]) -> Self {
        let (method, path) = row[0].split_once(' ').expect("a method and a path");
        Self {
            method: method.to_owned(),
            path: path.trim().to_owned(),
            body: row.get(1).cloned().unwrap_or_default(),
        }
    }
}

/// A way to the API, and who takes it.
#[derive(Clone, Debug)]
pub struct Caller {
    launcher: Vec<String>,
    arguments: Vec<OsString>,
    host: String,
}

impl Caller {
    /// This process's user, over the Unix socket.
    #[must_use]
    pub fn local(socket: &Path) -> Self {
        Self {
            launcher: Vec::new(),
            arguments: vec!["--unix-socket".into(), socket.into()],
            host: "agent".into(),
        }
    }

    /// Over TCP, without a token.
    #[must_use]
    pub fn tcp(address: SocketAddr) -> Self {
        Self {
            launcher: Vec::new(),
            arguments: vec!["--noproxy".into(), "*".into()],
            host: address.to_string(),
        }
    }

    /// As another user, in this group and in these others.
    #[must_use]
    pub fn as_user(mut self, uid: u32, gid: u32, others: &[u32]) -> Self {
        self.launcher = launcher(uid, gid, others);
        self
    }

    /// With this token.
    #[must_use]
    pub fn with_token(self, token: &str) -> Self {
        // A header without a value is written with a semicolon (curl(1)).
        let header = match token {
            "" => "x-auth-token;".to_owned(),
            token => format!("x-auth-token: {token}"),
        };
        self.with(&["--header", &header])
    }

    /// With further arguments for curl.
    #[must_use]
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(OsString::from));
        self
    }

    /// One request with a body of JSON, or without one if it is empty.
    #[must_use]
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        let (status, text) = self.text(method, path, body);
        let body = if text.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&text)
                .unwrap_or_else(|error| panic!("{method} {path}: {error}: {text:?}"))
        };
        Answer { status, body }
    }

    /// One request of a table.
    #[must_use]
    pub fn send(&self, ApiRequest { method, path, body }: &ApiRequest) -> Answer {
        self.ask(method, path, body)
    }

    /// The same, and the answer's status and its body, whatever that is.
    #[must_use]
    pub fn text(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let words = self.launcher.iter().map(OsStr::new);
        let mut words = words.chain([OsStr::new("curl")]);
        let mut command = Command::new(words.next().expect("a program"));
        command
            .args(words)
            .args(["--silent", "--show-error", "--max-time", "60", "--globoff"])
            .args(["--write-out", "\n%{http_code}", "--request", method]);
        if !body.is_empty() {
            command.args(["--header", "content-type: application/json"]);
            command.args(["--data-binary", body]);
        }
        command
            .args(&self.arguments)
            .arg(format!("http://{}{path}", self.host));
        let output = command.output().expect("curl");
        let text = String::from_utf8(output.stdout).expect("text");
        let said = String::from_utf8_lossy(&output.stderr);
        let (body, status) = text
            .rsplit_once('\n')
            .unwrap_or_else(|| panic!("{command:?} did not run: {said}"));
        (status.parse().expect("a status"), body.to_owned())
    }
}

/// One request over the Unix socket.
#[must_use]
pub fn curl(socket: &Path, method: &str, path: &str, body: &str) -> Answer {
    Caller::local(socket).ask(method, path, body)
}
