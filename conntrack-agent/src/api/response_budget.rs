//! Charges large responses to a memory budget until they are sent, so that clients that
//! request much and receive nothing can't make memory grow.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    Error,
    body::{Body, HttpBody},
    http::Response,
    response::IntoResponse as _,
};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;

/// The unit of the budget, in bytes.
const PAGE: usize = 4096;
/// The size from which a response is charged, in bytes; the limit on connections bounds the
/// smaller ones.
const LARGE: u64 = 64 << 10;

/// The memory budget of large responses.
#[derive(Debug)]
pub(super) struct ByteBudget(Arc<Semaphore>);

impl ByteBudget {
    /// Returns a budget of this many bytes.
    pub(super) fn new(bytes: usize) -> Self {
        let pages = (bytes / PAGE).min(Semaphore::MAX_PERMITS);
        Self(Arc::new(Semaphore::new(pages)))
    }

    /// Returns the response with its share of the budget, or an error response if the budget
    /// is used up.
    pub(super) fn reserve(&self, answer: Response<Body>) -> Response<Body> {
        let length = answer.body().size_hint().exact().unwrap_or(u64::MAX);
        if length < LARGE {
            return answer;
        }
        let pages = u32::try_from(length / PAGE as u64 + 1).unwrap_or(u32::MAX);
        match Arc::clone(&self.0).try_acquire_many_owned(pages) {
            Ok(room) => answer.map(|body| Body::new(Sending { body, _room: room })),
            Err(_) => ApiError::busy(
                "too many large answers are under way; ask for less, with limit=, or try again",
            )
            .into_response(),
        }
    }
}

/// A body with its share of the budget, which is released when the body is sent or
/// dropped.
struct Sending {
    body: Body,
    _room: OwnedSemaphorePermit,
}

impl HttpBody for Sending {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::*;

    fn answer(length: usize) -> Response<Body> {
        Response::new(Body::from(vec![b'x'; length]))
    }

    #[test]
    fn large_answers_have_room_until_they_are_gone_and_small_ones_need_none() {
        let room = ByteBudget::new(1 << 20);
        let first = room.reserve(answer(700 << 10));
        assert_eq!(first.status(), StatusCode::OK);
        assert_eq!(first.body().size_hint().exact(), Some(700 << 10));
        let second = room.reserve(answer(700 << 10));
        assert_eq!(second.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(room.reserve(answer(1000)).status(), StatusCode::OK);
        drop(first);
        assert_eq!(room.reserve(answer(700 << 10)).status(), StatusCode::OK);
    }
}
