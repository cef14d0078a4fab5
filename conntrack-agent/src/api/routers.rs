//! Answers requests for routers: those that have a rule, or a namespace on this host.

use std::collections::BTreeSet;

use axum::{
    Extension, Json,
    extract::{RawQuery, State},
};

use super::{
    authorize::readable_router,
    error::ApiError,
    parameters::RouterParameters,
    path::PathParams,
    query::ListQuery,
    responses::{RouterList, item},
};
use crate::{
    access::Authorization,
    agent::Handle,
    kernel::RouterNamespaces,
    resource::{RouterAnswer, RouterView},
};

/// Lists the routers that have a rule, or a namespace on this host.
#[utoipa::path(get, tag = "routers", path = "/v2.0/routers",
    params(RouterParameters),
    responses((status = 200, description = "The routers", body = RouterList)))]
pub(super) async fn list_routers(
    State(agent): State<Handle>,
    State(namespaces): State<RouterNamespaces>,
    Extension(authorization): Extension<Authorization>,
    RawQuery(query): RawQuery,
) -> Result<Json<RouterList>, ApiError> {
    let query = ListQuery::parse(query.as_deref(), RouterView::FIELDS)?;
    let on_host = namespaces
        .by_router()
        .map_err(|error| ApiError::failed(error.to_string()))?;
    let mut ids: BTreeSet<_> = on_host.into_keys().collect();
    let seen = agent.view().read();
    ids.extend(seen.mapping.routers());
    let routers = ids
        .into_iter()
        .filter(|router| authorization.may_read(*router).is_ok())
        .filter_map(|router| RouterView::new(&seen, router, namespaces.existing(router)))
        .map(item)
        .collect::<Result<_, _>>()?;
    drop(seen);
    Ok(Json(RouterList {
        routers: query.apply(routers)?,
    }))
}

/// Returns one router.
#[utoipa::path(get, tag = "routers", path = "/v2.0/routers/{router_id}",
    params(("router_id" = String, Path, format = Uuid)),
    responses((status = 200, description = "The router", body = RouterAnswer)))]
pub(super) async fn show_router(
    State(agent): State<Handle>,
    State(namespaces): State<RouterNamespaces>,
    Extension(authorization): Extension<Authorization>,
    PathParams(given): PathParams<String>,
) -> Result<Json<RouterAnswer>, ApiError> {
    let router = readable_router(&authorization, &given)?;
    let seen = agent.view().read();
    let router = RouterView::new(&seen, router, namespaces.existing(router))
        .ok_or_else(|| ApiError::no_router(&given))?;
    Ok(Json(RouterAnswer { router }))
}
