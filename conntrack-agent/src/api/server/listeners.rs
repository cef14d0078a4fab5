//! What the agent listens on.

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

/// The socket's name in the runtime folder.
pub const SOCKET: &str = "agent.sock";

/// Why nobody can be listened to.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The socket can't be had.
    #[error("the socket {} cannot be {what}", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There is no such group.
    #[error("api.socket_group: there is no group {0:?}")]
    Group(String),
    /// The TCP address can't be had.
    #[error("{address} cannot be listened on")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// What the agent listens on; made before there is any other thread, while the
/// agent may still give the socket to its group and take a low TCP port. The
/// socket's file goes with it.
#[derive(Debug)]
pub struct Listeners {
    unix: std::os::unix::net::UnixListener,
    tcp: Option<std::net::TcpListener>,
    metrics: Option<std::net::TcpListener>,
    file: SocketFile,
    spare: ReserveFd,
}

/// Removed when it is dropped.
#[derive(Debug)]
struct SocketFile(PathBuf);

/// The same, in a runtime.
#[derive(Debug)]
pub struct Listening {
    unix: UnixListener,
    tcp: Option<TcpListener>,
    metrics: Option<TcpListener>,
    _file: SocketFile,
    spare: ReserveFd,
}

impl Listeners {
    /// Listens; whoever connects is answered when [`serve`](super::serve) runs.
    ///
    /// A socket's file that is there already is one that a killed agent left: two
    /// can't run in one runtime folder.
    ///
    /// # Errors
    /// [`ListenError`]; then nothing is left of it.
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
            let group = nix::unistd::Group::from_name(name).ok().flatten();
            let group = group.ok_or_else(|| ListenError::Group(name.clone()))?;
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
            spare: ReserveFd::new(),
        })
    }

    /// For the runtime that this is called in.
    ///
    /// # Errors
    /// [`ListenError`] if it doesn't take them.
    pub fn listen(self) -> Result<Listening, ListenError> {
        let Self {
            unix,
            tcp,
            metrics,
            file,
            spare,
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
            spare,
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

/// Removes the socket's file; none is fine.
///
/// # Errors
/// [`ListenError::Socket`] if it can't be removed.
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
    /// The next who knocks, and who that is, if the kernel can tell.
    pub(super) async fn accept(&self) -> io::Result<(Stream, io::Result<Principal>)> {
        tokio::select! {
            accepted = self.unix.accept() => accepted.map(|(stream, _)| {
                let origin = stream.peer_cred().map(|peer| Principal::Local {
                    pid: peer.pid().unwrap_or(0),
                    uid: peer.uid(),
                    gid: peer.gid(),
                });
                (Stream::Unix(stream), origin)
            }),
            accepted = accept_by(self.tcp.as_ref()) => accepted.map(|(stream, address)| {
                (Stream::Tcp(stream), Ok(Principal::Unknown { address }))
            }),
            accepted = accept_by(self.metrics.as_ref()) => accepted.map(|(stream, address)| {
                (Stream::Tcp(stream), Ok(Principal::Scraper { address }))
            }),
        }
    }

    /// Tells one who knocks that there is no descriptor for a connection, on the
    /// one that is kept for this. False if there was nobody, or no way.
    pub(super) async fn refuse_one(&mut self) -> bool {
        const WHY: &str = "the agent has no file descriptor left (LimitNOFILE); try again";
        if !self.spare.give() {
            self.spare.take_back();
            return false;
        }
        let knocks = async {
            tokio::select! {
                Ok((stream, _)) = self.unix.accept() => Some(Stream::Unix(stream)),
                Ok((stream, _)) = accept_by(self.tcp.as_ref()) => Some(Stream::Tcp(stream)),
                Ok((stream, _)) = accept_by(self.metrics.as_ref()) => Some(Stream::Tcp(stream)),
                else => None,
            }
        };
        // Who knocked may have gone meanwhile.
        let knocks = timeout(Duration::from_millis(100), knocks).await;
        let refused = match knocks.ok().flatten() {
            Some(stream) => {
                refuse(stream, WHY.into()).await;
                true
            }
            None => false,
        };
        self.spare.take_back();
        refused
    }
}

async fn accept_by(tcp: Option<&TcpListener>) -> io::Result<(tokio::net::TcpStream, SocketAddr)> {
    match tcp {
        Some(tcp) => tcp.accept().await,
        None => std::future::pending().await,
    }
}
