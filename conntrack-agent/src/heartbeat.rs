//! A counter that shows that a part of the daemon makes progress.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// What one part of the agent shows that it gets on by, and another looks at.
#[derive(Clone, Debug, Default)]
pub struct Heartbeat(Arc<AtomicU64>);

impl Heartbeat {
    /// It got on.
    pub fn tick(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How often it did: whether it did since is all that this says.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
