//! Permission to change something, asked for before the body is read: who has
//! none can neither have bodies kept in memory nor learn what is wrong with one.

use axum::{
    Extension,
    extract::FromRequestParts,
    http::request::Parts,
    response::{IntoResponse, Response},
};
use serde::Deserialize;

use super::{
    error::ApiError,
    path::{PathParams, router_id},
};
use crate::{access::Authorization, model::RouterId};

/// The router of the path, which the caller may change.
///
/// To stand before the body in a handler's arguments, as they are taken in
/// their order.
#[derive(Debug)]
pub(super) struct AuthorizedRouter(pub(super) RouterId);

/// That the caller may change what spans all routers; likewise.
#[derive(Debug)]
pub(super) struct AuthorizedForAll;

#[derive(Deserialize)]
struct OfRouter {
    router_id: String,
}

impl<S: Send + Sync> FromRequestParts<S> for AuthorizedRouter {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let place = PathParams::<OfRouter>::from_request_parts(parts, state).await;
        let PathParams(OfRouter { router_id: given }) = place.map_err(ApiError::into_response)?;
        let authorization = authorization(parts, state).await?;
        let router = router_id(&given).map_err(ApiError::into_response)?;
        match authorization.may_change(router) {
            Ok(()) => Ok(Self(router)),
            Err(why) => Err(ApiError::forbidden(why).into_response()),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for AuthorizedForAll {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        match authorization(parts, state).await?.may_change_all() {
            Ok(()) => Ok(Self),
            Err(why) => Err(ApiError::forbidden(why).into_response()),
        }
    }
}

async fn authorization(
    parts: &mut Parts,
    state: &(impl Send + Sync),
) -> Result<Authorization, Response> {
    let authorization = Extension::<Authorization>::from_request_parts(parts, state).await;
    authorization
        .map(|Extension(authorization)| authorization)
        .map_err(IntoResponse::into_response)
}
