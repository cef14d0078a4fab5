//! The checked values that all layers use. None can hold an invalid state, so no layer
//! checks again.

mod helper;
mod port;
mod router;
mod rule;

pub use conntrack_ebpf::abi::{Destination, Protocol};
pub use helper::{Families, Helper, HelperError, MAX_HELPER_MARK, protocol_name};
pub use port::{Port, PortError};
pub use router::{RouterId, RouterIdError};
pub use rule::{HelperRule, Origin, RuleId, RuleIdError, RuleTarget};
