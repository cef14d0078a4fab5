//! The limits and helpers that the configuration and the kernel allow.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::model::Helper;

use super::Reason;

/// How much there may be.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Rules that one router may have, of all origins.
    pub rules_per_router: usize,
    /// Routers that may have rules.
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

/// What a rule may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    limits: Limits,
    present: BTreeSet<Helper>,
    allowed: BTreeSet<Helper>,
}

impl Policy {
    /// The helpers that the kernel has and those that the operator allows: a
    /// rule needs one that is both.
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

    /// How much there may be.
    #[must_use]
    pub const fn limits(&self) -> Limits {
        self.limits
    }

    /// What speaks against this helper, if anything does.
    #[must_use]
    pub fn objection(&self, helper: Helper) -> Option<Reason> {
        if !self.present.contains(&helper) {
            return Some(Reason::HelperNotPresent(helper));
        }
        (!self.allowed.contains(&helper)).then_some(Reason::HelperNotAllowed(helper))
    }
}
