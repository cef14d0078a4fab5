//! XDP in front of the tc program: an instance's XDP program, the links that attach it,
//! and their pins.
//!
//! An interface has one XDP program at a time, so a program of another owner stays, and
//! an interface whose driver has no XDP goes without: the tc program classifies either
//! way.

mod classifier;
mod link;
mod pins;
mod program;

pub use classifier::XdpClassifier;
pub use link::{XdpOutcome, XdpPin};
pub use program::{XdpMode, XdpProgram};
