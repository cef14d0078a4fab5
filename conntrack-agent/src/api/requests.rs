//! What resources look like in a request: types of which each says what it
//! wants. Unknown and repeated fields are refused.

use std::fmt;

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

/// A rule to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleIn {
    /// Its name; a random one if none is given.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = Uuid)]
    id: Option<Id>,
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
    /// The rule, on this router.
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

/// What is to change of a rule.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleChangeIn {
    /// The transport protocol.
    #[serde(default)]
    #[schema(schema_with = schemas::protocol_or_null)]
    protocol: Option<ProtocolIn>,
    /// The destination port.
    #[serde(default)]
    #[schema(value_type = Option<u16>, minimum = 1, maximum = 65535)]
    port: Option<PortIn>,
    /// The conntrack helper.
    #[serde(default)]
    #[schema(schema_with = schemas::helper_or_null)]
    helper: Option<String>,
}

impl RuleChangeIn {
    /// The port and the helper that it is to have, given what it says now.
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

/// The body of a `POST`: one rule or several.
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateFields {
    #[serde(default, deserialize_with = "not_null")]
    conntrack_helper: Option<JsonObject<RuleIn>>,
    #[serde(default, deserialize_with = "not_null")]
    conntrack_helpers: Option<Vec<JsonObject<RuleIn>>>,
}

/// serde would take null for a field that is not there.
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
    #[schema(value_type = RuleChangeIn)]
    pub(super) conntrack_helper: JsonObject<RuleChangeIn>,
}

/// The body of a `PUT` of a router's set.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReplaceBody {
    #[schema(value_type = Vec<RuleIn>)]
    pub(super) conntrack_helpers: Vec<JsonObject<RuleIn>>,
}

/// The body of a `PUT` of everything.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReplaceAllBody {
    #[schema(value_type = Vec<RouterIn>)]
    pub(super) routers: Vec<JsonObject<RouterIn>>,
}

/// A router, and all rules that it is to have.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RouterIn {
    #[schema(value_type = String, format = Uuid)]
    pub(super) id: RouterIdIn,
    #[schema(value_type = Vec<RuleIn>)]
    pub(super) conntrack_helpers: Vec<JsonObject<RuleIn>>,
}

/// A string that one of the model's types is parsed from.
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

#[derive(Debug)]
struct Id(RuleId);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let parse = |given: &str| {
            given
                .parse()
                .map(Self)
                .map_err(|e: crate::model::RuleIdError| e.to_string())
        };
        deserializer.deserialize_str(Parsed(parse, "a UUID"))
    }
}

/// A router's id in a body.
#[derive(Debug)]
pub(super) struct RouterIdIn(pub(super) RouterId);

impl<'de> Deserialize<'de> for RouterIdIn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let parse = |given: &str| {
            given
                .parse()
                .map(Self)
                .map_err(|e: crate::model::RouterIdError| e.to_string())
        };
        deserializer.deserialize_str(Parsed(parse, "a UUID"))
    }
}

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
