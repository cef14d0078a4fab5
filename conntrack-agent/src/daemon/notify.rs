//! Notifies the service manager of state and status (`sd_notify(3)`, systemd.service(5)
//! `Type=notify-reload`).

use std::{
    env,
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    path::Path,
    time::Duration,
};

use sd_notify::{NotifyState, watchdog_enabled};
use tracing::warn;

use super::RunError;

const VARIABLE: &str = "NOTIFY_SOCKET";

/// The time limit of a notification to a service manager that doesn't read.
const PATIENCE: Duration = Duration::from_secs(1);

/// The connection to the service manager, if there is one (`NOTIFY_SOCKET`).
#[derive(Debug)]
pub(super) struct Notify {
    manager: Option<Manager>,
    /// The last status, so that it is not sent twice.
    status: String,
}

/// The service manager's socket, opened once, so that the watchdog is fed even when the
/// process has no descriptor left.
#[derive(Debug)]
struct Manager {
    socket: UnixDatagram,
    address: SocketAddr,
}

impl Notify {
    /// Connects to the socket that the environment names.
    pub(super) fn of_environment() -> Result<Self, RunError> {
        let manager = env::var_os(VARIABLE)
            .filter(|name| !name.is_empty())
            .map(|socket| {
                Manager::at(&socket).map_err(|source| RunError::Notify { socket, source })
            })
            .transpose()?;
        Ok(Self {
            manager,
            status: String::new(),
        })
    }

    /// Reports that every router was reconciled and requests are answered, or that a
    /// reload has ended.
    pub(super) fn ready(&mut self, status: &str) {
        let status = one_line(status);
        self.say(&[NotifyState::Ready, NotifyState::Status(&status)]);
        self.status = status;
    }

    /// Reports that a reload begins. [`Self::ready`] must follow, also if it fails.
    pub(super) fn reloading(&mut self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.say(&[NotifyState::Reloading, now]),
            // Without the time it would be taken for a failure of the service.
            Err(error) => warn!(%error, "the service manager is not told of the reload"),
        }
    }

    /// Reports that the daemon begins to end.
    pub(super) fn stopping(&mut self, status: &str) {
        let status = one_line(status);
        self.say(&[NotifyState::Stopping, NotifyState::Status(&status)]);
        self.status = status;
    }

    /// Reports one line for `systemctl status`.
    pub(super) fn status(&mut self, status: &str) {
        let status = one_line(status);
        if self.status != status {
            self.say(&[NotifyState::Status(&status)]);
            self.status = status;
        }
    }

    /// Feeds the watchdog.
    pub(super) fn alive(&mut self) {
        self.say(&[NotifyState::Watchdog]);
    }

    /// Returns the time after which the service manager kills a daemon that has not fed
    /// the watchdog; `None` if it doesn't watch this process.
    pub(super) fn limit() -> Option<Duration> {
        watchdog_enabled().filter(|limit| !limit.is_zero())
    }

    fn say(&mut self, states: &[NotifyState<'_>]) {
        let Some(manager) = &self.manager else {
            return;
        };
        let lines: Vec<_> = states.iter().map(ToString::to_string).collect();
        let message = lines.join("\n");
        let sent = manager
            .socket
            .send_to_addr(message.as_bytes(), &manager.address);
        if let Err(error) = sent {
            warn!(%error, message, "the service manager was not told");
        }
    }
}

/// Returns the text as one line: the service manager gives each line of a message a
/// meaning, and the text may come from a file.
fn one_line(text: &str) -> String {
    const LONGEST: usize = 1024;
    let words: Vec<_> = text
        .split(|character: char| character.is_control())
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .collect();
    words.join(" ").chars().take(LONGEST).collect()
}

impl Manager {
    /// Parses a path, or an abstract name behind an @ (`sd_notify(3)`).
    fn at(name: &OsStr) -> io::Result<Self> {
        let address = match name.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None if Path::new(name).is_absolute() => SocketAddr::from_pathname(name)?,
            None => {
                let what = "a path or a name behind an @ is wanted";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
            }
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { socket, address })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(socket: &UnixDatagram) -> Option<String> {
        let mut message = [0; 512];
        let length = socket.recv(&mut message).ok()?;
        Some(String::from_utf8_lossy(&message[..length]).into_owned())
    }

    #[test]
    fn a_manager_is_told_each_thing_once_by_a_path_or_an_abstract_name() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("notify");
        let name = format!("conntrack-agent-test-{}", std::process::id());
        let by_name = SocketAddr::from_abstract_name(&name).unwrap();
        for (socket, given) in [
            (UnixDatagram::bind(&path).unwrap(), path.into_os_string()),
            (
                UnixDatagram::bind_addr(&by_name).unwrap(),
                format!("@{name}").into(),
            ),
        ] {
            socket.set_nonblocking(true).unwrap();
            let mut notify = Notify {
                manager: Some(Manager::at(&given).unwrap()),
                status: String::new(),
            };
            notify.ready("one");
            assert_eq!(said(&socket).unwrap(), "READY=1\nSTATUS=one");
            notify.status("one");
            assert_eq!(said(&socket), None, "it was said");
            notify.status("two");
            assert_eq!(said(&socket).unwrap(), "STATUS=two");
            notify.reloading();
            let reloading = said(&socket).unwrap();
            let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
            assert!(time.unwrap().parse::<u64>().unwrap() > 0, "{reloading}");
            notify.alive();
            assert_eq!(said(&socket).unwrap(), "WATCHDOG=1");
            notify.stopping("bye");
            assert_eq!(said(&socket).unwrap(), "STOPPING=1\nSTATUS=bye");
        }
    }

    #[test]
    fn what_is_said_cannot_say_another_thing() {
        assert_eq!(one_line("a:\n  b\r\nREADY=1\u{7}\n"), "a: b READY=1");
        assert_eq!(one_line(&"x".repeat(5000)).len(), 1024);
    }

    #[test]
    fn what_is_no_address_is_refused_and_no_manager_is_told_nothing() {
        assert!(Manager::at(OsStr::new("relative/path")).is_err());
        let mut nobody = Notify {
            manager: None,
            status: String::new(),
        };
        nobody.ready("one");
        nobody.alive();
    }
}
