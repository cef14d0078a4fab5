//! Refuses a connection that exceeds a limit, before it is served.

use std::time::Duration;

use axum::{http::StatusCode, response::IntoResponse as _};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};
use tracing::debug;

use crate::api::error::ApiError;

/// An accepted connection.
pub(super) enum Stream {
    Unix(tokio::net::UnixStream),
    Tcp(tokio::net::TcpStream),
}

/// Sends an error response with the reason and closes the connection; gives up after a
/// second.
pub(super) async fn refuse(stream: Stream, why: String) {
    let sent = async {
        match stream {
            Stream::Unix(stream) => send(stream, why).await,
            Stream::Tcp(stream) => send(stream, why).await,
        }
    };
    if timeout(Duration::from_secs(1), sent).await.is_err() {
        debug!("nobody took the refusal");
    }
}

/// Writes the error response.
async fn send(mut stream: impl AsyncWrite + Unpin, why: String) {
    let error = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "TooManyConnections", why);
    let body = axum::body::to_bytes(error.into_response().into_body(), 4096)
        .await
        .unwrap_or_default();
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nretry-after: 1\r\nconnection: close\r\n\r\n",
        body.len()
    );
    // A client that does not read its refusal is closed without one.
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.write_all(&body).await;
    let _ = stream.shutdown().await;
}
