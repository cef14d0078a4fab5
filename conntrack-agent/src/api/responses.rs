//! What a resource is wrapped in, in an answer.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::Value;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

use super::{error::ApiError, query::Item};
use crate::resource::{RouterView, RuleAnswer, RuleView, RulesAnswer};

/// What became of a `POST`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum MadeAnswer {
    /// The rule, where one was asked for.
    One(RuleAnswer),
    /// The rules, in the order of the body.
    Several(RulesAnswer),
}

/// A resource as an item of a list, of which fields may be left out.
pub(super) fn item(resource: impl Serialize) -> Result<Item, ApiError> {
    match serde_json::to_value(resource) {
        Ok(Value::Object(fields)) => Ok(fields),
        _ => Err(ApiError::unwritten()),
    }
}

/// A list of rules.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RuleList {
    #[schema(value_type = Vec<RuleFields>)]
    pub(super) conntrack_helpers: Vec<Item>,
}

/// A list of routers.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RouterList {
    #[schema(value_type = Vec<RouterFields>)]
    pub(super) routers: Vec<Item>,
}

/// The versions that there are.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct VersionsAnswer {
    pub(super) versions: [Version; 1],
}

/// A version.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Version {
    pub(super) id: &'static str,
    pub(super) status: &'static str,
    pub(super) links: [Hyperlink; 1],
}

/// What a version has.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ResourcesAnswer {
    pub(super) resources: [Resource; 1],
}

/// A kind of resource.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Resource {
    pub(super) name: &'static str,
    pub(super) collection: &'static str,
    pub(super) links: [Hyperlink; 1],
}

/// Where something is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Hyperlink {
    pub(super) rel: &'static str,
    pub(super) href: &'static str,
}

/// A rule in a list, for the description alone.
enum RuleFields {}

/// A router in a list, for the description alone.
enum RouterFields {}

impl PartialSchema for RuleFields {
    fn schema() -> RefOr<Schema> {
        any_of_it(RuleView::schema())
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
        any_of_it(RouterView::schema())
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

/// The same with no field that must be there.
fn any_of_it(schema: RefOr<Schema>) -> RefOr<Schema> {
    match schema {
        RefOr::T(Schema::Object(mut object)) => {
            object.required.clear();
            object.description = Some("All of its fields, or those that `fields` names.".into());
            object.into()
        }
        other => other,
    }
}
