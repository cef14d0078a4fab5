//! Connections: who may have one, for how long, and who is at its other end.

use std::{
    collections::HashMap,
    fs, io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{Request, Response, StatusCode, header},
    response::IntoResponse as _,
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, UnixListener},
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    task::{JoinSet, spawn, spawn_blocking},
    time::{interval, sleep, timeout},
};
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt as _;
use tracing::{debug, error, info, warn};

use super::{
    access::{Access, Permit},
    error::{ApiError, Said},
    sending::Room,
    spare::Spare,
    tokens::Tokens,
};
use crate::{
    api::app::Did,
    audit::{Auditor, Event, Outcome, Peer, RequestId},
    config::{ApiLimits, Config},
    pulse::Pulse,
};

/// The socket's name in the runtime folder.
pub const SOCKET: &str = "agent.sock";

/// How long an answer may take to be taken, and the last ones when the agent ends.
const FAREWELL: Duration = Duration::from_secs(5);

/// How often refusals that were too many to be recorded are counted.
const CATCH_UP: Duration = Duration::from_secs(10);

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
    file: SocketFile,
    spare: Spare,
}

/// Removed when it is dropped.
#[derive(Debug)]
struct SocketFile(PathBuf);

/// The same, in a runtime.
#[derive(Debug)]
pub struct Listening {
    unix: UnixListener,
    tcp: Option<TcpListener>,
    _file: SocketFile,
    spare: Spare,
}

impl Listeners {
    /// Listens; whoever connects is answered when [`serve`] runs.
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
        let tcp = config.tcp.as_ref().map(|tcp| {
            let address = tcp.listen;
            let listener = std::net::TcpListener::bind(address).and_then(|listener| {
                listener.set_nonblocking(true)?;
                Ok(listener)
            });
            listener.map_err(|source| ListenError::Tcp { address, source })
        });
        Ok(Self {
            unix,
            tcp: tcp.transpose()?,
            file,
            spare: Spare::new(),
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
            file,
            spare,
        } = self;
        let failed = |source| ListenError::Socket {
            path: file.0.clone(),
            what: "waited on",
            source,
        };
        let unix = UnixListener::from_std(unix).map_err(failed)?;
        let tcp = tcp.map(TcpListener::from_std).transpose().map_err(failed)?;
        Ok(Listening {
            unix,
            tcp,
            _file: file,
            spare,
        })
    }
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

/// What every connection needs.
#[derive(Debug)]
pub struct Service {
    /// The resources.
    routes: Router,
    /// Who may do what.
    access: Access,
    /// Who is who on TCP.
    tokens: Option<Tokens>,
    /// Who did what.
    auditor: Arc<Auditor>,
    /// How much there may be of everything.
    limits: ApiLimits,
    /// Room for requests that are being answered.
    requests: Semaphore,
    /// Room for what is being sent.
    answers: Room,
}

impl Service {
    /// Answers by these routes.
    #[must_use]
    pub fn new(
        routes: Router,
        access: Access,
        tokens: Option<Tokens>,
        auditor: Arc<Auditor>,
        limits: ApiLimits,
    ) -> Self {
        Self {
            routes,
            access,
            tokens,
            auditor,
            requests: Semaphore::new(limits.requests),
            answers: Room::new(limits.answer_bytes),
            limits,
        }
    }
}

/// Who is at the other end, as far as the connection itself tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Origin {
    /// As the kernel says (`SO_PEERCRED`, unix(7)).
    Local { pid: i32, uid: u32, gid: u32 },
    /// Anybody on this host; the token tells.
    Tcp { address: SocketAddr },
}

impl Origin {
    /// Whose connections are counted together.
    const fn account(self) -> Option<u32> {
        match self {
            Self::Local { uid, .. } => Some(uid),
            Self::Tcp { .. } => None,
        }
    }
}

/// Whether connections are still being let in.
#[derive(Debug, Default)]
pub struct Probe {
    asked: Notify,
    pulse: Pulse,
}

impl Probe {
    /// What [`serve`] shows that it is alive by, when it is poked.
    #[must_use]
    pub fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    /// Has it show so.
    pub fn poke(&self) {
        self.asked.notify_one();
    }
}

/// Answers until it is told to stop; then what is under way has a few seconds.
pub async fn serve(
    mut listeners: Listening,
    service: Arc<Service>,
    mut stop: watch::Receiver<bool>,
    probe: Arc<Probe>,
) {
    let doors = Doors::new(service.limits);
    let mut is_short = false;
    let mut audit = interval(CATCH_UP);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listeners.unix.accept() => accepted.map(|(stream, _)| {
                let origin = stream.peer_cred().map(|peer| Origin::Local {
                    pid: peer.pid().unwrap_or(0),
                    uid: peer.uid(),
                    gid: peer.gid(),
                });
                (Stream::Unix(stream), origin)
            }),
            accepted = accept(listeners.tcp.as_ref()) => accepted.map(|(stream, address)| {
                (Stream::Tcp(stream), Ok(Origin::Tcp { address }))
            }),
            Some(_) = connections.join_next() => continue,
            _ = audit.tick() => {
                service.auditor.catch_up();
                continue;
            }
            () = probe.asked.notified() => {
                probe.pulse.beat();
                continue;
            }
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let (stream, origin) = match accepted {
            Ok((stream, Ok(origin))) => (stream, origin),
            Ok((_, Err(error))) | Err(error) => {
                // Said once: there may be thousands that want in.
                if !std::mem::replace(&mut is_short, true) {
                    warn!(%error, "connections cannot be accepted");
                }
                // Whoever is being served will give a descriptor back. Until
                // then each that knocks is told so, or waits with the others.
                if !listeners.refuse_one().await {
                    sleep(Duration::from_millis(100)).await;
                }
                continue;
            }
        };
        if std::mem::take(&mut is_short) {
            info!("connections are accepted again");
        }
        let service = Arc::clone(&service);
        let stop = stop.clone();
        match doors.enter(origin) {
            Ok(entry) => {
                connections.spawn(async move {
                    match stream {
                        Stream::Unix(stream) => converse(stream, origin, service, stop).await,
                        Stream::Tcp(stream) => converse(stream, origin, service, stop).await,
                    }
                    drop(entry);
                });
            }
            Err(why) => {
                connections.spawn(refuse(stream, why));
            }
        }
    }
    drop(listeners);
    let all = async { while connections.join_next().await.is_some() {} };
    if timeout(FAREWELL, all).await.is_err() {
        info!("some answers were not taken in time");
    }
}

enum Stream {
    Unix(tokio::net::UnixStream),
    Tcp(tokio::net::TcpStream),
}

async fn accept(tcp: Option<&TcpListener>) -> io::Result<(tokio::net::TcpStream, SocketAddr)> {
    match tcp {
        Some(tcp) => tcp.accept().await,
        None => std::future::pending().await,
    }
}

/// How many connections there are, in all and for each peer.
struct Doors {
    all: Arc<Semaphore>,
    of_peers: Mutex<HashMap<Option<u32>, Arc<Semaphore>>>,
    limits: ApiLimits,
}

/// One connection's place.
struct Entry {
    _of_all: OwnedSemaphorePermit,
    _of_peer: OwnedSemaphorePermit,
}

impl Doors {
    fn new(limits: ApiLimits) -> Self {
        Self {
            all: Arc::new(Semaphore::new(limits.connections)),
            of_peers: Mutex::new(HashMap::new()),
            limits,
        }
    }

    fn enter(&self, origin: Origin) -> Result<Entry, String> {
        let all = Arc::clone(&self.all).try_acquire_owned();
        let of_all = all.map_err(|_| {
            let most = self.limits.connections;
            format!("{most} connections are open already; try again")
        })?;
        let most = self.limits.connections_per_peer;
        let mut peers = self.of_peers.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that are gone need no account.
        if peers.len() > 1024 {
            peers.retain(|_, account| account.available_permits() < most);
        }
        let account = peers.entry(origin.account());
        let account = account.or_insert_with(|| Arc::new(Semaphore::new(most)));
        let of_peer = Arc::clone(account).try_acquire_owned();
        let of_peer = of_peer
            .map_err(|_| format!("{most} connections of this peer are open already; try again"))?;
        Ok(Entry {
            _of_all: of_all,
            _of_peer: of_peer,
        })
    }
}

impl Listening {
    /// Tells one who knocks that there is no descriptor for a connection, on the
    /// one that is kept for this. False if there was nobody, or no way.
    async fn refuse_one(&mut self) -> bool {
        const WHY: &str = "the agent has no file descriptor left (LimitNOFILE); try again";
        if !self.spare.give() {
            self.spare.take_back();
            return false;
        }
        let knocks = async {
            tokio::select! {
                Ok((stream, _)) = self.unix.accept() => Some(Stream::Unix(stream)),
                Ok((stream, _)) = accept(self.tcp.as_ref()) => Some(Stream::Tcp(stream)),
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

/// Turns somebody away who may not care to hear why.
async fn refuse(stream: Stream, why: String) {
    let turned_away = async {
        match stream {
            Stream::Unix(stream) => turn_away(stream, why).await,
            Stream::Tcp(stream) => turn_away(stream, why).await,
        }
    };
    if timeout(Duration::from_secs(1), turned_away).await.is_err() {
        debug!("nobody took the refusal");
    }
}

async fn turn_away(mut stream: impl AsyncWrite + Unpin, why: String) {
    let error = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "TooManyConnections", why);
    let body = axum::body::to_bytes(error.into_response().into_body(), 4096).await;
    let body = body.unwrap_or_default();
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nretry-after: 1\r\nconnection: close\r\n\r\n",
        body.len()
    );
    // Who doesn't want it doesn't get it.
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.write_all(&body).await;
    let _ = stream.shutdown().await;
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    origin: Origin,
    service: Arc<Service>,
    mut stop: watch::Receiver<bool>,
) {
    let limits = service.limits;
    let header_limit = Duration::from_secs(limits.header_seconds);
    // Looked up once, as the peer is the same for the whole connection; where a
    // grant names a group, by the host's name service, which may take its time.
    let permit = match origin {
        Origin::Local { uid, gid, .. } => {
            let service = Arc::clone(&service);
            let looked_up = spawn_blocking(move || service.access.of_peer(uid, gid)).await;
            match looked_up {
                Ok(permit) => Some(permit),
                Err(error) => {
                    warn!(%error, uid, "a peer could not be looked up");
                    return;
                }
            }
        }
        Origin::Tcp { .. } => None,
    };
    let answer = service_fn(move |request| {
        let (service, permit) = (Arc::clone(&service), permit.clone());
        async move {
            // A task of its own: what was begun is brought to its end and into
            // the audit trail, whether the client waits for it or not.
            let answered = spawn(async move { answer(request, origin, permit, &service).await });
            let response = answered.await.unwrap_or_else(|failure| {
                error!(%failure, "a request was not answered: a bug");
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                let message = "the request could not be answered; the log says why";
                ApiError::new(status, "HTTPInternalServerError", message).into_response()
            });
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(Duration::from_secs(limits.answer_seconds)));
    let stream = Box::pin(stream);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_limit)
        .max_buf_size(64 << 10)
        .serve_connection(TokioIo::new(stream), answer);
    tokio::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => {
            if let Err(error) = ended {
                debug!(%error, "a connection ended early");
            }
            return;
        }
        _ = stop.wait_for(|stop| *stop) => connection.as_mut().graceful_shutdown(),
    }
    if let Err(error) = connection.await {
        debug!(%error, "a connection ended early");
    }
}

async fn answer(
    request: Request<Incoming>,
    origin: Origin,
    permit: Option<Permit>,
    service: &Service,
) -> Response<Body> {
    let begun = std::time::Instant::now();
    let id = RequestId::random();
    let operation = operation(request.method());
    let router = router_of(request.uri().path());
    let (peer, permit) = match (origin, permit) {
        (Origin::Local { pid, uid, gid }, Some(permit)) => {
            (Peer::Local { pid, uid, gid }, Ok(permit))
        }
        (Origin::Tcp { address }, _) => by_token(&request, address, service),
        // A local peer always has its permit.
        (Origin::Local { pid, uid, gid }, None) => (
            Peer::Local { pid, uid, gid },
            Ok(service.access.of_peer(uid, gid)),
        ),
    };
    let mut response = match permit {
        Ok(permit) => match permit
            .may_enter()
            .map_err(ApiError::forbidden)
            .and_then(|()| {
                let room = service.requests.try_acquire();
                room.map_err(|_| {
                    let most = service.limits.requests;
                    ApiError::new(
                        StatusCode::SERVICE_UNAVAILABLE,
                        "TooManyRequests",
                        format!("{most} requests are being answered already; try again"),
                    )
                })
            }) {
            Ok(_room) => {
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(permit);
                // The router never fails.
                match service.routes.clone().oneshot(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                }
            }
            Err(error) => error.into_response(),
        },
        Err(error) => error.into_response(),
    };
    let did = response.extensions_mut().remove::<Did>();
    // What was done is said, whatever room there is: it is as large as the request.
    if did.is_none() {
        response = service.answers.reserve(response);
    }
    if let Ok(value) = header::HeaderValue::from_str(&id.to_string()) {
        response
            .headers_mut()
            .insert("x-openstack-request-id", value);
    }
    let said = response.extensions_mut().remove::<Said>();
    let outcome = match (response.status().as_u16(), said) {
        (401 | 403, Some(said)) => Outcome::NotAllowed(said.sentence),
        (_, Some(said)) if said.is_failure => Outcome::Failed(said.sentence),
        (_, Some(said)) => Outcome::Refused(said.sentence),
        // Who only reads leaves no trace.
        _ if did.is_none() => return response,
        _ => Outcome::Done,
    };
    let (operation, before, after) = match did {
        Some(did) => (did.operation, did.before, did.after),
        None => (operation, Vec::new(), Vec::new()),
    };
    let mut routers: Vec<_> = before
        .iter()
        .chain(&after)
        .map(|rule| rule.says.router)
        .collect();
    routers.extend(router);
    routers.sort_unstable();
    routers.dedup();
    service.auditor.record(&Event {
        request: id,
        peer,
        operation,
        routers,
        before,
        after,
        outcome,
        took: begun.elapsed(),
    });
    response
}

/// The router that a path is about, if it names one.
fn router_of(path: &str) -> Option<crate::model::RouterId> {
    let mut parts = path.strip_prefix("/v2.0/routers/")?.split('/');
    parts.next()?.parse().ok()
}

fn operation(method: &axum::http::Method) -> &'static str {
    match method.as_str() {
        "GET" | "HEAD" => "read",
        "POST" => "create",
        "PUT" => "change",
        "DELETE" => "delete",
        _ => "unknown",
    }
}

/// Neutron's clients bring a token with each request.
fn by_token(
    request: &Request<Incoming>,
    address: SocketAddr,
    service: &Service,
) -> (Peer, Result<Permit, ApiError>) {
    let presented = request.headers().get("x-auth-token");
    let name = presented
        .zip(service.tokens.as_ref())
        .and_then(|(token, tokens)| tokens.name_of(token.as_bytes()));
    match name {
        Some(name) => (
            Peer::Token {
                name: name.to_owned(),
            },
            Ok(service.access.of_token(name)),
        ),
        None => (
            Peer::Unknown { address },
            Err(ApiError::new(
                StatusCode::UNAUTHORIZED,
                "Unauthorized",
                if presented.is_none() {
                    "a token is wanted, in the header X-Auth-Token"
                } else {
                    "the token is not known"
                },
            )),
        ),
    }
}
