//! The parts of a command: what is being done, how long it usually takes, and how long
//! it took.

use std::time::{Duration, Instant};

use crate::say;

/// Times the parts of one command, and prints them at its end, however it ends.
#[derive(Default)]
pub(crate) struct Parts {
    done: Vec<(String, Duration)>,
}

impl Parts {
    /// Does a part. `usual` is what it takes, for somebody who wonders whether it hangs.
    pub(crate) fn run<T>(&mut self, name: &str, usual: &str, does: impl FnOnce() -> T) -> T {
        say::note(&format!("{name}; usually {usual}"));
        let begun = Instant::now();
        let result = does();
        self.done.push((name.to_owned(), begun.elapsed()));
        result
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        for (name, took) in &self.done {
            say::note(&format!("{:>6}  {name}", minutes(*took)));
        }
        let all = self.done.iter().map(|(_, took)| *took).sum();
        say::note(&format!("{:>6}  altogether", minutes(all)));
    }
}

/// Minutes and seconds, as a stopwatch shows them.
fn minutes(took: Duration) -> String {
    let seconds = took.as_secs();
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_have_two_digits() {
        let check = |seconds, expected| assert_eq!(minutes(Duration::from_secs(seconds)), expected);
        check(0, "0:00");
        check(67, "1:07");
        check(3_600, "60:00");
    }
}
