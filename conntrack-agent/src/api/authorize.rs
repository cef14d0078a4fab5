//! Checks a caller's permissions before the body is read, so that a caller without
//! permission can neither fill the memory with bodies nor learn what is wrong with one.

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

/// The router that the path names, which the caller may change.
///
/// In a handler's arguments it stands before the body: axum runs extractors in their
/// order.
#[derive(Debug)]
pub(super) struct AuthorizedRouter(pub(super) RouterId);

/// The proof that the caller may make changes that span all routers; it too stands before
/// the body.
#[derive(Debug)]
pub(super) struct AuthorizedForAll;

/// Returns the router with this id, if the caller may read it.
pub(super) fn readable_router(
    authorization: &Authorization,
    given: &str,
) -> Result<RouterId, ApiError> {
    let router = router_id(given)?;
    authorization.may_read(router)?;
    Ok(router)
}

/// The part of any route's path that names its router.
#[derive(Deserialize)]
struct OfRouter {
    router_id: String,
}

impl<S: Send + Sync> FromRequestParts<S> for AuthorizedRouter {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let PathParams(OfRouter { router_id: given }) =
            PathParams::<OfRouter>::from_request_parts(parts, state)
                .await
                .map_err(ApiError::into_response)?;
        let authorization = authorization(parts, state).await?;
        let router = router_id(&given).map_err(ApiError::into_response)?;
        authorization
            .may_change(router)
            .map_err(|why| ApiError::from(why).into_response())?;
        Ok(Self(router))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for AuthorizedForAll {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        authorization(parts, state)
            .await?
            .may_change_all()
            .map_err(|why| ApiError::from(why).into_response())?;
        Ok(Self)
    }
}

/// Returns the caller's authorization, which the server has added to the request.
async fn authorization(
    parts: &mut Parts,
    state: &(impl Send + Sync),
) -> Result<Authorization, Response> {
    Extension::<Authorization>::from_request_parts(parts, state)
        .await
        .map(|Extension(authorization)| authorization)
        .map_err(IntoResponse::into_response)
}
