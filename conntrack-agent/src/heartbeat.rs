//! A counter that shows that a part of the daemon makes progress.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// A counter by which one part of the agent shows another that it makes progress.
#[derive(Clone, Debug, Default)]
pub struct Heartbeat(Arc<AtomicU64>);

impl Heartbeat {
    /// Records progress.
    pub fn tick(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the count, which only tells whether there was progress since it was last
    /// read.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
