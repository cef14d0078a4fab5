//! Sends one request to the agent and reads its answer.

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

/// The bounds of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The time from the connection to the last byte of the answer.
    pub time: Duration,
    /// The size of the answer's body, in bytes.
    pub answer: usize,
}

impl Default for Bounds {
    /// Returns bounds for a change of all routers of a large host, and for some quarter of a
    /// million rules.
    fn default() -> Self {
        Self {
            time: Duration::from_mins(2),
            answer: 64 << 20,
        }
    }
}

/// A request.
#[derive(Debug)]
pub(super) struct HttpRequest {
    method: Method,
    path: String,
    body: Option<Value>,
    /// Whether it may change something, which an error must then tell.
    changes: bool,
}

impl HttpRequest {
    const fn new(method: Method, path: String, body: Option<Value>, changes: bool) -> Self {
        Self {
            method,
            path,
            body,
            changes,
        }
    }

    /// Returns a `GET`.
    pub(super) const fn read(path: String) -> Self {
        Self::new(Method::GET, path, None, false)
    }

    /// Returns a `POST`.
    pub(super) const fn create(path: String, body: Value) -> Self {
        Self::new(Method::POST, path, Some(body), true)
    }

    /// Returns a `PUT`.
    pub(super) const fn replace(path: String, body: Value) -> Self {
        Self::new(Method::PUT, path, Some(body), true)
    }

    /// Returns a `PUT` that is a dry run.
    pub(super) const fn rehearse(path: String, body: Value) -> Self {
        Self::new(Method::PUT, path, Some(body), false)
    }

    /// Returns a `DELETE`.
    pub(super) const fn delete(path: String) -> Self {
        Self::new(Method::DELETE, path, None, true)
    }

    /// Returns the HTTP request.
    fn request(self) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let body = self.body.map(|body| body.to_string()).unwrap_or_default();
        Request::builder()
            .method(self.method)
            .uri(self.path)
            // HTTP requires a host (RFC 9112, 3.2), and a Unix socket has none.
            .header(HOST, "localhost")
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body.into()))
    }
}

/// A complete answer.
#[derive(Debug)]
pub(super) struct Response {
    status: StatusCode,
    body: Bytes,
    changes: bool,
}

/// The body of an error answer, in Neutron's form.
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
    /// Checks that the request succeeded.
    ///
    /// # Errors
    /// Returns [`ClientError`] with the agent's reason, if it did not.
    pub(super) fn success(&self) -> Result<(), ClientError> {
        if self.status.is_success() {
            return Ok(());
        }
        let status = self.status;
        let message = serde_json::from_slice(&self.body)
            .ok()
            .map(|refusal: NeutronError| refusal.error.message)
            .filter(|message| !message.trim().is_empty());
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

    /// Reads the resource in the answer.
    ///
    /// # Errors
    /// Returns [`ClientError`] with the agent's reason, or if the body is something else.
    pub(super) fn resource<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        self.success()?;
        serde_json::from_slice(&self.body).map_err(|error| ClientError::NoAnswer {
            fault: ResponseFault::NotUnderstood(error),
            changes: self.changes,
        })
    }
}

/// The socket of an agent, with a runtime to talk to it.
#[derive(Debug)]
pub(super) struct Exchange {
    socket: PathBuf,
    bounds: Bounds,
    runtime: Runtime,
}

impl Exchange {
    /// Returns an exchange with the agent on this socket.
    pub(super) fn new(socket: &Path, bounds: Bounds) -> Result<Self, ClientError> {
        let runtime = Builder::new_current_thread().enable_all().build();
        Ok(Self {
            socket: socket.to_owned(),
            bounds,
            runtime: runtime.map_err(ClientError::Runtime)?,
        })
    }

    /// Sends a request and waits for the answer.
    pub(super) fn answer_to(&self, question: HttpRequest) -> Result<Response, ClientError> {
        self.runtime.block_on(self.within_bounds(question))
    }

    async fn within_bounds(&self, question: HttpRequest) -> Result<Response, ClientError> {
        let changes = question.changes;
        let request = question.request().map_err(ClientError::NotAsked)?;
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| unconnected(&self.socket, source))?;
        let asked = ask(stream, request, self.bounds.answer);
        let (status, body) = tokio::time::timeout(self.bounds.time, asked)
            .await
            .unwrap_or(Err(ResponseFault::Late(self.bounds.time)))
            .map_err(|fault| ClientError::NoAnswer { fault, changes })?;
        Ok(Response {
            status,
            body,
            changes,
        })
    }
}

/// Returns the error of a failed connection.
fn unconnected(socket: &Path, source: io::Error) -> ClientError {
    let socket = socket.to_owned();
    if source.kind() == io::ErrorKind::PermissionDenied {
        ClientError::SocketForbidden { socket, source }
    } else {
        ClientError::Unreachable { socket, source }
    }
}

/// Sends a request on a new connection, and reads the answer.
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
        let body = Limited::new(body, limit)
            .collect()
            .await
            .map_err(|error| unread(error, limit))?;
        Ok((head.status, body.to_bytes()))
    });
    tokio::select! {
        biased;
        answer = &mut answer => return answer,
        // The answer's future returns the error of the connection too, after what was
        // received before it.
        _ = connection => {}
    }
    answer.await
}

/// Returns the fault of a body that could not be read.
fn unread(error: Box<dyn Error + Send + Sync>, limit: usize) -> ResponseFault {
    match error.downcast::<hyper::Error>() {
        Ok(error) => broken(*error),
        // The only other error of a limited body is `LengthLimitError`.
        Err(_) => ResponseFault::TooLarge(limit),
    }
}

/// Returns the fault of a broken connection.
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
