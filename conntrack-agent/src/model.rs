//! The checked values that all layers use. None can hold a bad state, so no layer below
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
