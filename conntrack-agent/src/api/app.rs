//! The routes: which request is answered by which handler.

use std::sync::Arc;

use axum::{Router, http::StatusCode, routing::get};

use super::{
    error::ApiError,
    events::events,
    metrics::metrics,
    openapi::document,
    routers::{list_routers, show_router},
    rules::{
        create_rules, delete_rule, list_all_rules, list_rules, replace_all_rules, replace_rules,
        show_rule, update_rule,
    },
    state::Api,
    status::status,
    traffic::{traffic, traffic_of},
    versions::{resources, versions},
};

/// Assembles the routes of all resources. The server adds the caller's authorization to each
/// request as an extension.
pub fn routes(api: Arc<Api>) -> Router {
    const RULES: &str = "/v2.0/routers/{router_id}/conntrack_helpers";
    const RULE: &str = "/v2.0/routers/{router_id}/conntrack_helpers/{id}";
    Router::new()
        .route("/", get(versions))
        .route("/v2.0", get(resources))
        .route("/v2.0/", get(resources))
        .route("/v2.0/routers", get(list_routers))
        .route("/v2.0/routers/{router_id}", get(show_router))
        .route(RULES, get(list_rules).post(create_rules).put(replace_rules))
        .route(RULE, get(show_rule).put(update_rule).delete(delete_rule))
        .route(
            "/v1/conntrack_helpers",
            get(list_all_rules).put(replace_all_rules),
        )
        .route("/v1/status", get(status))
        .route("/v1/events", get(events))
        .route("/v1/traffic", get(traffic))
        .route("/v1/traffic/{router_id}", get(traffic_of))
        .route("/metrics", get(metrics))
        .route("/v1/openapi.json", get(document))
        .fallback(no_resource)
        .method_not_allowed_fallback(no_method)
        .with_state(api)
}

/// What the metrics' own address has.
pub fn metrics_routes(api: Arc<Api>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .fallback(no_resource_but_metrics)
        .method_not_allowed_fallback(no_method)
        .with_state(api)
}

async fn no_resource_but_metrics() -> ApiError {
    ApiError::new(
        StatusCode::NOT_FOUND,
        "HTTPNotFound",
        "this address has GET /metrics and nothing else",
    )
}

async fn no_resource() -> ApiError {
    ApiError::new(
        StatusCode::NOT_FOUND,
        "HTTPNotFound",
        "there is no such resource; GET /v1/openapi.json lists all",
    )
}

async fn no_method() -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "HTTPMethodNotAllowed",
        "the resource does not have this method",
    )
}
