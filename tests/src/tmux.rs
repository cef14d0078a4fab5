//! A real terminal, by tmux: something to type into, and a screen to read.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Output};

use rustix::process::{Pid, Signal, kill_process};
use uuid::Uuid;

use crate::lab::Lab;
use crate::wait;

/// A program in a terminal of a tmux server of its own, which ends with this.
pub struct Tmux {
    socket: PathBuf,
    _lab: Lab,
}

impl Tmux {
    /// Starts a program in a terminal of this size, with these variables besides
    /// those of any other program.
    #[must_use]
    pub fn start(
        lab: &Lab,
        size: (u16, u16),
        variables: &[(&str, &str)],
        command: &Command,
    ) -> Self {
        // Of its own: a server that is just ending still has its socket.
        let name = format!("tmux-{}", Uuid::new_v4());
        let terminal = Self {
            socket: lab.dir().path().join(name),
            _lab: lab.clone(),
        };
        let (width, height) = size;
        let mut start = terminal.tmux(["new-session", "-d"]);
        start.args(["-x", &width.to_string(), "-y", &height.to_string()]);
        for (name, value) in variables {
            start.arg("-e").arg(format!("{name}={value}"));
        }
        // The command's words, not a line for a shell.
        start
            .arg("--")
            .arg(command.get_program())
            .args(command.get_args());
        succeeded(start);
        // A screen that stays when the program has ended.
        succeeded(terminal.tmux(["set-option", "remain-on-exit", "on"]));
        terminal
    }

    fn tmux<const N: usize>(&self, arguments: [&str; N]) -> Command {
        let mut command = Command::new("tmux");
        command.env("LC_ALL", "C.UTF-8").env_remove("TMUX");
        command
            .arg("-S")
            .arg(&self.socket)
            .args(["-f", "/dev/null"]);
        command.args(arguments);
        command
    }

    /// Types keys, by tmux's names of them.
    pub fn keys(&self, keys: &[&str]) {
        let mut command = self.tmux(["send-keys"]);
        command.args(keys.iter().map(OsStr::new));
        succeeded(command);
    }

    /// Gives the terminal another size.
    pub fn resize(&self, (width, height): (u16, u16)) {
        let (width, height) = (width.to_string(), height.to_string());
        succeeded(self.tmux(["resize-window", "-x", &width, "-y", &height]));
    }

    /// The screen, line by line.
    #[must_use]
    pub fn screen(&self) -> Vec<String> {
        let text = succeeded(self.tmux(["capture-pane", "-p"]));
        text.lines().map(str::to_owned).collect()
    }

    /// The same as text, with the escapes that give it its colours.
    #[must_use]
    pub fn with_escapes(&self) -> String {
        succeeded(self.tmux(["capture-pane", "-p", "-e"]))
    }

    /// Waits for a screen that something can be made of.
    ///
    /// # Panics
    /// If there is none for a long time.
    pub fn wait_for<T>(&self, what: &str, mut found: impl FnMut(&[String]) -> Option<T>) -> T {
        wait::until(wait::patience(), || found(&self.screen()))
            .unwrap_or_else(|| panic!("no {what} on the screen:\n{}", self.screen().join("\n")))
    }

    /// Waits for the program's end; its exit code.
    ///
    /// # Panics
    /// If it doesn't end for a long time, or by a signal.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        let server = succeeded(self.tmux(["display-message", "-p", "#{pid}"]));
        let server = server.trim().parse().ok().and_then(Pid::from_raw);
        let server = server.expect("the server's process");
        let ended = || {
            // It sleeps through one in ten of its children's ends (tmux 3.3a, which
            // shows a dead pane then, and a zombie): so it is told of them again.
            kill_process(server, Signal::CHILD).expect("the terminal's server");
            let format = "#{pane_dead_status}";
            let status = succeeded(self.tmux(["display-message", "-p", format]));
            status.trim().parse().ok()
        };
        wait::until(wait::patience(), ended)
            .unwrap_or_else(|| panic!("it doesn't end:\n{}", self.screen().join("\n")))
    }

    /// Waits for a line with these words.
    pub fn wait_for_line(&self, words: &[&str]) {
        self.wait_for(&format!("line with {words:?}"), |screen| {
            let has_all = |line: &String| words.iter().all(|word| line.contains(word));
            screen.iter().any(has_all).then_some(())
        });
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        // Its program is told by the terminal that hangs up.
        let _ = self.tmux(["kill-server"]).output();
    }
}

fn succeeded(mut command: Command) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("tmux");
    let said = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{command:?}: {said}");
    String::from_utf8(stdout).expect("text")
}
