//! How a body is received, and parsed into one of [`super::requests`].
//!
//! A body is read as far as the limits let it; nesting ends where `serde_json`
//! ends it, at 128 levels.

use std::{fmt, marker::PhantomData, sync::Arc, time::Duration};

use axum::{
    body::{Body, HttpBody as _},
    extract::{FromRef, FromRequest, Request},
    http::{HeaderMap, StatusCode, header},
};
use http_body_util::BodyExt as _;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, Visitor, value::MapAccessDeserializer},
};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::error::ApiError;
use crate::config::ApiLimits;

/// What the room for bodies is counted in, in bytes.
const PAGE: usize = 4096;

/// How large a body may be, and the room for all that are being received.
#[derive(Clone, Debug)]
pub(super) struct BodyBudget {
    limits: ApiLimits,
    /// In [`PAGE`]s.
    room: Arc<Semaphore>,
}

impl BodyBudget {
    pub(super) fn new(limits: ApiLimits) -> Self {
        /// Bodies of the largest size that may be under way at once.
        const LARGEST: usize = 8;
        let pages = LARGEST * limits.body_bytes.div_ceil(PAGE);
        let room = Arc::new(Semaphore::new(pages));
        Self { limits, room }
    }
}

/// A body that was read and understood.
pub(super) struct JsonBody<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T>
where
    BodyBudget: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        expect_json(&parts.headers)?;
        let BodyBudget { limits, room } = BodyBudget::from_ref(state);
        let deadline = Duration::from_secs(limits.body_seconds);
        let received = Received::from(body, limits.body_bytes, &room);
        let received = tokio::time::timeout(deadline, received).await;
        let received = received.map_err(|_| {
            ApiError::new(
                StatusCode::REQUEST_TIMEOUT,
                "RequestTimeout",
                format!("the body did not come within {} s", limits.body_seconds),
            )
        })??;
        let parsed = serde_json::from_slice(&received.bytes);
        parsed
            .map(|JsonObject(body)| Self(body))
            .map_err(|error| ApiError::invalid(refusal(&error)))
    }
}

/// What is wrong with a body. The parser repeats the field or the value that it
/// doesn't know, which may be all of the body; then only its place is said.
pub(super) fn refusal(error: &serde_json::Error) -> String {
    const LONGEST: usize = 256;
    let said = error.to_string();
    if said.len() <= LONGEST {
        return format!("the body is refused: {said}");
    }
    format!(
        "the body is refused: a field or a value that ends at line {} column {} is not allowed",
        error.line(),
        error.column()
    )
}

/// A body, and the room that it takes among all that are being received.
struct Received<'a> {
    bytes: Vec<u8>,
    room: Option<SemaphorePermit<'a>>,
}

impl<'a> Received<'a> {
    /// Receives a body of no more than so many bytes. Room is taken as they
    /// come: who only says that there will be many takes none from the others.
    async fn from(mut body: Body, most: usize, room: &'a Semaphore) -> Result<Self, ApiError> {
        let too_large = || {
            let message = format!("the body is longer than {most} bytes");
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestTooLarge", message)
        };
        // As its Content-Length says; then nothing of it need come.
        if usize::try_from(body.size_hint().lower()).is_ok_and(|least| least > most) {
            return Err(too_large());
        }
        let mut received = Self {
            bytes: Vec::new(),
            room: None,
        };
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| ApiError::invalid("the body broke off"))?;
            // Trailers have no meaning here.
            let Ok(data) = frame.into_data() else {
                continue;
            };
            if data.len() > most - received.bytes.len() {
                return Err(too_large());
            }
            received.grow(data.len(), room)?;
            received.bytes.extend_from_slice(&data);
        }
        Ok(received)
    }

    /// Takes the room that so many bytes more need.
    fn grow(&mut self, more: usize, room: &'a Semaphore) -> Result<(), ApiError> {
        let pages = |bytes: usize| bytes.div_ceil(PAGE);
        let length = self.bytes.len();
        let needed = pages(length + more) - pages(length);
        let taken = room.try_acquire_many(u32::try_from(needed).unwrap_or(u32::MAX));
        let taken = taken.map_err(|_| {
            ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "TooManyRequests",
                "too many large bodies are being received; try again",
            )
        })?;
        match &mut self.room {
            Some(room) => room.merge(taken),
            none => *none = Some(taken),
        }
        Ok(())
    }
}

fn expect_json(headers: &HeaderMap) -> Result<(), ApiError> {
    let given = headers.get(header::CONTENT_TYPE);
    let kind = given.and_then(|value| value.to_str().ok());
    let kind = kind.map(|value| value.split(';').next().unwrap_or_default().trim());
    if kind.is_some_and(|kind| kind.eq_ignore_ascii_case("application/json")) {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "UnsupportedMediaType",
        "the body must be application/json, and its Content-Type say so",
    ))
}

/// A JSON object. serde would take an array for a struct too, field by field.
#[derive(Debug)]
pub(super) struct JsonObject<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for JsonObject<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = T;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }
        deserializer.deserialize_map(Fields(PhantomData)).map(Self)
    }
}
