//! A helper rule.

use std::{fmt, str::FromStr};

use conntrack_ebpf::abi::Destination;
use serde::{Deserialize, Serialize, Serializer, ser::SerializeStruct as _};
use uuid::Uuid;

use super::{Helper, Port, RouterId, helper::protocol_name};

/// The UUID of a rule, for people and for Neutron.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(Uuid);

/// The error for text that is not a rule id.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not a rule id; a UUID is")]
pub struct RuleIdError {
    given: String,
}

impl RuleId {
    /// Returns a new id, from the system's random numbers.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// Returns the UUID's 16 bytes.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        *self.0.as_bytes()
    }

    /// Returns the id with these 16 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }
}

impl FromStr for RuleId {
    type Err = RuleIdError;

    fn from_str(given: &str) -> Result<Self, Self::Err> {
        Uuid::try_parse(given).map(Self).map_err(|_| RuleIdError {
            given: given.chars().take(64).collect(),
        })
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(formatter)
    }
}

/// The owner of a rule. An origin changes only its own rules.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The rule is from the rules file.
    File,
    /// The rule is from the control API.
    Api,
    /// The rule is from Neutron.
    Neutron,
}

impl Origin {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Api => "api",
            Self::Neutron => "neutron",
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// The target of a rule: traffic of `router` for the helper's protocol and `port` gets
/// the helper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleTarget {
    /// The router whose traffic the rule is for.
    pub router: RouterId,
    /// The destination port of the control connection.
    pub port: Port,
    /// The helper, which also gives the protocol.
    pub helper: Helper,
}

impl RuleTarget {
    /// Returns the destination by which the classifier looks packets up.
    #[must_use]
    pub fn destination(&self) -> Destination {
        Destination {
            protocol: self.helper.protocol(),
            port: self.port.get(),
        }
    }
}

impl fmt::Display for RuleTarget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = protocol_name(self.helper.protocol());
        write!(
            formatter,
            "{} on {protocol} port {}",
            self.helper, self.port
        )
    }
}

/// A helper rule: its id, its target and its origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HelperRule {
    /// The id of the rule.
    pub id: RuleId,
    /// The target of the rule.
    pub target: RuleTarget,
    /// The owner of the rule.
    pub origin: Origin,
}

/// The rule as the audit trail and other JSON documents have it, in one object.
impl Serialize for HelperRule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let RuleTarget {
            router,
            port,
            helper,
        } = &self.target;
        let mut fields = serializer.serialize_struct("HelperRule", 6)?;
        fields.serialize_field("id", &format_args!("{}", self.id))?;
        fields.serialize_field("router_id", &format_args!("{router}"))?;
        fields.serialize_field("protocol", protocol_name(helper.protocol()))?;
        fields.serialize_field("port", &port.get())?;
        fields.serialize_field("helper", helper.name())?;
        fields.serialize_field("origin", &self.origin)?;
        fields.end()
    }
}
