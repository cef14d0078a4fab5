//! Desired against observed: what a router should have, what the kernel says it
//! has, and the effects that close the gap. Level-triggered: nothing here
//! remembers what was done before, everything is asked.

mod apply;
mod diff;
mod effect;
mod host;
mod observed;

pub use apply::{ApplyError, Summary, apply};
pub use diff::{Desired, Unreachable, diff};
pub use effect::Effect;
pub use host::Host;
pub use observed::{InstanceState, InterfaceState, NamespaceState, Observed};
