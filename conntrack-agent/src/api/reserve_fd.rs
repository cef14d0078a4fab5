//! Keeps one file descriptor in reserve, so that a refusal can be sent when the process
//! has none left (`EMFILE`).

use std::fs::File;

/// A file descriptor in reserve; none while it is released.
#[derive(Debug)]
pub(super) struct ReserveFd(Option<File>);

impl ReserveFd {
    /// Opens the reserve.
    pub(super) fn new() -> Self {
        Self(reserve())
    }

    /// Closes the descriptor, so that a connection can have its number; returns whether
    /// there was one.
    pub(super) fn release(&mut self) -> bool {
        self.0.take().is_some()
    }

    /// Opens the reserve again. If no descriptor is free, the next refusal tries it again.
    pub(super) fn refill(&mut self) {
        if self.0.is_none() {
            self.0 = reserve();
        }
    }
}

fn reserve() -> Option<File> {
    File::open("/dev/null").ok()
}
