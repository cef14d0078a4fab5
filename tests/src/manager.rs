//! A service manager, as far as the agent knows one (`sd_notify(3)`).

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::lab::Lab;
use crate::wait;

/// One message, with when it came.
#[derive(Clone, Debug)]
pub struct Message {
    /// When.
    pub at: Instant,
    /// Its lines.
    pub text: String,
}

impl Message {
    /// Whether it has this line.
    #[must_use]
    pub fn has(&self, line: &str) -> bool {
        self.text.lines().any(|found| found == line)
    }

    /// What it says of `key`; empty if nothing.
    #[must_use]
    pub fn value(&self, key: &str) -> &str {
        let values = self.text.lines().filter_map(|line| line.split_once('='));
        let mut values = values.filter(|(found, _)| *found == key);
        values.next().map_or("", |(_, value)| value)
    }
}

/// The manager's socket.
pub struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    /// In the lab's directory.
    #[must_use]
    pub fn new(lab: &Lab) -> Self {
        let path = lab.dir().path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        Self { socket, path }
    }

    /// What runs the agent with the manager's environment, and these variables:
    /// a launcher.
    #[must_use]
    pub fn launcher(&self, variables: &[&str]) -> Vec<String> {
        let socket = format!("NOTIFY_SOCKET={}", self.path.display());
        let variables = variables.iter().map(|variable| (*variable).to_owned());
        ["env".to_owned(), socket]
            .into_iter()
            .chain(variables)
            .collect()
    }

    /// The next message, if there is one in this time.
    #[must_use]
    pub fn next(&self, limit: Duration) -> Option<Message> {
        let end = Instant::now() + limit;
        let mut bytes = [0; 4096];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let left = left.max(Duration::from_millis(1));
            self.socket.set_read_timeout(Some(left)).expect("a limit");
            match self.socket.recv(&mut bytes) {
                Ok(length) => {
                    return Some(Message {
                        at: Instant::now(),
                        text: String::from_utf8_lossy(&bytes[..length]).into_owned(),
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                // A read with a limit is not taken up again by itself (signal(7)).
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => panic!("the manager's socket: {error}"),
            }
        }
    }

    /// Takes what has come so far.
    pub fn forget(&self) {
        while self.next(Duration::ZERO).is_some() {}
    }

    /// Everything that comes in this time.
    #[must_use]
    pub fn all(&self, time: Duration) -> Vec<Message> {
        let end = Instant::now() + time;
        let left = || end.saturating_duration_since(Instant::now());
        let mut messages = Vec::new();
        while !left().is_zero() {
            messages.extend(self.next(left()));
        }
        messages
    }

    /// Waits for a message with this line; those before it are gone.
    #[must_use]
    pub fn wait_for(&self, line: &str) -> Message {
        let end = Instant::now() + wait::patience();
        let mut before = Vec::new();
        while let Some(message) = self.next(end.saturating_duration_since(Instant::now())) {
            if message.has(line) {
                return message;
            }
            before.push(message.text);
        }
        panic!("no {line}, but {before:?}");
    }
}
