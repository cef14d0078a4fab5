//! An answer on its way: large ones have room reserved until they are sent, so
//! that clients who ask for much and take nothing can't make memory grow.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    Error,
    body::{Body, HttpBody},
    http::{Response, StatusCode},
    response::IntoResponse as _,
};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;

/// Room is counted in these.
const PAGE: usize = 4096;
/// Smaller answers need none: there are only so many connections.
const LARGE: u64 = 64 << 10;

/// Room for large answers.
#[derive(Debug)]
pub(super) struct ByteBudget(Arc<Semaphore>);

impl ByteBudget {
    /// For this many bytes.
    pub(super) fn new(bytes: usize) -> Self {
        let pages = (bytes / PAGE).min(Semaphore::MAX_PERMITS);
        Self(Arc::new(Semaphore::new(pages)))
    }

    /// The answer, with its room; or one that says that there is none.
    pub(super) fn reserve(&self, answer: Response<Body>) -> Response<Body> {
        let length = answer.body().size_hint().exact().unwrap_or(u64::MAX);
        if length < LARGE {
            return answer;
        }
        let pages = u32::try_from(length / PAGE as u64 + 1).unwrap_or(u32::MAX);
        match Arc::clone(&self.0).try_acquire_many_owned(pages) {
            Ok(room) => answer.map(|body| Body::new(Sending { body, _room: room })),
            Err(_) => ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "TooManyRequests",
                "too many large answers are under way; ask for less, with limit=, or try again",
            )
            .into_response(),
        }
    }
}

/// A body, and the room that it takes until it is sent or nobody wants it.
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
