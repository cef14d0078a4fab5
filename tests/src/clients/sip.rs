//! sipp as the calling party.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use crate::netns::Netns;
use crate::process::Process;
use crate::wait;

/// A call in progress.
pub struct Call {
    process: Process,
}

/// What a call is.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// Where the caller signals from.
    pub caller: SocketAddr,
    /// The port on which it offers to receive media.
    pub media_port: u16,
    /// Who is called.
    pub callee: SocketAddr,
}

/// How long a call stays up: media expectations go away with it.
const TALK: Duration = Duration::from_secs(4);

impl Call {
    /// Calls.
    #[must_use]
    pub fn start(client: &Netns, line: Line) -> Self {
        let Line {
            caller,
            media_port,
            callee,
        } = line;
        let folder = client
            .lab()
            .folder(&format!("uac-{}-{}", client.name(), caller.port()));
        let mut command = Command::new("sipp");
        command.args(["-sn", "uac", "-nostdin", "-m", "1"]);
        command.args(["-d", &TALK.as_millis().to_string()]);
        command.args(["-i", &caller.ip().to_string()]);
        command.args(["-p", &caller.port().to_string()]);
        command.args(["-mp", &media_port.to_string()]);
        command.arg(callee.to_string());
        command.current_dir(folder).env("TERM", "dumb");
        Self {
            process: Process::start(Some(client), command),
        }
    }

    /// Waits until it is over, and does `meanwhile` until then.
    ///
    /// # Errors
    /// When the signalling failed, with what sipp said.
    pub fn finish(mut self, mut meanwhile: impl FnMut()) -> Result<(), String> {
        let end = std::time::Instant::now() + wait::patience();
        loop {
            meanwhile();
            match self.process.wait(Duration::from_millis(50)) {
                Ok(status) if status.success() => return Ok(()),
                Ok(_) => return Err(self.process.lines().join("\n")),
                Err(error) if std::time::Instant::now() > end => return Err(error),
                Err(_) => {}
            }
        }
    }
}
