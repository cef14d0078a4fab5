//! What a refused change must leave as it was.

use std::fs;

use conntrack_agent::store;

use crate::durable::{BareRouter, InKernel};
use crate::lab::LabDir;

/// The store, byte by byte, and what the kernel has of some routers.
#[derive(Clone, PartialEq, Eq)]
pub struct State {
    store: Vec<u8>,
    kernel: Vec<InKernel>,
}

impl State {
    /// Of an agent that is idle.
    #[must_use]
    pub fn of(lab: &LabDir, routers: &[&BareRouter]) -> Self {
        Self {
            store: fs::read(lab.state_dir().join(store::NAME)).expect("the store"),
            kernel: routers.iter().map(|router| router.in_kernel()).collect(),
        }
    }

    /// Asserts that nothing has changed since; `what` is what was to change
    /// nothing.
    #[track_caller]
    pub fn assert_same(&self, since: &Self, what: &str) {
        assert_eq!(self.kernel, since.kernel, "{what}: the kernel");
        // A whole store is no reading matter.
        assert!(self.store == since.store, "{what}: the store has changed");
    }
}
