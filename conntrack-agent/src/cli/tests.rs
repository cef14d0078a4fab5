//! The commands as a shell sees them, against daemons good and bad.

mod answers;
mod command_line;
mod contract;
mod daemon;
mod resources;
mod screen;

use std::{ffi::OsString, fs, path::Path};

use serde_json::Value;
use tempfile::TempDir;

use self::{
    contract::{A, B, id, rule, with},
    daemon::{Daemon, Rude},
};
use super::{Cli, Status, run, terminal::Terminal};
use crate::kernel::Build;

/// A command line, and what it left behind.
#[derive(Debug)]
struct Done {
    #[expect(
        dead_code,
        reason = "names the row of a table in the message of a failure"
    )]
    command: String,
    status: Status,
    out: String,
    err: String,
}

impl Done {
    #[track_caller]
    fn json(&self) -> Value {
        self.lines();
        assert!(self.out.ends_with('\n'), "{self:?}");
        serde_json::from_str(&self.out).unwrap()
    }

    #[track_caller]
    fn lines(&self) -> Vec<&str> {
        assert_eq!((self.status, &*self.err), (Status::Success, ""), "{self:?}");
        self.out.lines().collect()
    }

    /// A failure: nothing on stdout, one sentence on stderr, with these parts.
    #[track_caller]
    fn fails(&self, status: Status, parts: &[&str]) {
        assert_eq!((self.status, &*self.out), (status, ""), "{self:?}");
        for part in parts {
            assert!(self.err.contains(part), "{self:?} lacks {part}");
        }
        if status != Status::Usage {
            assert!(self.err.starts_with("conntrack-agent: "), "{self:?}");
        }
    }
}

/// A command line; a single space is between two words.
fn words(command: &str) -> impl Iterator<Item = OsString> {
    ["conntrack-agent"]
        .into_iter()
        .chain(command.split(' '))
        .map(OsString::from)
}

fn on(terminal: Option<Terminal>, socket: &Path, command: &str) -> Done {
    let command = format!("{command} --socket {}", socket.display());
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let status = run(
        &Build::built_in(),
        words(&command),
        &mut out,
        terminal,
        &mut err,
    );
    Done {
        command,
        status,
        out: String::from_utf8(out).unwrap(),
        err: String::from_utf8(err).unwrap(),
    }
}

fn ask(daemon: &Daemon, command: &str) -> Done {
    on(None, &daemon.socket(), command)
}

/// Against nobody; what gets as far as asking exits 69.
fn alone(command: &str) -> Done {
    on(None, Path::new("/nonexistent/agent.sock"), command)
}

/// Four rules on two routers, in no order.
fn some() -> Vec<Value> {
    let shadowed = with(rule(4, A, "tcp", 21, "sane"), "status", "shadowed");
    vec![
        rule(3, B, "udp", 69, "tftp"),
        with(rule(2, A, "udp", 69, "tftp"), "origin", "file"),
        with(shadowed, "status_reason", "rule 1 is older"),
        rule(1, A, "tcp", 21, "ftp"),
    ]
}

/// A folder with a rules file, and the file's path.
fn rules_file(text: &str) -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = format!("{}/rules.toml", folder.path().display());
    fs::write(&file, text).unwrap();
    (folder, file)
}
