//! Opens the Unix socket and the TCP listeners, and accepts connections on them.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    net::{TcpListener, UnixListener},
    time::timeout,
};
use tracing::warn;

use super::refusal::{Stream, refuse};
use crate::{access::Principal, api::reserve_fd::ReserveFd, config::Config};

/// The name of the socket in the runtime folder.
pub const SOCKET: &str = "agent.sock";

/// The error when a listener can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The Unix socket can't be opened.
    #[error("the socket {} cannot be {what}", path.display())]
    Socket {
        /// The path of the socket.
        path: PathBuf,
        /// The step that failed, as a participle.
        what: &'static str,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The group of the socket does not exist.
    #[error("api.socket_group: there is no group {0:?}")]
    Group(String),
    /// The TCP address can't be listened on.
    #[error("{address} cannot be listened on")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

/// The listeners outside of a runtime. They are opened before any other thread exists,
/// while the agent still has the capabilities to give the socket to its group and to bind a
/// low TCP port. Dropping them removes the socket's file.
#[derive(Debug)]
pub struct Listeners {
    unix: std::os::unix::net::UnixListener,
    tcp: Option<std::net::TcpListener>,
    metrics: Option<std::net::TcpListener>,
    file: SocketFile,
    reserve: ReserveFd,
}

/// The file of the socket; dropping it removes the file.
#[derive(Debug)]
struct SocketFile(PathBuf);

/// The listeners in a runtime.
#[derive(Debug)]
pub struct Listening {
    unix: UnixListener,
    tcp: Option<TcpListener>,
    metrics: Option<TcpListener>,
    _file: SocketFile,
    reserve: ReserveFd,
}

impl Listeners {
    /// Opens the listeners; [`serve`](super::serve) answers those who connect.
    ///
    /// Removes a socket's file that a killed agent left: the lock of the runtime folder
    /// shows that no other agent uses it.
    ///
    /// # Errors
    /// Returns [`ListenError`] if one can't be opened; then all of them are closed.
    pub fn bind(config: &Config) -> Result<Self, ListenError> {
        let path = config.runtime_dir.join(SOCKET);
        remove_socket(&path)?;
        let failed = |what| {
            let path = path.clone();
            move |source| ListenError::Socket { path, what, source }
        };
        let unix = std::os::unix::net::UnixListener::bind(&path).map_err(failed("made"))?;
        let file = SocketFile(path.clone());
        unix.set_nonblocking(true).map_err(failed("prepared"))?;
        if let Some(name) = &config.api.socket_group {
            let group = nix::unistd::Group::from_name(name)
                .ok()
                .flatten()
                .ok_or_else(|| ListenError::Group(name.clone()))?;
            std::os::unix::fs::chown(&path, None, Some(group.gid.as_raw()))
                .map_err(failed("given to its group"))?;
        }
        let mode = fs::Permissions::from_mode(0o660);
        fs::set_permissions(&path, mode).map_err(failed("given its mode"))?;
        let tcp = config.tcp.as_ref().map(|tcp| bind_tcp(tcp.listen));
        let metrics = config.metrics.map(|metrics| bind_tcp(metrics.listen));
        Ok(Self {
            unix,
            tcp: tcp.transpose()?,
            metrics: metrics.transpose()?,
            file,
            reserve: ReserveFd::new(),
        })
    }

    /// Registers the listeners with the current runtime.
    ///
    /// # Errors
    /// Returns [`ListenError`] if the runtime can't wait on them.
    pub fn listen(self) -> Result<Listening, ListenError> {
        let Self {
            unix,
            tcp,
            metrics,
            file,
            reserve,
        } = self;
        let failed = |source| ListenError::Socket {
            path: file.0.clone(),
            what: "waited on",
            source,
        };
        let unix = UnixListener::from_std(unix).map_err(failed)?;
        let [tcp, metrics] = [tcp, metrics].map(|tcp| tcp.map(TcpListener::from_std).transpose());
        Ok(Listening {
            unix,
            tcp: tcp.map_err(failed)?,
            metrics: metrics.map_err(failed)?,
            _file: file,
            reserve,
        })
    }
}

fn bind_tcp(address: SocketAddr) -> Result<std::net::TcpListener, ListenError> {
    let listener = std::net::TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    listener.map_err(|source| ListenError::Tcp { address, source })
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = remove_socket(&self.0) {
            warn!(error = &error as &dyn std::error::Error, "the socket stays");
        }
    }
}

/// Removes the socket's file, if there is one.
///
/// # Errors
/// Returns [`ListenError::Socket`] if it can't be removed.
pub fn remove_socket(path: &Path) -> Result<(), ListenError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(ListenError::Socket {
            path: path.to_owned(),
            what: "removed",
            source,
        }),
        _ => Ok(()),
    }
}

impl Listening {
    /// Accepts the next connection, with its peer if the kernel can tell it.
    pub(super) async fn accept(&self) -> io::Result<(Stream, io::Result<Principal>)> {
        tokio::select! {
            accepted = self.unix.accept() => accepted.map(|(stream, _)| {
                let peer = stream.peer_cred().map(|credentials| Principal::Local {
                    pid: credentials.pid().unwrap_or(0),
                    uid: credentials.uid(),
                    gid: credentials.gid(),
                });
                (Stream::Unix(stream), peer)
            }),
            accepted = accept_by(self.tcp.as_ref()) => accepted.map(|(stream, address)| {
                (Stream::Tcp(stream), Ok(Principal::Unknown { address }))
            }),
            accepted = accept_by(self.metrics.as_ref()) => accepted.map(|(stream, address)| {
                (Stream::Tcp(stream), Ok(Principal::Scraper { address }))
            }),
        }
    }

    /// Refuses one waiting connection by means of the reserve descriptor; returns whether it
    /// did.
    pub(super) async fn refuse_one(&mut self) -> bool {
        const WHY: &str = "the agent has no file descriptor left (LimitNOFILE); try again";
        if !self.reserve.release() {
            self.reserve.refill();
            return false;
        }
        let accepting = async {
            tokio::select! {
                Ok((stream, _)) = self.unix.accept() => Some(Stream::Unix(stream)),
                Ok((stream, _)) = accept_by(self.tcp.as_ref()) => Some(Stream::Tcp(stream)),
                Ok((stream, _)) = accept_by(self.metrics.as_ref()) => Some(Stream::Tcp(stream)),
                else => None,
            }
        };
        // The client may have disconnected meanwhile.
        let accepted = timeout(Duration::from_millis(100), accepting).await;
        let refused = match accepted.ok().flatten() {
            Some(stream) => {
                refuse(stream, WHY.into()).await;
                true
            }
            None => false,
        };
        self.reserve.refill();
        refused
    }
}

/// Accepts a connection on a listener; waits forever if there is none.
async fn accept_by(tcp: Option<&TcpListener>) -> io::Result<(tokio::net::TcpStream, SocketAddr)> {
    match tcp {
        Some(tcp) => tcp.accept().await,
        None => std::future::pending().await,
    }
}
