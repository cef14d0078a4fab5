//! What a path names; one that can't be read is refused like everything else.

use axum::{
    extract::{FromRequestParts, Path},
    http::request::Parts,
};
use serde::de::DeserializeOwned;

use super::error::ApiError;
use crate::model::RouterId;

/// The parts of the path that stand for something.
#[derive(Debug)]
pub(super) struct PathParams<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for PathParams<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(place)) => Ok(Self(place)),
            Err(error) => Err(ApiError::invalid(format!(
                "the path is refused: {}",
                error.body_text()
            ))),
        }
    }
}

/// The router that a path names, if it can be any.
pub(super) fn router_id(given: &str) -> Result<RouterId, ApiError> {
    given.parse().map_err(|_| ApiError::no_router(given))
}
