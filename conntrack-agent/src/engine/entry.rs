//! An entry of the mapping: a rule and its age.

use crate::model::HelperRule;

/// A rule and its age: the number of rules that ever existed before it. Of several rules
/// on one destination, the one with the smallest age wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The rule.
    pub rule: HelperRule,
    /// The age of the rule, unique in a mapping.
    pub age: u64,
}
