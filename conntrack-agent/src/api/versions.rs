//! Answers `GET /` and `GET /v2.0`, which Neutron's clients request first.

use axum::Json;

use super::responses::{Hyperlink, Resource, ResourcesAnswer, Version, VersionsAnswer};

/// Lists the versions of the API, in the form that keystoneauth expects.
#[utoipa::path(get, tag = "agent", path = "/", responses((status = 200, description = "The versions", body = VersionsAnswer)))]
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

/// Lists the resources of version 2.0.
#[utoipa::path(get, tag = "agent", path = "/v2.0", responses((status = 200, description = "The resources", body = ResourcesAnswer)))]
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
