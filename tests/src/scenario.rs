//! What must come true in a router that has a helper rule, and must not in one
//! that hasn't. Each scenario is one `check` of one case.
//!
//! A scenario's second port is its control: a server listens there as well, the
//! router lets its control connection pass, and no rule names it.

pub mod ftp;
pub mod sip;
pub mod tftp;
