//! The mapping engine: holds which router has which helper rules, and decides whether a
//! batch may change that. It is pure: no I/O, no clock, no random numbers, nothing
//! asynchronous; other modules make its decisions durable and apply them to the kernel.

mod change;
mod decide;
mod entry;
mod mapping;
mod policy;
mod refusal;
mod request;

pub use change::Change;
pub use entry::Entry;
pub use mapping::{Inconsistent, Mapping};
pub use policy::{Limits, Policy};
pub use refusal::{Reason, Refusal};
pub use request::{NewRule, Operation};

#[cfg(test)]
mod tests;
