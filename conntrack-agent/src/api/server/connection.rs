//! One connection, from its peer's permit to its end.

use std::{sync::Arc, time::Duration};

use axum::{http::StatusCode, response::IntoResponse as _};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    task::{spawn, spawn_blocking},
};
use tokio_io_timeout::TimeoutStream;
use tracing::{debug, error, warn};

use super::{
    Service,
    answer::{answer, waits},
};
use crate::{access::Principal, api::error::ApiError};

/// Answers what is asked on a connection until it ends, or the agent does.
pub(super) async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: Principal,
    service: Arc<Service>,
    mut stop: watch::Receiver<bool>,
) {
    let limits = service.limits;
    let header_limit = Duration::from_secs(limits.header_seconds);
    // Looked up once, as the peer is the same for the whole connection; where a
    // grant names a group, by the host's name service, which may take its time.
    let looked_up = {
        let service = Arc::clone(&service);
        spawn_blocking(move || service.access.of(peer)).await
    };
    let authorization = match looked_up {
        Ok(authorization) => authorization,
        Err(error) => {
            warn!(%error, "a peer could not be looked up");
            return;
        }
    };
    let answer = service_fn(move |request| {
        let (service, authorization) = (Arc::clone(&service), authorization.clone());
        async move {
            if waits(&request) {
                // Gives up its place with a client that goes away.
                return Ok(answer(request, authorization, &service).await);
            }
            // A task of its own: what was begun is brought to its end and into
            // the audit trail, whether the client waits for it or not.
            let answered = spawn(async move { answer(request, authorization, &service).await });
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
