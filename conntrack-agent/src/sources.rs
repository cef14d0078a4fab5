//! Where rules come from. A source turns what it is given into checked values,
//! or says all that is wrong with it; nothing behind it sees unchecked input.

mod rule_set;
pub mod rules_file;

pub use rule_set::RuleSet;

use std::fmt::Display;

/// Faults as the end of a sentence: each on a line of its own, indented.
pub(crate) fn listed<T: Display>(faults: &[T]) -> String {
    faults.iter().fold(String::new(), |mut text, fault| {
        text.push_str("\n  ");
        text.push_str(&fault.to_string());
        text
    })
}
