//! Makes the schemas of fields whose allowed values the OpenAPI document lists.

use std::collections::BTreeSet;

use serde_json::Value;
use utoipa::openapi::{Object, ObjectBuilder, Type, schema::SchemaType};

use crate::model::{Helper, Origin, protocol_name};
use conntrack_ebpf::abi::Protocol;

/// Returns the schema of a string that is one of these.
pub(crate) fn one_of<'a>(values: impl IntoIterator<Item = &'a str>) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(values.into_iter().map(Value::from)))
}

/// Returns the schema of a transport protocol.
pub(crate) fn protocol() -> Object {
    let names = [Protocol::Tcp, Protocol::Udp].map(protocol_name);
    one_of(names)
        .description(Some("The transport protocol."))
        .build()
}

/// Returns the schema of a transport protocol or null.
pub(crate) fn protocol_or_null() -> Object {
    or_null(protocol())
}

/// Returns the schema of a helper.
pub(crate) fn helper() -> Object {
    // Some helpers support both protocols, and are listed once.
    let names: BTreeSet<_> = Helper::all().map(Helper::name).collect();
    let target = "The conntrack helper. A helper may support only one protocol, and the agent's \
                  configuration may allow fewer.";
    one_of(names).description(Some(target)).build()
}

/// Returns the schema of a helper or null.
pub(crate) fn helper_or_null() -> Object {
    or_null(helper())
}

/// Returns the schema of a rule's origin.
pub(crate) fn origin() -> Object {
    one_of([Origin::File, Origin::Api, Origin::Neutron].map(Origin::name))
        .description(Some("The owner of the rule."))
        .build()
}

/// Returns the schema of a router's status.
pub(crate) fn router_status() -> Object {
    let target = "The status: ACTIVE, PENDING (no namespace on this host) or ERROR.";
    one_of(["ACTIVE", "PENDING", "ERROR"])
        .description(Some(target))
        .build()
}

/// Allows null too. In JSON Schema, an enum that allows null lists it among its values.
fn or_null(mut schema: Object) -> Object {
    schema.schema_type = SchemaType::from_iter([Type::String, Type::Null]);
    if let Some(values) = &mut schema.enum_values {
        values.push(Value::Null);
    }
    schema
}
