//! Routes requests to their handlers, and describes the routes.

use axum::{Json, Router, http::StatusCode, routing::get};
use utoipa::{Modify as _, OpenApi as _, openapi::OpenApi};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    error::ApiError,
    events, metrics,
    openapi::{Description, Refusals, Token},
    routers, rules,
    state::Api,
    status, traffic, versions,
};

/// Returns the routes of all resources. The server adds the caller's authorization to each
/// request as an extension.
pub fn routes(api: Api) -> Router {
    described_routes()
        .split_for_parts()
        .0
        .route("/v2.0/", get(versions::resources))
        .fallback(no_resource)
        .method_not_allowed_fallback(no_method)
        .with_state(api)
}

/// Returns the API's OpenAPI document, made from the routes themselves.
pub(super) fn description() -> OpenApi {
    let mut document = described_routes().into_openapi();
    Refusals.modify(&mut document);
    Token.modify(&mut document);
    document
}

/// Returns the described routes; each description stands beside its handler.
fn described_routes() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(versions::versions))
        .routes(routes!(versions::resources))
        .routes(routes!(routers::list_routers))
        .routes(routes!(routers::show_router))
        .routes(routes!(
            rules::list_rules,
            rules::create_rules,
            rules::replace_rules
        ))
        .routes(routes!(
            rules::show_rule,
            rules::update_rule,
            rules::delete_rule
        ))
        .routes(routes!(rules::list_all_rules, rules::replace_all_rules))
        .routes(routes!(status::status))
        .routes(routes!(events::events))
        .routes(routes!(traffic::traffic))
        .routes(routes!(traffic::traffic_of))
        .routes(routes!(metrics::metrics))
        .routes(routes!(document))
}

/// Returns the OpenAPI document of the API.
#[utoipa::path(get, tag = "agent", path = "/v1/openapi.json",
    responses((status = 200, description = "The OpenAPI document", body = Object)))]
async fn document() -> Json<OpenApi> {
    Json(description())
}

/// Returns the routes of the metrics' own address.
pub fn metrics_routes(api: Api) -> Router {
    Router::new()
        .route("/metrics", get(metrics::metrics))
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
