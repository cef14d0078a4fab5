//! The store's record of a rule.

use serde::{Deserialize, Serialize};

use crate::{
    engine::Entry,
    model::{
        Helper, HelperError, HelperRule, Origin, Port, PortError, Protocol, RouterIdError, RuleId,
        RuleTarget, protocol_name,
    },
};

/// The stored form of a rule: everything but the rule's id, which is the key. Helpers are
/// stored by name: helper marks concern the kernel side only.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct StoredRule {
    router: String,
    protocol: String,
    port: i64,
    helper: String,
    origin: Origin,
    age: u64,
}

/// The error of a record that no agent can have written.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    #[error(transparent)]
    Router(#[from] RouterIdError),
    #[error(transparent)]
    Port(#[from] PortError),
    #[error(transparent)]
    Helper(#[from] HelperError),
    #[error("{0:?} is no protocol")]
    Protocol(String),
}

impl StoredRule {
    /// Returns the entry that the record was made from.
    pub(super) fn entry(self, id: [u8; 16]) -> Result<Entry, RecordError> {
        let protocol = [Protocol::Tcp, Protocol::Udp]
            .into_iter()
            .find(|protocol| protocol_name(*protocol) == self.protocol)
            .ok_or(RecordError::Protocol(self.protocol))?;
        let target = RuleTarget {
            router: self.router.parse()?,
            port: Port::try_from(self.port)?,
            helper: Helper::new(&self.helper, protocol)?,
        };
        Ok(Entry {
            rule: HelperRule {
                id: RuleId::from_bytes(id),
                target,
                origin: self.origin,
            },
            age: self.age,
        })
    }
}

impl From<&Entry> for StoredRule {
    fn from(entry: &Entry) -> Self {
        let RuleTarget {
            router,
            port,
            helper,
        } = entry.rule.target;
        Self {
            router: router.to_string(),
            protocol: protocol_name(helper.protocol()).to_owned(),
            port: port.get().into(),
            helper: helper.name().to_owned(),
            origin: entry.rule.origin,
            age: entry.age,
        }
    }
}
