//! Processes that the lab starts, and ends.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::agent::Exit;
use crate::netns::Netns;
use crate::wait;

/// A running process with what it has said so far.
///
/// Dropping it kills it, with everything that it has forked, and waits for it.
pub struct Process {
    child: Child,
    name: String,
    output: Arc<Output>,
    /// It stays alive at least as long as what runs in it.
    _netns: Option<Netns>,
}

impl Process {
    /// Starts `command` in `netns`, or where the caller is.
    #[must_use]
    pub fn start(netns: Option<&Netns>, mut command: Command) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A group of its own: servers fork a process for each session.
            .process_group(0);
        let mut child = match netns {
            Some(netns) => netns.run(|| command.spawn()),
            None => command.spawn(),
        }
        .unwrap_or_else(|e| panic!("starting {command:?}: {e}"));
        let output = Arc::new(Output::default());
        output.collect(Stream::Out, child.stdout.take());
        output.collect(Stream::Err, child.stderr.take());
        Self {
            child,
            name: command.get_program().to_string_lossy().into_owned(),
            output,
            _netns: netns.cloned(),
        }
    }

    /// Everything that it has said, as lines.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.output
            .lock()
            .lines
            .iter()
            .map(|l| l.1.clone())
            .collect()
    }

    /// What it has said on one stream, as text.
    #[must_use]
    pub fn text(&self, stream: Stream) -> String {
        let state = self.output.lock();
        let lines = state.lines.iter().filter(|line| line.0 == stream);
        lines.flat_map(|line| [line.1.as_str(), "\n"]).collect()
    }

    /// Waits for a line, from line number `from` on, in which `wanted` finds
    /// something.
    ///
    /// # Errors
    /// With why there is none: the limit passed, or the process ended.
    pub fn wait_for_line<T>(
        &self,
        from: usize,
        limit: Duration,
        wanted: impl Fn(&str) -> Option<T>,
    ) -> Result<T, String> {
        let found = self.output.wait(limit, |state| {
            let mut lines = state.lines.iter().skip(from);
            let found = lines.find_map(|line| wanted(&line.1));
            found.map(Ok).or((state.open == 0).then_some(Err(())))
        });
        let reason = match found {
            Some(Ok(found)) => return Ok(found),
            Some(Err(())) => "ended",
            None => "is silent",
        };
        let said = self.lines().join("\n");
        Err(format!("{} {reason}; it said:\n{said}", self.name))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it goes on for longer than `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus, String> {
        let child = &mut self.child;
        let status = wait::until(limit, || child.try_wait().expect("its status"));
        let Some(status) = status else {
            return Err(format!("{} still runs after {limit:?}", self.name));
        };
        // What it said last may still be in the pipes. A process that it left
        // behind may hold them open, so this has an end as well.
        self.output
            .wait(wait::patience(), |s| (s.open == 0).then_some(()));
        Ok(status)
    }

    /// Sends it a signal. A process that has ended gets none.
    pub fn signal(&mut self, signal: Signal) {
        if self.child.try_wait().expect("its status").is_none() {
            kill_process(self.pid(), signal).expect("a signal to our own child");
        }
    }

    /// Stops it (SIGSTOP), and waits until it stands still: the signal is sent to the
    /// process, and each of its threads runs on until it sees it.
    pub fn pause(&mut self) {
        self.signal(Signal::STOP);
        let stopped = wait::until(wait::patience(), || {
            self.threads()
                .iter()
                .all(|state| *state == 'T')
                .then_some(())
        });
        stopped.unwrap_or_else(|| panic!("{} isn't stopped: {:?}", self.name, self.threads()));
    }

    /// Has it go on after `pause`.
    pub fn resume(&mut self) {
        self.signal(Signal::CONT);
    }

    /// The state of each of its threads, as `proc_pid_stat(5)` has it.
    fn threads(&self) -> Vec<char> {
        let tasks = format!("/proc/{}/task", self.pid().as_raw_nonzero());
        let tasks = fs::read_dir(&tasks).unwrap_or_else(|e| panic!("{tasks}: {e}"));
        let state = |task: io::Result<fs::DirEntry>| {
            // A thread may end meanwhile, and has no state then.
            let stat = fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
            // What comes before is the program's name in parentheses, which may be anything.
            stat.rsplit_once(") ")?.1.chars().next()
        };
        tasks.filter_map(state).collect()
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Only while the child is ours to wait for is the group's number
        // certain to be nobody else's.
        if let Ok(None) = self.child.try_wait() {
            let _gone = kill_process_group(self.pid(), Signal::KILL);
            drop(self.child.wait());
        }
    }
}

/// Where a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// Lines as they come, from both streams.
#[derive(Default)]
struct Output {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lines: Vec<(Stream, String)>,
    /// How many streams may still say something.
    open: usize,
}

impl Output {
    fn collect(self: &Arc<Self>, stream: Stream, pipe: Option<impl Read + Send + 'static>) {
        let Some(pipe) = pipe else { return };
        self.lock().open += 1;
        let output = Arc::clone(self);
        thread::spawn(move || {
            let lines = BufReader::new(pipe).split(b'\n').map_while(Result::ok);
            for line in lines {
                let line = String::from_utf8_lossy(&line).into_owned();
                output.change(|state| state.lines.push((stream, line)));
            }
            output.change(|state| state.open -= 1);
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn wait<T>(&self, limit: Duration, done: impl Fn(&State) -> Option<T>) -> Option<T> {
        let end = Instant::now() + limit;
        let mut state = self.lock();
        loop {
            if let Some(value) = done(&state) {
                return Some(value);
            }
            let left = end.checked_duration_since(Instant::now())?;
            let woken = self.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs a command to its end.
#[must_use]
pub fn run(command: &mut Command) -> Exit {
    let output = command.output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Exit {
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}
