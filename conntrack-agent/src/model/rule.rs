//! A helper rule.

use std::fmt;

use conntrack_ebpf::abi::Destination;

use super::{Helper, Port, RouterId, helper::protocol_name};

/// Traffic of `router` for the helper's protocol and `port` gets the helper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HelperRule {
    /// The router whose traffic it is for.
    pub router: RouterId,
    /// The destination port of the control connection.
    pub port: Port,
    /// The helper, which also gives the protocol.
    pub helper: Helper,
}

impl HelperRule {
    /// What the classifier looks its packets up by.
    #[must_use]
    pub fn destination(&self) -> Destination {
        Destination {
            protocol: self.helper.protocol(),
            port: self.port.get(),
        }
    }
}

impl fmt::Display for HelperRule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = protocol_name(self.helper.protocol());
        write!(
            formatter,
            "{} on {protocol} port {}",
            self.helper, self.port
        )
    }
}
