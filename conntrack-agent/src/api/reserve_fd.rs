//! A descriptor that is kept, so that there is one to say with that there is none.

use std::fs::File;

/// Held, or given away.
#[derive(Debug)]
pub(super) struct ReserveFd(Option<File>);

impl ReserveFd {
    pub(super) fn new() -> Self {
        let mut spare = Self(None);
        spare.take_back();
        spare
    }

    /// Gives it away; whether there was one.
    pub(super) fn give(&mut self) -> bool {
        self.0.take().is_some()
    }

    /// Takes one again, if there is any to be had; if not, it is asked for at
    /// the next refusal.
    pub(super) fn take_back(&mut self) {
        if self.0.is_none() {
            self.0 = File::open("/dev/null").ok();
        }
    }
}
