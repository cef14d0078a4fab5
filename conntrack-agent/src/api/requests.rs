//! Defines the bodies of requests. Unknown and repeated fields are refused, with a message
//! that says what is allowed.

use std::{
    fmt::{self, Display},
    str::FromStr,
};

use serde::{
    Deserialize, Deserializer,
    de::{self, Visitor},
};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ArrayBuilder, ObjectBuilder, OneOfBuilder, Ref, RefOr, Schema, schema::AdditionalProperties,
    },
};

use super::{body::JsonObject, error::ApiError};
use crate::{
    engine::NewRule,
    model::{Helper, Port, Protocol, RouterId, RuleId, RuleTarget},
    resource::schemas,
};

/// A rule to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleIn {
    /// The id of the rule; by default a random one.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = Uuid)]
    id: Option<IdIn<RuleId>>,
    /// The transport protocol.
    #[schema(schema_with = schemas::protocol)]
    protocol: ProtocolIn,
    /// The destination port of control connections.
    #[schema(value_type = u16, minimum = 1, maximum = 65535)]
    port: PortIn,
    /// The conntrack helper.
    #[schema(schema_with = schemas::helper)]
    helper: String,
}

impl RuleIn {
    /// Returns the rule on this router.
    pub(super) fn on(self, router: RouterId) -> Result<NewRule, ApiError> {
        let helper = Helper::new(&self.helper, self.protocol.0)?;
        Ok(NewRule {
            id: self.id.map_or_else(RuleId::random, |id| id.0),
            target: RuleTarget {
                router,
                port: self.port.0,
                helper,
            },
        })
    }
}

/// A change of a rule; a field that is missing or null stays as it is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleChangeIn {
    /// The transport protocol.
    #[serde(default)]
    #[schema(schema_with = schemas::protocol_or_null)]
    protocol: Option<ProtocolIn>,
    /// The destination port of control connections.
    #[serde(default)]
    #[schema(value_type = Option<u16>, minimum = 1, maximum = 65535)]
    port: Option<PortIn>,
    /// The conntrack helper.
    #[serde(default)]
    #[schema(schema_with = schemas::helper_or_null)]
    helper: Option<String>,
}

impl RuleChangeIn {
    /// Returns the new port and the new helper of a rule; `None` for what stays.
    pub(super) fn from(self, now: RuleTarget) -> Result<(Option<Port>, Option<Helper>), ApiError> {
        let helper = if self.helper.is_none() && self.protocol.is_none() {
            None
        } else {
            let protocol = self.protocol.map_or(now.helper.protocol(), |given| given.0);
            let name = self.helper.as_deref().unwrap_or(now.helper.name());
            Some(Helper::new(name, protocol)?)
        };
        Ok((self.port.map(|port| port.0), helper))
    }
}

/// The body of a `POST` of rules: one rule or several.
#[derive(Debug, Deserialize)]
#[serde(try_from = "CreateFields")]
pub(super) enum CreateBody {
    One(JsonObject<RuleIn>),
    Several(Vec<JsonObject<RuleIn>>),
}

impl PartialSchema for CreateBody {
    fn schema() -> RefOr<Schema> {
        let body = |name: &str, schema: RefOr<Schema>| {
            ObjectBuilder::new()
                .property(name, schema)
                .required(name)
                .additional_properties(Some(AdditionalProperties::FreeForm(false)))
        };
        let rule = || Ref::from_schema_name(RuleIn::name());
        let rules = ArrayBuilder::new().items(rule());
        OneOfBuilder::new()
            .item(body("conntrack_helper", rule().into()))
            .item(body("conntrack_helpers", rules.into()))
            .into()
    }
}

impl ToSchema for CreateBody {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((RuleIn::name().into_owned(), RuleIn::schema()));
    }
}

/// The fields of a [`CreateBody`], of which it must have exactly one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateFields {
    #[serde(default, deserialize_with = "not_null")]
    conntrack_helper: Option<JsonObject<RuleIn>>,
    #[serde(default, deserialize_with = "not_null")]
    conntrack_helpers: Option<Vec<JsonObject<RuleIn>>>,
}

/// Deserializes a field that can't be null; serde would take null for a missing field.
fn not_null<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl TryFrom<CreateFields> for CreateBody {
    type Error = &'static str;

    fn try_from(fields: CreateFields) -> Result<Self, Self::Error> {
        match (fields.conntrack_helper, fields.conntrack_helpers) {
            (Some(rule), None) => Ok(Self::One(rule)),
            (None, Some(rules)) => Ok(Self::Several(rules)),
            _ => Err("it must have either conntrack_helper or conntrack_helpers"),
        }
    }
}

/// The body of a `PUT` of one rule.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UpdateBody {
    /// The fields that change.
    #[schema(value_type = RuleChangeIn)]
    pub(super) conntrack_helper: JsonObject<RuleChangeIn>,
}

/// The body of a `PUT` of a router's rules.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReplaceBody {
    /// The rules that the router is to have from the API.
    #[schema(value_type = Vec<RuleIn>)]
    pub(super) conntrack_helpers: Vec<JsonObject<RuleIn>>,
}

/// The body of a `PUT` of the rules of all routers.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReplaceAllBody {
    /// The routers that are to have rules from the API; the API's rules on all other
    /// routers are removed.
    #[schema(value_type = Vec<RouterIn>)]
    pub(super) routers: Vec<JsonObject<RouterIn>>,
}

/// A router with all the rules that it is to have from the API.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RouterIn {
    /// The id of the router.
    #[schema(value_type = String, format = Uuid)]
    pub(super) id: IdIn<RouterId>,
    /// The rules of the router.
    #[schema(value_type = Vec<RuleIn>)]
    pub(super) conntrack_helpers: Vec<JsonObject<RuleIn>>,
}

/// Parses a string into one of the model's types; the text says what is allowed.
struct Parsed<T>(fn(&str) -> Result<T, String>, &'static str);

impl<T> Visitor<'_> for Parsed<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.1)
    }

    fn visit_str<E: de::Error>(self, given: &str) -> Result<T, E> {
        self.0(given).map_err(E::custom)
    }
}

/// The id of a rule or a router in a body.
#[derive(Debug)]
pub(super) struct IdIn<T>(pub(super) T);

impl<'de, T: FromStr<Err: Display>> Deserialize<'de> for IdIn<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let parse = |given: &str| {
            let id = given.parse().map_err(|error: T::Err| error.to_string());
            id.map(Self)
        };
        deserializer.deserialize_str(Parsed(parse, "a UUID"))
    }
}

/// The transport protocol in a body.
#[derive(Debug)]
struct ProtocolIn(Protocol);

impl<'de> Deserialize<'de> for ProtocolIn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let parse = |given: &str| match given {
            "tcp" => Ok(Self(Protocol::Tcp)),
            "udp" => Ok(Self(Protocol::Udp)),
            _ => {
                let given: String = given.chars().take(64).collect();
                Err(format!("{given:?} is no protocol; \"tcp\" and \"udp\" are"))
            }
        };
        deserializer.deserialize_str(Parsed(parse, "\"tcp\" or \"udp\""))
    }
}

/// The port in a body.
#[derive(Debug)]
struct PortIn(Port);

impl<'de> Deserialize<'de> for PortIn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = Port;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a port, a whole number from 1 to 65535")
            }

            fn visit_i64<E: de::Error>(self, given: i64) -> Result<Port, E> {
                Port::try_from(given).map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, given: u64) -> Result<Port, E> {
                let given = i64::try_from(given).unwrap_or(i64::MAX);
                Port::try_from(given).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Number).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::body::refusal, *};

    #[test]
    fn a_refusal_repeats_a_word_and_never_a_body() {
        let said = |body: &str| {
            let parsed = serde_json::from_str::<CreateBody>(body);
            refusal(&parsed.unwrap_err())
        };
        let short = said("{\"colour\":1}");
        assert!(short.contains("colour"), "{short}");
        assert!(short.contains("conntrack_helpers"), "{short}");
        let secret = "secret".repeat(1000);
        for body in [
            format!("{{\"{secret}\":1}}"),
            format!("{{\"conntrack_helpers\":\"{secret}\"}}"),
            format!("{{\"conntrack_helper\":{{\"{secret}\":1}}}}"),
            format!("{{\"conntrack_helper\":{{\"port\":\"{secret}\"}}}}"),
            format!("{{\"conntrack_helper\":{{\"protocol\":\"{secret}\"}}}}"),
            format!("{{\"conntrack_helper\":{{\"id\":\"{secret}\"}}}}"),
        ] {
            let long = said(&body);
            assert!(long.len() < 400, "{long}");
            assert!(!long.contains(&"secret".repeat(50)), "{long}");
            assert!(long.contains("line 1 column"), "{long}");
        }
    }
}
