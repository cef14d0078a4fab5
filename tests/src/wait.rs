//! Waiting for something to become true, with an end.

use std::env;
use std::thread::sleep;
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(10);

/// By how many times `patience` is longer than on an ordinary machine.
pub const FACTOR: &str = "CONNTRACK_TEST_PATIENCE";

/// How long tests wait for what must come.
///
/// It ends a test that hangs, and decides nothing else: what takes longer on a busy
/// machine than on a quiet one is right all the same. [`FACTOR`] makes it longer, for an
/// emulated machine.
///
/// # Panics
/// If the factor is no number.
#[must_use]
pub fn patience() -> Duration {
    let factor = env::var(FACTOR).map_or(1, |factor| {
        let number = factor.parse();
        number.unwrap_or_else(|error| panic!("{FACTOR}={factor}: {error}"))
    });
    factor * Duration::from_mins(2)
}

/// Asks `condition` until it has a value, at most for `limit`.
pub fn until<T>(limit: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if Instant::now() >= end {
            return None;
        }
        sleep(PAUSE);
    }
}

/// Waits so long that an agent would have done what must not be done: 800 ms.
pub fn for_nothing() {
    sleep(Duration::from_millis(800));
}
