//! `GET /` and `GET /v2.0`: what Neutron's clients ask first.

use axum::Json;

use super::responses::{Hyperlink, Resource, ResourcesAnswer, Version, VersionsAnswer};

/// The versions that there are, as keystoneauth asks for them.
#[utoipa::path(get, tag = "agent", path = "/", responses((status = 200, description = "Versions", body = VersionsAnswer)))]
pub(super) async fn versions() -> Json<VersionsAnswer> {
    Json(VersionsAnswer {
        versions: [Version {
            id: "v2.0",
            status: "CURRENT",
            links: [Hyperlink {
                rel: "self",
                href: "/v2.0/",
            }],
        }],
    })
}

/// What version 2.0 has.
#[utoipa::path(get, tag = "agent", path = "/v2.0", responses((status = 200, description = "Resources", body = ResourcesAnswer)))]
pub(super) async fn resources() -> Json<ResourcesAnswer> {
    Json(ResourcesAnswer {
        resources: [Resource {
            name: "router",
            collection: "routers",
            links: [Hyperlink {
                rel: "self",
                href: "/v2.0/routers",
            }],
        }],
    })
}
