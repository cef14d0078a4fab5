//! Fields of which the description names every value that they can have.

use std::collections::BTreeSet;

use serde_json::Value;
use utoipa::openapi::{Object, ObjectBuilder, Type, schema::SchemaType};

use crate::model::{Helper, Origin, protocol_name};
use conntrack_ebpf::abi::Protocol;

/// A string that is one of these.
pub(crate) fn one_of<'a>(values: impl IntoIterator<Item = &'a str>) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(values.into_iter().map(Value::from)))
}

pub(crate) fn protocol() -> Object {
    let names = [Protocol::Tcp, Protocol::Udp].map(protocol_name);
    one_of(names)
        .description(Some("The transport protocol."))
        .build()
}

/// The same, or null.
pub(crate) fn protocol_or_null() -> Object {
    or_null(protocol())
}

pub(crate) fn helper() -> Object {
    // Some are there for both protocols.
    let names: BTreeSet<_> = Helper::all().map(Helper::name).collect();
    let target = "The conntrack helper. Not all go with either protocol, and the agent's \
                configuration may allow fewer.";
    one_of(names).description(Some(target)).build()
}

/// The same, or null.
pub(crate) fn helper_or_null() -> Object {
    or_null(helper())
}

pub(crate) fn origin() -> Object {
    one_of([Origin::File, Origin::Api, Origin::Neutron].map(Origin::name))
        .description(Some("Who owns it."))
        .build()
}

pub(crate) fn router_status() -> Object {
    let target = "ACTIVE, PENDING (no namespace on this host) or ERROR.";
    one_of(["ACTIVE", "PENDING", "ERROR"])
        .description(Some(target))
        .build()
}

/// JSON Schema: an enum with null in it has null among its values.
fn or_null(mut schema: Object) -> Object {
    schema.schema_type = SchemaType::from_iter([Type::String, Type::Null]);
    if let Some(values) = &mut schema.enum_values {
        values.push(Value::Null);
    }
    schema
}
