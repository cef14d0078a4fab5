//! Defines the bodies of responses, which wrap the resources.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::Value;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

use super::{error::ApiError, query::Item};
use crate::resource::{RouterView, RuleAnswer, RuleView, RulesAnswer};

/// The body of the response to a `POST` of rules.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum MadeAnswer {
    /// The created rule, if the body of the request had one rule.
    One(RuleAnswer),
    /// The created rules, in the order of the request.
    Several(RulesAnswer),
}

/// Returns a resource as an item of a list, from which fields can be removed.
pub(super) fn item(resource: impl Serialize) -> Result<Item, ApiError> {
    match serde_json::to_value(resource) {
        Ok(Value::Object(fields)) => Ok(fields),
        _ => Err(ApiError::unwritten()),
    }
}

/// A list of rules.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RuleList {
    /// The rules.
    #[schema(value_type = Vec<RuleFields>)]
    pub(super) conntrack_helpers: Vec<Item>,
}

/// A list of routers.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RouterList {
    /// The routers.
    #[schema(value_type = Vec<RouterFields>)]
    pub(super) routers: Vec<Item>,
}

/// The versions of the API.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct VersionsAnswer {
    pub(super) versions: [Version; 1],
}

/// A version of the API.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Version {
    pub(super) id: &'static str,
    pub(super) status: &'static str,
    pub(super) links: [Hyperlink; 1],
}

/// The resources of a version of the API.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ResourcesAnswer {
    pub(super) resources: [Resource; 1],
}

/// A type of resource.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Resource {
    pub(super) name: &'static str,
    pub(super) collection: &'static str,
    pub(super) links: [Hyperlink; 1],
}

/// A link to a resource.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Hyperlink {
    pub(super) rel: &'static str,
    pub(super) href: &'static str,
}

/// A rule in a list, for the OpenAPI document.
enum RuleFields {}

/// A router in a list, for the OpenAPI document.
enum RouterFields {}

impl PartialSchema for RuleFields {
    fn schema() -> RefOr<Schema> {
        optional_fields(RuleView::schema())
    }
}

impl ToSchema for RuleFields {
    fn name() -> Cow<'static, str> {
        "RuleFields".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        RuleView::schemas(schemas);
    }
}

impl PartialSchema for RouterFields {
    fn schema() -> RefOr<Schema> {
        optional_fields(RouterView::schema())
    }
}

impl ToSchema for RouterFields {
    fn name() -> Cow<'static, str> {
        "RouterFields".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        RouterView::schemas(schemas);
    }
}

/// Returns the schema with no field required.
fn optional_fields(schema: RefOr<Schema>) -> RefOr<Schema> {
    match schema {
        RefOr::T(Schema::Object(mut object)) => {
            object.required.clear();
            object.description = Some(
                "All fields of the resource, or those that the parameter `fields` names.".into(),
            );
            object.into()
        }
        other => other,
    }
}
