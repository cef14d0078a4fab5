//! Extracts the parameters of a path, and refuses an invalid one in the API's error form.

use axum::{
    extract::{FromRequestParts, Path},
    http::request::Parts,
};
use serde::de::DeserializeOwned;

use super::error::ApiError;
use crate::model::RouterId;

/// The parameters of the path.
#[derive(Debug)]
pub(super) struct PathParams<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for PathParams<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(parameters)) => Ok(Self(parameters)),
            Err(error) => Err(ApiError::invalid(format!(
                "the path is refused: {}",
                error.body_text()
            ))),
        }
    }
}

/// Parses a router's id; text that is no id names no router.
pub(super) fn router_id(given: &str) -> Result<RouterId, ApiError> {
    given.parse().map_err(|_| ApiError::no_router(given))
}
