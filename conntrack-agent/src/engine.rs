//! The mapping engine: which router has which helper rules, and whether a
//! request may change that. Pure: no I/O, no clock, no random numbers, nothing
//! asynchronous; what it decides, others make durable and bring to the kernel.

mod change;
mod decide;
mod mapping;
mod policy;
mod refusal;
mod request;

pub use change::Change;
pub use mapping::{Entry, Inconsistent, Mapping};
pub use policy::{Limits, Policy};
pub use refusal::{Reason, Refusal};
pub use request::{NewRule, Operation};

#[cfg(test)]
mod tests;
