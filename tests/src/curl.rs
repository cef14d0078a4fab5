//! The API, asked as an operator would: with curl over the Unix socket.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
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

    /// What the error says.
    #[must_use]
    pub fn message(&self) -> &str {
        self.body["NeutronError"]["message"].as_str().unwrap_or("")
    }
}

/// One request with a body of JSON, or without one if it is empty.
#[must_use]
pub fn curl(socket: &Path, method: &str, path: &str, body: &str) -> Answer {
    curl_with(socket, method, path, body, &[])
}

/// The same with further arguments for curl.
#[must_use]
pub fn curl_with(
    socket: &Path,
    method: &str,
    path: &str,
    body: &str,
    arguments: &[&str],
) -> Answer {
    let mut command = Command::new("curl");
    command
        .args(["--silent", "--show-error", "--max-time", "60", "--globoff"])
        .args(["--write-out", "\n%{http_code}", "--request", method])
        .arg("--unix-socket")
        .arg(socket);
    if !body.is_empty() {
        command.args(["--header", "content-type: application/json"]);
        command.args(["--data-binary", body]);
    }
    command.args(arguments).arg(format!("http://agent{path}"));
    let output = command.output().expect("curl");
    let text = String::from_utf8(output.stdout).expect("text");
    let said = String::from_utf8_lossy(&output.stderr);
    let (body, status) = text.rsplit_once('\n').unwrap_or(("", "0"));
    let body = if body.is_empty() {
        Value::Null
    } else {
        serde_json::from_str(body)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}: {body:?} {said}"))
    };
    Answer {
        status: status.parse().expect("a status"),
        body,
    }
}
