//! The API's description, made from the code that answers.

use axum::Json;
use utoipa::OpenApi;

use super::{app, body, error, output};

/// All resources.
#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "conntrack-agent",
        description = "Neutron's conntrack helper resources, and the agent's own"
    ),
    paths(
        app::versions,
        app::resources,
        app::list_routers,
        app::show_router,
        app::list_rules,
        app::create_rules,
        app::replace_rules,
        app::show_rule,
        app::update_rule,
        app::delete_rule,
        app::list_all_rules,
        app::replace_all_rules,
        app::status,
        document
    ),
    components(schemas(
        body::CreateBody,
        body::UpdateBody,
        body::ReplaceBody,
        body::ReplaceAllBody,
        error::ErrorBody,
        output::RuleOut,
        output::RouterOut,
        output::StatusOut
    ))
)]
pub struct Description;

/// The API's description.
#[utoipa::path(get, path = "/v1/openapi.json", responses((status = 200, description = "This document", body = Object)))]
pub(super) async fn document() -> Json<utoipa::openapi::OpenApi> {
    Json(Description::openapi())
}
