//! Compares the desired with the actual state of a router in the kernel, and closes
//! the gap by effects. Level-triggered: each pass asks for everything and remembers
//! nothing.

mod apply;
mod diff;
mod effect;
mod host;
mod kernel;
pub mod memory;
mod observed;
mod pass;
mod tally;
mod xdp;

pub use apply::{ApplyError, Done, Scope, apply};
pub use diff::{Desired, Unreachable, diff};
pub use effect::Effect;
pub use host::Host;
pub use kernel::Kernel;
pub use memory::Memory;
pub use observed::{CarrierState, InstanceState, InterfaceState, NamespaceState, Observed};
pub use pass::{Reconciler, Summary, Trouble};
pub use tally::{EffectKind, EffectTally};
pub use xdp::{MemoryXdp, Obstacle, XdpEffect, XdpState};
