//! The agent under test, as a process.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use uuid::Uuid;

use crate::attach::{self, Xdp};
use crate::lab::{Lab, LabDir};
use crate::process::{Process, Stream};
use crate::release::Release;
use crate::wait;

/// A running `conntrack-agent run`. Dropping it kills it.
pub struct Agent {
    process: Process,
    rules: PathBuf,
}

/// How a run of the agent ended.
#[derive(Debug)]
pub struct Exit {
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Its data.
    pub stdout: String,
    /// Its diagnostics.
    pub stderr: String,
}

/// What became of a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// The new rules are in force.
    Done,
    /// The old rules stay.
    Refused,
}

impl Agent {
    /// Writes the lab's configuration and these rules, starts the agent on
    /// them and waits until it is ready.
    #[must_use]
    pub fn start(lab: &Lab, rules: &str) -> Self {
        Self::start_with(lab, &Config::of(lab), rules)
    }

    /// The same with a configuration of the caller's.
    #[must_use]
    pub fn start_with(lab: &Lab, config: &Config, rules: &str) -> Self {
        let agent = Self::spawn(lab, config, Some(rules), &[]);
        agent
            .ready()
            .unwrap_or_else(|exit| panic!("the agent isn't ready: {exit:?}"))
    }

    /// Starts the agent and does not wait for it: with a rules file if there
    /// are `rules`, and with these further arguments.
    #[must_use]
    pub fn spawn(lab: &Lab, config: &Config, rules: Option<&str>, arguments: &[&str]) -> Self {
        let mut command = run_command(lab.dir(), config, rules);
        command.args(arguments);
        Self {
            process: Process::start(None, command),
            rules: rules_path(lab.dir()),
        }
    }

    /// The same with another release of the agent.
    #[must_use]
    pub fn spawn_release(
        lab: &Lab,
        config: &Config,
        rules: Option<&str>,
        release: &Release,
        arguments: &[&str],
    ) -> Self {
        let mut command = run_command(lab.dir(), config, rules);
        command.args(arguments);
        Self {
            process: Process::start(None, release.instead_of(&command)),
            rules: rules_path(lab.dir()),
        }
    }

    /// The same through `launcher`: a program and its arguments, which runs the
    /// agent in its own place (such as `env …`, `prlimit …`).
    #[must_use]
    pub fn launch(lab: &Lab, config: &Config, rules: Option<&str>, launcher: &[&str]) -> Self {
        let command = run_command(lab.dir(), config, rules);
        Self {
            process: Process::start(None, launched(launcher, command)),
            rules: rules_path(lab.dir()),
        }
    }

    /// Starts another release of the agent and waits until it is ready.
    #[must_use]
    pub fn start_release(lab: &Lab, rules: &str, release: &Release) -> Self {
        let agent = Self::spawn_release(lab, &Config::of(lab), Some(rules), release, &[]);
        agent
            .ready()
            .unwrap_or_else(|exit| panic!("{release:?} isn't ready: {exit:?}"))
    }

    /// Starts the agent through `launcher` (such as `prlimit …`), which becomes
    /// it, and waits until it is ready.
    #[must_use]
    pub fn start_through(lab: &Lab, config: &Config, rules: &str, launcher: &[&str]) -> Self {
        let agent = Self::launch(lab, config, Some(rules), launcher);
        agent
            .ready()
            .unwrap_or_else(|exit| panic!("the agent isn't ready: {exit:?}"))
    }

    /// Its process.
    #[must_use]
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// How it ended instead.
    pub fn ready(self) -> Result<Self, Exit> {
        self.ready_within(wait::patience()).map(|(agent, _)| agent)
    }

    /// The same, waiting for so long at the most; with the line that says so.
    ///
    /// # Errors
    /// How it ended instead.
    pub fn ready_within(self, limit: Duration) -> Result<(Self, String), Exit> {
        let ready = |line: &str| has_word(line, "ready").map(|()| line.to_owned());
        match self.process.wait_for_line(0, limit, ready) {
            Ok(line) => Ok((self, line)),
            Err(_) => Err(self.end()),
        }
    }

    /// Changes the rules file and has the agent read it again.
    pub fn reload(&mut self, rules: &str) -> Reload {
        self.reload_within(wait::patience(), rules)
            .unwrap_or_else(|error| panic!("no answer to SIGHUP: {error}"))
    }

    /// The same, waiting for so long at the most.
    ///
    /// # Errors
    /// Without an answer until then, or with the agent's end in its place.
    pub fn reload_within(&mut self, limit: Duration, rules: &str) -> Result<Reload, String> {
        fs::write(&self.rules, rules).expect("the rules file");
        let before = self.process.lines().len();
        self.process.signal(Signal::HUP);
        self.process.wait_for_line(before, limit, |line| {
            let refused = line.contains("reload refused").then_some(Reload::Refused);
            refused.or_else(|| line.contains("reloaded").then_some(Reload::Done))
        })
    }

    /// Asks it to stop (SIGTERM).
    #[must_use]
    pub fn stop(mut self) -> Exit {
        self.process.signal(Signal::TERM);
        self.end()
    }

    /// Kills it (SIGKILL).
    #[must_use]
    pub fn kill(mut self) -> Exit {
        self.process.signal(Signal::KILL);
        self.end()
    }

    /// Waits until it has logged a line with `text`.
    pub fn wait_for_log(&self, text: &str) {
        let logged = self.process.wait_for_line(0, wait::patience(), |line| {
            line.contains(text).then_some(())
        });
        logged.unwrap_or_else(|error| panic!("the log lacks {text:?}: {error}"));
    }

    /// How many lines with `text` it has logged so far.
    #[must_use]
    pub fn log_count(&self, text: &str) -> usize {
        let lines = self.process.lines();
        lines.iter().filter(|line| line.contains(text)).count()
    }

    /// What it has logged so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.process.lines()
    }

    /// Sends it a signal.
    pub fn signal(&mut self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Stops it, and waits until it stands still.
    pub fn pause(&mut self) {
        self.process.pause();
    }

    /// Has it go on after `pause`.
    pub fn resume(&mut self) {
        self.process.resume();
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// Waits for its end.
    #[must_use]
    pub fn end(mut self) -> Exit {
        exit(&mut self.process)
    }
}

/// Runs `conntrack-agent run`, which must end by itself, through `launcher`
/// (such as `setpriv …`; empty for none).
#[must_use]
pub fn run_to_exit(lab: &Lab, config: &Config, rules: &str, launcher: &[&str]) -> Exit {
    let command = run_command(lab.dir(), config, Some(rules));
    exit(&mut Process::start(None, launched(launcher, command)))
}

/// Runs another release of the agent, which must end by itself.
#[must_use]
pub fn run_release_to_exit(lab: &Lab, rules: Option<&str>, release: &Release) -> Exit {
    let command = run_command(lab.dir(), &Config::of(lab), rules);
    exit(&mut Process::start(None, release.instead_of(&command)))
}

/// Runs another subcommand on the lab's configuration, as it was last written.
#[must_use]
pub fn subcommand(lab: &Lab, name: &str) -> Exit {
    subcommand_within(wait::patience(), lab, name)
}

/// The same, for so long at the most.
#[must_use]
pub fn subcommand_within(limit: Duration, lab: &Lab, name: &str) -> Exit {
    let mut command = Command::new(binary());
    command
        .arg(name)
        .arg("--config")
        .arg(config_path(lab.dir()));
    exit_within(limit, &mut Process::start(None, command))
}

/// Writes another configuration in the place of the one that was used last.
pub fn rewrite_config(lab: &Lab, config: &Config) {
    fs::write(config_path(lab.dir()), config.text()).expect("the agent's configuration");
}

/// The agent's configuration, by key.
#[derive(Clone, Debug)]
pub struct Config {
    keys: Vec<(&'static str, String)>,
}

impl Config {
    /// Everything of the agent's in the lab's directory.
    #[must_use]
    pub fn of(lab: &Lab) -> Self {
        let dir = lab.dir();
        let path = |path: PathBuf| format!("{:?}", path.to_string_lossy());
        let config = Self {
            keys: vec![
                ("state_dir", path(dir.state_dir())),
                ("runtime_dir", path(dir.run_dir())),
                ("bpffs_dir", path(dir.agent_bpffs_dir())),
                ("netns_dir", path(dir.netns_dir())),
            ],
        };
        match attach::configured() {
            Some(way) if way == attach::XDP => config.with_xdp("*", Xdp::Generic),
            Some(way) => config.with("attach", format!("{way:?}")),
            None => config,
        }
    }

    /// The same with one key set to a TOML value.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.keys.retain(|(present, _)| *present != key);
        self.keys.push((key, value.into()));
        self
    }

    /// The same with an nft that first runs this script (sh(1)), which may end it.
    #[must_use]
    pub fn with_nft(self, lab: &Lab, script: &str) -> Self {
        let nft = lab.dir().path().join(format!("nft-{}", Uuid::new_v4()));
        fs::write(&nft, format!("#!/bin/sh\n{script}\nexec nft \"$@\"\n")).expect("a script");
        fs::set_permissions(&nft, Permissions::from_mode(0o755)).expect("its mode");
        self.with("nft", format!("{:?}", nft.to_string_lossy()))
    }

    /// The same with XDP programs on the interfaces that match this pattern.
    #[must_use]
    pub fn with_xdp(self, interfaces: &str, xdp: Xdp) -> Self {
        let word = xdp.word();
        let entry = format!("[{{ name = {interfaces:?}, attach = {word:?} }}]");
        self.with("interface", entry)
    }

    fn text(&self) -> String {
        let lines = self
            .keys
            .iter()
            .map(|(key, value)| format!("{key} = {value}\n"));
        lines.collect()
    }
}

/// Where the lab's agent listens, as soon as it does: a moment after it is ready.
///
/// # Panics
/// If it doesn't for a long time.
#[must_use]
pub fn listening(lab: &Lab) -> PathBuf {
    let socket = lab.dir().run_dir().join("agent.sock");
    wait::until(wait::patience(), || socket.exists().then_some(())).expect("an agent that listens");
    socket
}

/// A word, because "already" is not "ready".
fn has_word(line: &str, word: &str) -> Option<()> {
    let mut words = line.split(|c: char| !c.is_alphanumeric());
    words.any(|found| found == word).then_some(())
}

fn run_command(dir: &LabDir, config: &Config, rules: Option<&str>) -> Command {
    let config_path = config_path(dir);
    fs::write(&config_path, config.text()).expect("the agent's configuration");
    let mut command = Command::new(binary());
    command.arg("run");
    command.arg("--config").arg(config_path);
    if let Some(rules) = rules {
        let rules_path = rules_path(dir);
        fs::write(&rules_path, rules).expect("the rules file");
        command.arg("--rules").arg(rules_path);
    }
    command
}

fn launched(launcher: &[&str], command: Command) -> Command {
    let [program, arguments @ ..] = launcher else {
        return command;
    };
    let mut whole = Command::new(program);
    whole.args(arguments);
    whole.arg(command.get_program()).args(command.get_args());
    whole
}

fn exit(process: &mut Process) -> Exit {
    exit_within(wait::patience(), process)
}

fn exit_within(limit: Duration, process: &mut Process) -> Exit {
    let status = process.wait(limit).unwrap_or_else(|error| {
        let said = process.lines().join("\n");
        panic!("{error}; it said:\n{said}")
    });
    Exit {
        code: status.code(),
        stdout: process.text(Stream::Out),
        stderr: process.text(Stream::Err),
    }
}

fn config_path(dir: &LabDir) -> PathBuf {
    dir.path().join("agent.toml")
}

fn rules_path(dir: &LabDir) -> PathBuf {
    dir.path().join("rules.toml")
}

/// The binary under test.
#[must_use]
pub fn binary() -> PathBuf {
    let built = || {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
        workspace
            .expect("the workspace")
            .join("target/release/conntrack-agent")
    };
    let path = std::env::var_os("CONNTRACK_AGENT_BIN").map_or_else(built, PathBuf::from);
    assert!(
        path.is_file(),
        "there is no agent at {}: run `cargo xtask build`",
        path.display()
    );
    path
}
