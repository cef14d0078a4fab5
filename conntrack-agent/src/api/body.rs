//! Receives a request's body within the limits, and parses it into one of
//! [`super::requests`].
//!
//! The limit on nesting is that of `serde_json`: 128 levels.

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
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use super::error::ApiError;
use crate::config::ApiLimits;

/// The unit of the memory budget, in bytes.
const PAGE: usize = 4096;

/// The limits of a body, and the memory budget of all that are being received.
#[derive(Clone, Debug)]
pub(super) struct BodyBudget {
    limits: ApiLimits,
    /// The free part of the budget, in [`PAGE`]s.
    room: Arc<Semaphore>,
}

impl BodyBudget {
    /// Returns the budget for these limits.
    pub(super) fn new(limits: ApiLimits) -> Self {
        /// The number of bodies of the largest size that fit at the same time.
        const LARGEST: usize = 8;
        let pages = LARGEST * limits.body_bytes.div_ceil(PAGE);
        let room = Arc::new(Semaphore::new(pages));
        Self { limits, room }
    }
}

/// A body, received and parsed.
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
        let receiving = Received::from(body, limits.body_bytes, &room);
        let received = timeout(deadline, receiving).await.map_err(|_| {
            let message = format!("the body did not come within {} s", limits.body_seconds);
            ApiError::new(StatusCode::REQUEST_TIMEOUT, "RequestTimeout", message)
        })??;
        serde_json::from_slice(&received.bytes)
            .map(|JsonObject(body)| Self(body))
            .map_err(|error| ApiError::invalid(refusal(&error)))
    }
}

/// Returns the message for a body that can't be parsed. The parser repeats a field or a
/// value that it doesn't know, which can be the whole body; in place of a long message
/// there is only the position.
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

/// The received part of a body, and its share of the memory budget.
struct Received<'a> {
    bytes: Vec<u8>,
    room: Option<SemaphorePermit<'a>>,
}

impl<'a> Received<'a> {
    /// Receives a body of at most `most` bytes. The budget is charged for the bytes that
    /// arrive, not for those that are announced: a client that announces many and sends
    /// none takes nothing from the others.
    async fn from(mut body: Body, most: usize, room: &'a Semaphore) -> Result<Self, ApiError> {
        let too_large = || {
            let message = format!("the body is longer than {most} bytes");
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestTooLarge", message)
        };
        // A Content-Length above the limit is refused before anything is received.
        if usize::try_from(body.size_hint().lower()).is_ok_and(|least| least > most) {
            return Err(too_large());
        }
        let mut received = Self {
            bytes: Vec::new(),
            room: None,
        };
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| ApiError::invalid("the body broke off"))?;
            // Trailers are ignored.
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

    /// Charges the budget for `more` further bytes.
    fn grow(&mut self, more: usize, room: &'a Semaphore) -> Result<(), ApiError> {
        let pages = |bytes: usize| bytes.div_ceil(PAGE);
        let length = self.bytes.len();
        let needed = pages(length + more) - pages(length);
        let taken = room
            .try_acquire_many(u32::try_from(needed).unwrap_or(u32::MAX))
            .map_err(|_| ApiError::busy("too many large bodies are being received; try again"))?;
        match &mut self.room {
            Some(room) => room.merge(taken),
            none => *none = Some(taken),
        }
        Ok(())
    }
}

/// Checks that the Content-Type is `application/json`.
fn expect_json(headers: &HeaderMap) -> Result<(), ApiError> {
    let is_json = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"));
    if is_json {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "UnsupportedMediaType",
        "the body must be application/json, and its Content-Type say so",
    ))
}

/// A JSON object, and nothing else; serde would also accept an array for a struct, field
/// by field.
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
