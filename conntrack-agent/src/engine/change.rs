//! The difference that an accepted batch makes to the mapping.

use super::Entry;
use crate::model::RuleTarget;

/// The difference between the mapping before a request and after it. It can be
/// made durable, brought to the kernel, and turned round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    pub(super) removed: Vec<Entry>,
    pub(super) added: Vec<Entry>,
}

impl Change {
    /// The entries that go. A rule that changes goes, and comes back changed.
    #[must_use]
    pub fn removed(&self) -> &[Entry] {
        &self.removed
    }

    /// The entries that come.
    #[must_use]
    pub fn added(&self) -> &[Entry] {
        &self.added
    }

    /// Whether nothing changes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.added.is_empty()
    }

    /// What every entry says that goes or comes.
    pub fn matches(&self) -> impl Iterator<Item = RuleTarget> {
        let entries = self.removed.iter().chain(&self.added);
        entries.map(|entry| entry.rule.target)
    }

    /// The change that takes this one back.
    #[must_use]
    pub fn inverse(self) -> Self {
        Self {
            removed: self.added,
            added: self.removed,
        }
    }
}
