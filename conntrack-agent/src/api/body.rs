//! What resources look like in a request, and how a body becomes one.
//!
//! A body is read as far as the limits let it, then parsed into types of which
//! each says what it wants. Unknown and repeated fields are refused; nesting
//! ends where `serde_json` ends it, at 128 levels.

use std::{fmt, marker::PhantomData, time::Duration};

use axum::{
    body::{Body, HttpBody as _},
    extract::{FromRequest, Request},
    http::{HeaderMap, StatusCode, header},
};
use http_body_util::BodyExt as _;
use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeOwned, MapAccess, Visitor, value::MapAccessDeserializer},
};
use tokio::sync::{Semaphore, SemaphorePermit};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ArrayBuilder, ObjectBuilder, OneOfBuilder, Ref, RefOr, Schema, schema::AdditionalProperties,
    },
};

use super::{app::Shared, error::ApiError};
use crate::{
    engine::NewRule,
    model::{Helper, Port, Protocol, RouterId, RuleId, RuleTarget},
    resource::schemas,
};

/// What the room for bodies is counted in, in bytes.
pub(super) const PAGE: usize = 4096;

/// A body that was read and understood.
pub(super) struct JsonBody<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Shared> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Shared) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        expect_json(&parts.headers)?;
        let limits = api.limits();
        let deadline = Duration::from_secs(limits.body_seconds);
        let received = Received::from(body, limits.body_bytes, api.bodies());
        let received = tokio::time::timeout(deadline, received).await;
        let received = received.map_err(|_| {
            ApiError::new(
                StatusCode::REQUEST_TIMEOUT,
                "RequestTimeout",
                format!("the body did not come within {} s", limits.body_seconds),
            )
        })??;
        let parsed = serde_json::from_slice(&received.bytes);
        parsed
            .map(|JsonObject(body)| Self(body))
            .map_err(|error| ApiError::invalid(refusal(&error)))
    }
}

/// What is wrong with a body. The parser repeats the field or the value that it
/// doesn't know, which may be all of the body; then only its place is said.
fn refusal(error: &serde_json::Error) -> String {
    const LONGEST: usize = 256;
    let said = error.to_string();
    if said.len() <= LONGEST {
        return format!("the body is refused: {said}");
    }
    format!(
        "the body is refused: a field or a value that ends at line {} column {} is not allowed",
        error.line(),
        error.column()
    )
}

/// A body, and the room that it takes among all that are being received.
struct Received<'a> {
    bytes: Vec<u8>,
    room: Option<SemaphorePermit<'a>>,
}

impl<'a> Received<'a> {
    /// Receives a body of no more than so many bytes. Room is taken as they
    /// come: who only says that there will be many takes none from the others.
    async fn from(mut body: Body, most: usize, room: &'a Semaphore) -> Result<Self, ApiError> {
        let too_large = || {
            let message = format!("the body is longer than {most} bytes");
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestTooLarge", message)
        };
        // As its Content-Length says; then nothing of it need come.
        if usize::try_from(body.size_hint().lower()).is_ok_and(|least| least > most) {
            return Err(too_large());
        }
        let mut received = Self {
            bytes: Vec::new(),
            room: None,
        };
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| ApiError::invalid("the body broke off"))?;
            // Trailers have no meaning here.
            let Ok(data) = frame.into_data() else {
                continue;
            };
            if data.len() > most - received.bytes.len() {
                return Err(too_large());
            }
            received.grow(data.len(), room)?;
            received.bytes.extend_from_slice(&data);
        }
        Ok(received)
    }

    /// Takes the room that so many bytes more need.
    fn grow(&mut self, more: usize, room: &'a Semaphore) -> Result<(), ApiError> {
        let pages = |bytes: usize| bytes.div_ceil(PAGE);
        let length = self.bytes.len();
        let needed = pages(length + more) - pages(length);
        let taken = room.try_acquire_many(u32::try_from(needed).unwrap_or(u32::MAX));
        let taken = taken.map_err(|_| {
            ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "TooManyRequests",
                "too many large bodies are being received; try again",
            )
        })?;
        match &mut self.room {
            Some(room) => room.merge(taken),
            none => *none = Some(taken),
        }
        Ok(())
    }
}

fn expect_json(headers: &HeaderMap) -> Result<(), ApiError> {
    let given = headers.get(header::CONTENT_TYPE);
    let kind = given.and_then(|value| value.to_str().ok());
    let kind = kind.map(|value| value.split(';').next().unwrap_or_default().trim());
    if kind.is_some_and(|kind| kind.eq_ignore_ascii_case("application/json")) {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "UnsupportedMediaType",
        "the body must be application/json, and its Content-Type say so",
    ))
}

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

/// A JSON object. serde would take an array for a struct too, field by field.
#[derive(Debug)]
pub(super) struct JsonObject<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for JsonObject<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = T;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }
        deserializer.deserialize_map(Fields(PhantomData)).map(Self)
    }
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
    use super::*;

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
