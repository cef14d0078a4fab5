//! What the parameters of lists are, for the API's description: made of the
//! fields that [`super::query`] is given, so that the two can't differ.

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

fn of_list(fields: &[&str]) -> Vec<Parameter> {
    let filter = |field: &&str| {
        let target = format!("Only those of which {field} is this; if repeated, one of these.");
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
            "Only these fields of each; may be repeated.",
            several(one_of(fields.iter().copied())),
        ),
        parameter(
            "sort_key",
            "In the order of this field; if repeated, each one where those before are equal.",
            several(one_of(fields.iter().copied())),
        ),
        parameter(
            "sort_dir",
            "The direction of each sort_key: one for each of them, or none at all.",
            several(one_of(["asc", "desc"])),
        ),
        parameter("limit", "No more than so many.", limit),
        parameter(
            "marker",
            "Only those after the one that has this id, in the order that is asked for.",
            String::schema(),
        ),
        parameter(
            "page_reverse",
            "The page before the marker, and not the one after it.",
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
