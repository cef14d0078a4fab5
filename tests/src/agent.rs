//! The agent under test, as a process.

mod config;
mod exit;

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::lab::{Lab, LabDir};
use crate::process::Process;
use crate::release::Release;
use crate::wait;

pub use config::Config;
pub use exit::Exit;

/// A running `conntrack-agent run`. Dropping it kills it.
pub struct Agent {
    process: Process,
    rules: PathBuf,
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
        Self::spawn(lab, config, Some(rules), &[]).must_be_ready()
    }

    /// The same with another release of the agent.
    #[must_use]
    pub fn start_release(lab: &Lab, rules: &str, release: &Release) -> Self {
        Self::spawn_release(lab, &Config::of(lab), Some(rules), release, &[]).must_be_ready()
    }

    /// The same through `launcher` (such as `prlimit …`), which becomes it.
    #[must_use]
    pub fn start_through(lab: &Lab, config: &Config, rules: &str, launcher: &[&str]) -> Self {
        Self::launch(lab, config, Some(rules), launcher).must_be_ready()
    }

    /// Starts the agent and does not wait for it: with a rules file if there
    /// are `rules`, and with these further arguments.
    #[must_use]
    pub fn spawn(lab: &Lab, config: &Config, rules: Option<&str>, arguments: &[&str]) -> Self {
        let mut command = run_command(lab, config, rules);
        command.args(arguments);
        Self::of(lab, command)
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
        let mut command = run_command(lab, config, rules);
        command.args(arguments);
        Self::of(lab, release.instead_of(&command))
    }

    /// The same through `launcher`: a program and its arguments, which runs the
    /// agent in its own place (such as `env …`, `prlimit …`).
    #[must_use]
    pub fn launch(lab: &Lab, config: &Config, rules: Option<&str>, launcher: &[&str]) -> Self {
        Self::of(lab, launched(launcher, run_command(lab, config, rules)))
    }

    fn of(lab: &Lab, command: Command) -> Self {
        Self {
            process: Process::start(None, command),
            rules: rules_path(lab.dir()),
        }
    }

    /// Its process.
    #[must_use]
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    fn must_be_ready(self) -> Self {
        self.ready()
            .unwrap_or_else(|exit| panic!("the agent isn't ready: {exit:?}"))
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
        // A word, because "already" is not "ready".
        let ready = |line: &str| {
            let mut words = line.split(|c: char| !c.is_alphanumeric());
            words.any(|word| word == "ready").then(|| line.to_owned())
        };
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
        self.signal(Signal::HUP);
        self.process.wait_for_line(before, limit, |line| {
            let refused = line.contains("reload refused").then_some(Reload::Refused);
            refused.or_else(|| line.contains("reloaded").then_some(Reload::Done))
        })
    }

    /// Asks it to stop (SIGTERM).
    #[must_use]
    pub fn stop(mut self) -> Exit {
        self.signal(Signal::TERM);
        self.end()
    }

    /// Kills it (SIGKILL).
    #[must_use]
    pub fn kill(mut self) -> Exit {
        self.signal(Signal::KILL);
        self.end()
    }

    /// Waits for its end.
    #[must_use]
    pub fn end(mut self) -> Exit {
        Exit::wait(&mut self.process, wait::patience())
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
        let lines = self.lines();
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
}

/// Runs `conntrack-agent run`, which must end by itself, through `launcher`
/// (such as `setpriv …`; empty for none).
#[must_use]
pub fn run_to_exit(lab: &Lab, config: &Config, rules: &str, launcher: &[&str]) -> Exit {
    let command = run_command(lab, config, Some(rules));
    Exit::of(launched(launcher, command), wait::patience())
}

/// Runs another release of the agent, which must end by itself.
#[must_use]
pub fn run_release_to_exit(lab: &Lab, rules: Option<&str>, release: &Release) -> Exit {
    let command = run_command(lab, &Config::of(lab), rules);
    Exit::of(release.instead_of(&command), wait::patience())
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
        .args([name, "--config"])
        .arg(config::path(lab.dir()));
    Exit::of(command, limit)
}

/// Writes another configuration in the place of the one that was used last.
pub fn rewrite_config(lab: &Lab, config: &Config) {
    config.write(lab.dir());
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

fn run_command(lab: &Lab, config: &Config, rules: Option<&str>) -> Command {
    let mut command = Command::new(binary());
    command
        .args(["run", "--config"])
        .arg(config.write(lab.dir()));
    if let Some(rules) = rules {
        let path = rules_path(lab.dir());
        fs::write(&path, rules).expect("the rules file");
        command.arg("--rules").arg(path);
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

fn rules_path(dir: &LabDir) -> PathBuf {
    dir.path().join("rules.toml")
}

/// The agent under test: `cargo xtask test` names it, else it is the dev build that
/// cargo has put into the target directory of the running program.
#[must_use]
pub fn binary() -> PathBuf {
    let built = || {
        let program = env::current_exe().expect("the running program's path");
        // Test programs lie one folder further down, in `deps`.
        let mut folders = program.ancestors().skip(1);
        let folder = folders.find(|folder| !folder.ends_with("deps"));
        folder.expect("its folder").join("conntrack-agent")
    };
    let path = env::var_os("CONNTRACK_AGENT_BIN").map_or_else(built, PathBuf::from);
    let shown = path.display();
    assert!(
        path.is_file(),
        "there is no agent at {shown}: `cargo xtask test` builds it"
    );
    path
}
