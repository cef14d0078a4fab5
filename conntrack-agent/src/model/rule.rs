//! A helper rule.

use std::{fmt, str::FromStr};

use conntrack_ebpf::abi::Destination;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Helper, Port, RouterId, helper::protocol_name};

/// The UUID by which a rule is named to people and to Neutron.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(Uuid);

/// What was given is not a rule id.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not a rule id; a UUID is")]
pub struct RuleIdError {
    given: String,
}

impl RuleId {
    /// A new one, from the system's random numbers.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// The UUID's 16 bytes.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        *self.0.as_bytes()
    }

    /// The id with these 16 bytes.
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

/// Who owns a rule. An origin changes only its own.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The rules file.
    File,
    /// The control API.
    Api,
    /// Neutron.
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

/// What a rule says: traffic of `router` for the helper's protocol and `port`
/// gets the helper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleTarget {
    /// The router whose traffic it is for.
    pub router: RouterId,
    /// The destination port of the control connection.
    pub port: Port,
    /// The helper, which also gives the protocol.
    pub helper: Helper,
}

impl RuleTarget {
    /// What the classifier looks its packets up by.
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

/// A helper rule: what it says, its name, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HelperRule {
    /// Its name.
    pub id: RuleId,
    /// What it says.
    pub target: RuleTarget,
    /// Whose it is.
    pub origin: Origin,
}
