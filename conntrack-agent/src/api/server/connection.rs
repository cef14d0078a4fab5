//! Serves one connection, from its peer's authorization to its end.

use std::{sync::Arc, time::Duration};

use axum::response::IntoResponse as _;
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

/// Answers the requests of a connection until it ends or the agent stops.
pub(super) async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: Principal,
    service: Arc<Service>,
    mut stop: watch::Receiver<bool>,
) {
    let limits = service.limits;
    let header_limit = Duration::from_secs(limits.header_seconds);
    // The peer stays the same for the whole connection, so one lookup is enough. For a
    // process it can ask the host's name service, which can block.
    let looked_up = if matches!(peer, Principal::Local { .. }) {
        let service = Arc::clone(&service);
        spawn_blocking(move || service.access.of(peer)).await
    } else {
        Ok(service.access.of(peer))
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
                // A waiting request ends with its connection, which frees its place.
                return Ok(answer(request, authorization, &service).await);
            }
            // Runs in its own task, so that a request that has begun is finished and
            // recorded in the audit trail even if the client disconnects.
            let answered = spawn(async move { answer(request, authorization, &service).await });
            let response = answered.await.unwrap_or_else(|failure| {
                error!(%failure, "a request was not answered: a bug");
                ApiError::internal("the request could not be answered; the log says why")
                    .into_response()
            });
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(Duration::from_secs(limits.answer_seconds)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_limit)
        .max_buf_size(64 << 10)
        .serve_connection(TokioIo::new(Box::pin(stream)), answer);
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
