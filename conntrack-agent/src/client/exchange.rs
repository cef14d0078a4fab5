//! One question to the agent, and its answer.

use std::{
    error::Error,
    io,
    path::{Path, PathBuf},
    pin::pin,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, StatusCode,
    client::conn::http1,
    header::{ACCEPT, CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::{
    net::UnixStream,
    runtime::{Builder, Runtime},
};

use super::{ClientError, ResponseFault, half_open::ReadAfterEpipe};

/// How much is waited for and read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// From the connection to the last byte of the answer.
    pub time: Duration,
    /// The answer's body, in bytes.
    pub answer: usize,
}

impl Default for Bounds {
    /// Time for a change of all routers of a large host, and room for some
    /// quarter of a million rules.
    fn default() -> Self {
        Self {
            time: Duration::from_mins(2),
            answer: 64 << 20,
        }
    }
}

/// What is asked.
#[derive(Debug)]
pub(super) struct HttpRequest {
    method: Method,
    path: String,
    body: Option<Value>,
    /// Whether it is to change something, so that it matters to know if it did.
    changes: bool,
}

impl HttpRequest {
    pub(super) const fn read(path: String) -> Self {
        Self {
            method: Method::GET,
            path,
            body: None,
            changes: false,
        }
    }

    pub(super) const fn create(path: String, body: Value) -> Self {
        Self {
            method: Method::POST,
            path,
            body: Some(body),
            changes: true,
        }
    }

    pub(super) const fn replace(path: String, body: Value) -> Self {
        Self {
            method: Method::PUT,
            path,
            body: Some(body),
            changes: true,
        }
    }

    /// A replacement of which only the outcome is wanted.
    pub(super) const fn rehearse(path: String, body: Value) -> Self {
        Self {
            method: Method::PUT,
            path,
            body: Some(body),
            changes: false,
        }
    }

    pub(super) const fn delete(path: String) -> Self {
        Self {
            method: Method::DELETE,
            path,
            body: None,
            changes: true,
        }
    }

    fn request(self) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let body = self.body.map(|body| body.to_string()).unwrap_or_default();
        Request::builder()
            .method(self.method)
            .uri(self.path)
            // HTTP wants a host (RFC 9112, 3.2), a Unix socket has none.
            .header(HOST, "localhost")
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body.into()))
    }
}

/// An answer, whole.
#[derive(Debug)]
pub(super) struct Response {
    status: StatusCode,
    body: Bytes,
    changes: bool,
}

/// The API's form of an error (Neutron's).
#[derive(Deserialize)]
struct NeutronError {
    #[serde(rename = "NeutronError")]
    error: ErrorText,
}

#[derive(Deserialize)]
struct ErrorText {
    message: String,
}

impl Response {
    /// That it was done.
    ///
    /// # Errors
    /// [`ClientError`] with the agent's reason, if it was not.
    pub(super) fn success(&self) -> Result<(), ClientError> {
        if self.status.is_success() {
            return Ok(());
        }
        let status = self.status;
        let said: Option<NeutronError> = serde_json::from_slice(&self.body).ok();
        let message = said.map(|refusal| refusal.error.message);
        let message = message.filter(|message| !message.trim().is_empty());
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            let message = message.unwrap_or_else(|| ResponseFault::NoReason(status).to_string());
            return Err(ClientError::NotPermitted { message });
        }
        let refused = status.is_client_error() || status.is_server_error();
        Err(match message.filter(|_| refused) {
            Some(message) => ClientError::Refused { status, message },
            None => ClientError::NoAnswer {
                fault: ResponseFault::NoReason(status),
                // A refusal changes nothing, whether it has a reason or not.
                changes: self.changes && !status.is_client_error(),
            },
        })
    }

    /// What it says.
    ///
    /// # Errors
    /// [`ClientError`] with the agent's reason, or if it says something else.
    pub(super) fn resource<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        self.success()?;
        serde_json::from_slice(&self.body).map_err(|error| ClientError::NoAnswer {
            fault: ResponseFault::NotUnderstood(error),
            changes: self.changes,
        })
    }
}

/// Whom to ask, and what to ask by.
#[derive(Debug)]
pub(super) struct Exchange {
    socket: PathBuf,
    bounds: Bounds,
    runtime: Runtime,
}

impl Exchange {
    pub(super) fn new(socket: &Path, bounds: Bounds) -> Result<Self, ClientError> {
        let runtime = Builder::new_current_thread().enable_all().build();
        Ok(Self {
            socket: socket.to_owned(),
            bounds,
            runtime: runtime.map_err(ClientError::Runtime)?,
        })
    }

    pub(super) fn answer_to(&self, question: HttpRequest) -> Result<Response, ClientError> {
        self.runtime.block_on(self.within_bounds(question))
    }

    async fn within_bounds(&self, question: HttpRequest) -> Result<Response, ClientError> {
        let changes = question.changes;
        let request = question.request().map_err(ClientError::NotAsked)?;
        let stream = UnixStream::connect(&self.socket).await;
        let stream = stream.map_err(|source| unconnected(&self.socket, source))?;
        let asked = ask(stream, request, self.bounds.answer);
        let answer = match tokio::time::timeout(self.bounds.time, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(ResponseFault::Late(self.bounds.time)),
        };
        let (status, body) = answer.map_err(|fault| ClientError::NoAnswer { fault, changes })?;
        Ok(Response {
            status,
            body,
            changes,
        })
    }
}

fn unconnected(socket: &Path, source: io::Error) -> ClientError {
    let socket = socket.to_owned();
    if source.kind() == io::ErrorKind::PermissionDenied {
        ClientError::SocketForbidden { socket, source }
    } else {
        ClientError::Unreachable { socket, source }
    }
}

async fn ask(
    stream: UnixStream,
    request: Request<Full<Bytes>>,
    limit: usize,
) -> Result<(StatusCode, Bytes), ResponseFault> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(ReadAfterEpipe(stream)))
        .await
        .map_err(broken)?;
    let mut answer = pin!(async {
        let answer = sender.send_request(request).await.map_err(broken)?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, limit).collect().await;
        let body = body.map_err(|error| unread(error, limit))?;
        Ok((head.status, body.to_bytes()))
    });
    tokio::select! {
        biased;
        answer = &mut answer => return answer,
        // Why the connection ended, the answer's side is told too; and what
        // came before that is still to be read there.
        _ = connection => {}
    }
    answer.await
}

fn unread(error: Box<dyn Error + Send + Sync>, limit: usize) -> ResponseFault {
    match error.downcast::<hyper::Error>() {
        Ok(error) => broken(*error),
        // The other error that a limited body has is `LengthLimitError`.
        Err(_) => ResponseFault::TooLarge(limit),
    }
}

fn broken(error: hyper::Error) -> ResponseFault {
    if error.is_parse() {
        ResponseFault::NotHttp(error)
    } else {
        ResponseFault::Closed(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_may_not_be_used_is_told_from_one_that_is_not_there() {
        let socket = Path::new("/run/x");
        // EACCES and EPERM, ENOENT and ECONNREFUSED.
        for (number, forbidden) in [(13, true), (1, true), (2, false), (111, false)] {
            let error = unconnected(socket, io::Error::from_raw_os_error(number));
            let said = matches!(error, ClientError::SocketForbidden { .. });
            assert_eq!(said, forbidden, "{error:?}");
            let unreachable = matches!(error, ClientError::Unreachable { .. });
            assert_eq!(unreachable, !forbidden, "{error:?}");
        }
    }
}
