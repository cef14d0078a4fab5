//! Runs nft, and encodes the part of its JSON that the binding needs.
//!
//! The schema is that of libnftables-json(5). Rulesets are written and
//! understood by the program and not by netlink: nftables' expressions for a
//! mapped `ct helper` are its own business, and the program is what an operator
//! looks with.

use std::{
    io::{self, Read, Write as _},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    thread,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};

use serde::Serialize;
use serde_json::Value;

use super::Error;

/// The time limit of a run. It takes milliseconds, or longer on a host whose
/// other tables are being written. Without a limit, a run that hangs would hold
/// up the agent, its stopping included.
const LIMIT: Duration = Duration::from_secs(30);

/// The limit of a program's output that is read, in bytes.
const MOST: u64 = 64 << 20;

/// The nft program.
#[derive(Clone, Debug)]
pub struct Nft(PathBuf);

/// The failure of an nft run, with its message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NftFailure {
    /// The exit code; `None` if a signal ended it.
    code: Option<i32>,
    said: String,
}

impl NftFailure {
    /// Returns whether nft itself, and not, say, the dynamic linker, said that
    /// the object to be listed does not exist.
    pub(super) fn is_not_found(&self) -> bool {
        self.code == Some(1) && self.said == "Error: No such file or directory"
    }

    pub(super) fn in_place(self, place: &str) -> Error {
        Error::Nft {
            place: place.to_owned(),
            said: self.said,
        }
    }
}

impl Nft {
    /// Names the program at `path`, or of that name in `PATH`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Returns the line that nft prints for its version.
    ///
    /// # Errors
    /// [`Error`] if there is no nft, or it fails.
    pub fn version(&self) -> Result<String, Error> {
        let said = self.run(&["--version"], "")?;
        let said = said.map_err(|refusal| refusal.in_place("saying its version"))?;
        Ok(said.trim().to_owned())
    }

    /// Carries out all commands in one transaction, in the calling thread's
    /// network namespace: all of them take effect, or none.
    pub(super) fn transact(&self, commands: &[NftChange]) -> Result<Result<(), NftFailure>, Error> {
        let input = serde_json::json!({ "nftables": commands }).to_string();
        let output = self.run(&["-j", "-f", "-"], &input)?;
        Ok(output.map(|_| ()))
    }

    /// Lists a table of family inet in the calling thread's network namespace,
    /// without what differs between two equal tables.
    pub(super) fn list_table(&self, table: &str) -> Result<Result<Value, NftFailure>, Error> {
        let output = self.run(&["-j", "list", "table", "inet", table], "")?;
        Ok(output.and_then(|json| {
            let mut listing: Value = serde_json::from_str(&json).map_err(|error| NftFailure {
                code: None,
                said: format!("its listing is not JSON: {error}"),
            })?;
            drop_handles(&mut listing);
            Ok(listing)
        }))
    }

    fn run(&self, arguments: &[&str], input: &str) -> Result<Result<String, NftFailure>, Error> {
        // When descriptors or processes run out, say, the program exists all the
        // same.
        let not_run = |source: io::Error| {
            let program = self.0.clone();
            match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
                    Error::NftMissing { program, source }
                }
                _ => Error::NftNotRun { program, source },
            }
        };
        let mut child = Command::new(&self.0)
            .args(arguments)
            .env("LC_ALL", "C")
            // The service manager's messages with the agent are not for its
            // children.
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_PID")
            .env_remove("WATCHDOG_USEC")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(not_run)?;
        let output = converse(&mut child, input, LIMIT).map_err(not_run)?;
        let Some(output) = output else {
            return Err(Error::NftHangs {
                program: self.0.clone(),
                limit: LIMIT,
            });
        };
        if output.status.success() {
            return Ok(Ok(String::from_utf8_lossy(&output.stdout).into_owned()));
        }
        // nft repeats a message for each command that it concerns; the first
        // line that isn't empty is enough.
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().find(|line| !line.trim().is_empty());
        let said = said.map_or_else(|| output.status.to_string(), |line| line.trim().to_owned());
        Ok(Err(NftFailure {
            code: output.status.code(),
            said,
        }))
    }
}

/// Gives a process its input and takes its output. Returns `None` if it didn't
/// end in time and was killed. Either way it has ended.
fn converse(child: &mut Child, input: &str, limit: Duration) -> io::Result<Option<Output>> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    thread::scope(|scope| {
        // Each pipe has a thread of its own, so that none can keep the others
        // waiting.
        let stdout = scope.spawn(|| read_all(stdout));
        let stderr = scope.spawn(|| read_all(stderr));
        scope.spawn(move || {
            if let Some(mut stdin) = stdin {
                // A program that ends without reading is judged by its status.
                drop(stdin.write_all(input.as_bytes()));
            }
        });
        let in_time = ends_in_time(child, limit);
        if !matches!(in_time, Ok(true)) {
            child.kill()?;
        }
        let status = child.wait()?;
        let lost = |_| io::Error::other("its output was lost");
        let output = Output {
            status,
            stdout: stdout.join().map_err(lost)??,
            stderr: stderr.join().map_err(lost)??,
        };
        Ok(in_time?.then_some(output))
    })
}

fn ends_in_time(child: &Child, limit: Duration) -> io::Result<bool> {
    let pid = Pid::from_child(child);
    let handle = pidfd_open(pid, PidfdFlags::empty())?;
    let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
    loop {
        match poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&limit)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn read_all(pipe: Option<impl Read>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(MOST + 1).read_to_end(&mut bytes)?;
    }
    if bytes.len() as u64 > MOST {
        return Err(io::Error::other(format!("it says more than {MOST} bytes")));
    }
    Ok(bytes)
}

/// Removes handles, which the kernel numbers as objects come, and `metainfo`,
/// which is nft's own.
fn drop_handles(value: &mut Value) {
    match value {
        Value::Array(elements) => {
            elements.retain(|element| element.get("metainfo").is_none());
            elements.iter_mut().for_each(drop_handles);
        }
        Value::Object(fields) => {
            fields.remove("handle");
            fields.values_mut().for_each(drop_handles);
        }
        _ => {}
    }
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum NftChange {
    /// Adds an object that may be there already.
    Add(NftObject),
    /// Creates an object that must not be there.
    Create(NftObject),
    Delete(NftObject),
}

#[derive(Clone, Debug, Serialize)]
pub(super) enum NftObject {
    #[serde(rename = "table")]
    Table { family: TableFamily, name: String },
    #[serde(rename = "ct helper")]
    CtHelper {
        family: TableFamily,
        table: String,
        name: String,
        #[serde(rename = "type")]
        kind: &'static str,
        protocol: &'static str,
        l3proto: &'static str,
    },
    #[serde(rename = "chain")]
    Chain {
        family: TableFamily,
        table: String,
        name: &'static str,
        #[serde(rename = "type")]
        kind: &'static str,
        hook: &'static str,
        prio: i32,
        policy: &'static str,
    },
    /// A chain that exists, by its name alone.
    #[serde(rename = "chain")]
    ChainNamed {
        family: TableFamily,
        table: String,
        name: &'static str,
    },
    #[serde(rename = "rule")]
    Rule {
        family: TableFamily,
        table: String,
        chain: &'static str,
        expr: Vec<Statement>,
    },
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum TableFamily {
    Inet,
}

#[derive(Clone, Debug, Serialize)]
pub(super) enum Statement {
    #[serde(rename = "match")]
    Match {
        op: &'static str,
        left: Expression,
        right: Expression,
    },
    #[serde(rename = "accept")]
    Accept(()),
    #[serde(rename = "ct helper")]
    SetHelper(Expression),
    #[serde(rename = "mangle")]
    Mangle { key: Expression, value: Expression },
}

#[derive(Clone, Debug, Serialize)]
pub(super) enum Expression {
    #[serde(rename = "meta")]
    Meta { key: &'static str },
    #[serde(rename = "ct")]
    Ct { key: &'static str },
    #[serde(rename = "&")]
    And(Box<Self>, Box<Self>),
    #[serde(rename = "map")]
    Map { key: Box<Self>, data: Box<Self> },
    #[serde(rename = "set")]
    Set(Vec<(u32, String)>),
    #[serde(untagged)]
    Number(u32),
    #[serde(untagged)]
    Symbol(&'static str),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(program: &str, argument: &str) -> Child {
        let mut command = Command::new(program);
        command.arg(argument).stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    #[test]
    fn a_process_that_does_not_end_is_killed() {
        let mut child = start("sleep", "1000");
        let output = converse(&mut child, "", Duration::from_millis(50)).unwrap();
        assert!(output.is_none());
        assert!(child.try_wait().unwrap().is_some(), "and has ended");
    }

    #[test]
    fn neither_much_input_nor_much_output_blocks() {
        let input = "x".repeat(4 << 20);
        let mut child = start("cat", "-");
        let output = converse(&mut child, &input, LIMIT).unwrap().unwrap();
        assert_eq!(output.stdout.len(), input.len());
        let mut child = start("true", "");
        let output = converse(&mut child, &input, LIMIT).unwrap().unwrap();
        assert!(output.status.success());
    }

    #[test]
    fn not_found_is_nfts_own_word_alone() {
        let refusal = |code, said: &str| NftFailure {
            code,
            said: said.into(),
        };
        let own = "Error: No such file or directory";
        assert!(refusal(Some(1), own).is_not_found());
        assert!(!refusal(Some(127), own).is_not_found());
        assert!(!refusal(None, own).is_not_found());
        assert!(!refusal(Some(1), "nft: libx.so: No such file or directory").is_not_found());
    }
}
