//! The routers: those that have a rule, or a namespace on this host.

use std::collections::BTreeSet;

use axum::{
    Extension, Json,
    extract::{RawQuery, State},
    http::StatusCode,
};

use super::{
    error::ApiError,
    parameters::RouterParameters,
    path::{PathParams, router_id},
    query::ListQuery,
    responses::{RouterList, item},
};
use crate::{
    access::Authorization,
    agent::Handle,
    kernel::RouterNamespaces,
    resource::{RouterAnswer, RouterView},
};

/// All routers that have a rule, or a namespace on this host.
#[utoipa::path(get, tag = "routers", path = "/v2.0/routers",
    params(RouterParameters),
    responses((status = 200, description = "Routers", body = RouterList)))]
pub(super) async fn list_routers(
    State(agent): State<Handle>,
    State(namespaces): State<RouterNamespaces>,
    Extension(authorization): Extension<Authorization>,
    RawQuery(query): RawQuery,
) -> Result<Json<RouterList>, ApiError> {
    let query = ListQuery::parse(query.as_deref(), RouterView::FIELDS)?;
    let on_host = namespaces.by_router().map_err(|error| {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        ApiError::new(status, "ServiceUnavailable", error.to_string())
    })?;
    let mut ids: BTreeSet<_> = on_host.into_keys().collect();
    let seen = agent.view().read();
    ids.extend(seen.mapping.routers());
    let routers = ids
        .into_iter()
        .filter(|router| authorization.may_read(*router).is_ok())
        .filter_map(|router| RouterView::new(&seen, router, namespaces.existing(router)));
    let routers = routers.map(item).collect::<Result<_, _>>()?;
    drop(seen);
    let routers = query.apply(routers)?;
    Ok(Json(RouterList { routers }))
}

/// One router.
#[utoipa::path(get, tag = "routers", path = "/v2.0/routers/{router_id}",
    params(("router_id" = String, Path, format = Uuid)),
    responses((status = 200, description = "The router", body = RouterAnswer)))]
pub(super) async fn show_router(
    State(agent): State<Handle>,
    State(namespaces): State<RouterNamespaces>,
    Extension(authorization): Extension<Authorization>,
    PathParams(given): PathParams<String>,
) -> Result<Json<RouterAnswer>, ApiError> {
    let router = router_id(&given)?;
    authorization
        .may_read(router)
        .map_err(ApiError::forbidden)?;
    let seen = agent.view().read();
    let shown = RouterView::new(&seen, router, namespaces.existing(router));
    let router = shown.ok_or_else(|| ApiError::no_router(&given))?;
    Ok(Json(RouterAnswer { router }))
}
