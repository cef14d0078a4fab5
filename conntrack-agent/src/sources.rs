//! Turns rules from outside into checked values, or returns every fault. No layer above
//! sees unchecked input.

mod rule_set;
pub mod rules_file;

pub use rule_set::RuleSet;

use std::fmt::Display;

/// Formats faults as the end of a sentence: each on a line of its own, indented; of very
/// many only the first are listed.
pub(crate) fn listed<T: Display>(faults: &[T]) -> String {
    const MOST: usize = 100;
    let mut text = String::new();
    for fault in faults.iter().take(MOST) {
        text.push_str("\n  ");
        text.push_str(&fault.to_string());
    }
    if let Some(more @ 1..) = faults.len().checked_sub(MOST) {
        text.push_str("\n  and ");
        text.push_str(&more.to_string());
        text.push_str(" more");
    }
    text
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
