//! Describes the query parameters of lists for the OpenAPI document, from the same fields
//! that [`super::query`] is given, so that the two can't differ.

use utoipa::{
    IntoParams, PartialSchema,
    openapi::{
        ArrayBuilder, ObjectBuilder, RefOr, Required, Schema, Type,
        path::{Parameter, ParameterBuilder, ParameterIn},
    },
};

use super::query::MAX_LIMIT;
use crate::resource::{RouterView, RuleView, schemas::one_of};

/// The parameters of a list of rules.
pub(super) struct RuleParameters;

/// The parameters of a list of routers.
pub(super) struct RouterParameters;

impl IntoParams for RuleParameters {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        of_list(RuleView::FIELDS)
    }
}

impl IntoParams for RouterParameters {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        of_list(RouterView::FIELDS)
    }
}

/// Returns the parameters of a list whose items have these fields.
fn of_list(fields: &[&str]) -> Vec<Parameter> {
    let filter = |field: &&str| {
        let target = format!(
            "Filter: only items whose {field} has this value; if repeated, any of the values."
        );
        parameter(field, &target, several(String::schema()))
    };
    let limit = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(1))
        .maximum(Some(MAX_LIMIT));
    let mut parameters: Vec<_> = fields.iter().map(filter).collect();
    parameters.extend([
        parameter(
            "fields",
            "The field to show; may be repeated. By default all fields are shown.",
            several(one_of(fields.iter().copied())),
        ),
        parameter(
            "sort_key",
            "The field to sort by; may be repeated, most significant first.",
            several(one_of(fields.iter().copied())),
        ),
        parameter(
            "sort_dir",
            "The sort direction: one for each sort_key in their order, or none at all.",
            several(one_of(["asc", "desc"])),
        ),
        parameter("limit", "The maximum number of items.", limit),
        parameter(
            "marker",
            "The id of an item; the page begins after it, in the requested order.",
            String::schema(),
        ),
        parameter(
            "page_reverse",
            "Whether to return the page before the marker instead of the one after it.",
            bool::schema(),
        ),
    ]);
    parameters
}

fn parameter(name: &str, target: &str, schema: impl Into<RefOr<Schema>>) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Query)
        .required(Required::False)
        .description(Some(target))
        .schema(Some(schema))
        .build()
}

fn several(item: impl Into<RefOr<Schema>>) -> RefOr<Schema> {
    ArrayBuilder::new().items(item.into()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties_of(schema: RefOr<Schema>) -> Vec<String> {
        match schema {
            RefOr::T(Schema::Object(object)) => object.properties.into_keys().collect(),
            _ => panic!("no object"),
        }
    }

    #[test]
    fn lists_know_the_fields_that_their_items_have() {
        let sorted = |fields: &[&str]| {
            let mut fields: Vec<_> = fields.iter().map(ToString::to_string).collect();
            fields.sort_unstable();
            fields
        };
        let mut rule = properties_of(RuleView::schema());
        rule.sort_unstable();
        assert_eq!(rule, sorted(RuleView::FIELDS));
        let mut router = properties_of(RouterView::schema());
        router.sort_unstable();
        assert_eq!(router, sorted(RouterView::FIELDS));
    }
}
