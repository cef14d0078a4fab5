//! XDP in front of the tc program, from its observation to its effects.
//!
//! XDP is never a reason for a router to fail: without it the tc program itself finds
//! what would have been handed over.

mod effect;
mod memory;
mod planner;
mod state;

pub use effect::XdpEffect;
pub use memory::MemoryXdp;
pub(super) use planner::XdpPlanner;
pub use state::{Obstacle, XdpState};
