//! Turning somebody away before there is a connection to speak of.

use std::time::Duration;

use axum::{http::StatusCode, response::IntoResponse as _};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};
use tracing::debug;

use crate::api::error::ApiError;

/// One that was accepted.
pub(super) enum Stream {
    Unix(tokio::net::UnixStream),
    Tcp(tokio::net::TcpStream),
}

/// Turns somebody away who may not care to hear why.
pub(super) async fn refuse(stream: Stream, why: String) {
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
