//! Turns rules from outside into checked values, or returns every fault. No layer above
//! sees unchecked input.

mod rule_set;
pub mod rules_file;

pub use rule_set::RuleSet;

use std::fmt::Display;

use crate::model::Protocol;

/// Returns the start of a text from outside, enough to recognise it by.
pub(crate) fn excerpt(given: &str) -> String {
    given.chars().take(64).collect()
}

/// Parses the name of a protocol.
///
/// # Errors
/// Returns the text that says what was given, and what is allowed.
pub(crate) fn protocol(given: &str) -> Result<Protocol, String> {
    match given {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        other => Err(format!(
            "protocol {:?} is not known; \"tcp\" and \"udp\" are allowed",
            excerpt(other)
        )),
    }
}

/// Formats faults as the end of a sentence: each on a line of its own, indented; of very
/// many only the first are listed.
pub(crate) fn listed<T: Display>(faults: &[T]) -> String {
    const MOST: usize = 100;
    let first = faults.iter().take(MOST).map(|fault| format!("\n  {fault}"));
    let more = faults.len().saturating_sub(MOST);
    let rest = (more > 0).then(|| format!("\n  and {more} more"));
    first.chain(rest).collect()
}

#[cfg(test)]
mod tests {
    use super::listed;

    #[test]
    fn of_very_many_faults_the_first_are_listed() {
        assert_eq!(listed(&["a", "b"]), "\n  a\n  b");
        assert_eq!(listed(&[1; 100]).lines().count(), 101);
        assert!(listed(&vec![1; 100_000]).ends_with("\n  and 99900 more"));
    }
}
