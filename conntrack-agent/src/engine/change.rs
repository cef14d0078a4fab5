//! The difference that an accepted batch makes to the mapping.

use super::Entry;
use crate::model::RuleTarget;

/// The difference between the mapping before a batch and after it. It can be made
/// durable, applied to the kernel, and inverted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    pub(super) removed: Vec<Entry>,
    pub(super) added: Vec<Entry>,
}

impl Change {
    /// Returns the removed entries. A changed rule is removed, and added again as
    /// changed.
    #[must_use]
    pub fn removed(&self) -> &[Entry] {
        &self.removed
    }

    /// Returns the added entries.
    #[must_use]
    pub fn added(&self) -> &[Entry] {
        &self.added
    }

    /// Returns whether nothing changes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.added.is_empty()
    }

    /// Returns the targets of all removed and added entries.
    pub fn matches(&self) -> impl Iterator<Item = RuleTarget> {
        let entries = self.removed.iter().chain(&self.added);
        entries.map(|entry| entry.rule.target)
    }

    /// Returns the change that undoes this one.
    #[must_use]
    pub fn inverse(self) -> Self {
        Self {
            removed: self.added,
            added: self.removed,
        }
    }
}
