//! The limits and helpers that the configuration and the kernel allow.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::model::Helper;

use super::Reason;

/// The limits on the numbers of rules and routers.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// The maximum number of rules of one router, of all origins together.
    pub rules_per_router: usize,
    /// The maximum number of routers with rules.
    pub routers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            rules_per_router: 1000,
            routers: 10_000,
        }
    }
}

/// The policy that a rule is checked against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    limits: Limits,
    present: BTreeSet<Helper>,
    allowed: BTreeSet<Helper>,
}

impl Policy {
    /// Creates a policy from the helpers that the kernel has and those that the operator
    /// allows; a rule's helper must be in both.
    pub fn new(
        limits: Limits,
        present: impl IntoIterator<Item = Helper>,
        allowed: impl IntoIterator<Item = Helper>,
    ) -> Self {
        Self {
            limits,
            present: present.into_iter().collect(),
            allowed: allowed.into_iter().collect(),
        }
    }

    /// Returns the limits.
    #[must_use]
    pub const fn limits(&self) -> Limits {
        self.limits
    }

    /// Returns the reason why this helper can't be used, if there is one.
    #[must_use]
    pub fn objection(&self, helper: Helper) -> Option<Reason> {
        if !self.present.contains(&helper) {
            return Some(Reason::HelperNotPresent(helper));
        }
        (!self.allowed.contains(&helper)).then_some(Reason::HelperNotAllowed(helper))
    }
}
