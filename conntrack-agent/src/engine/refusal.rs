//! The reasons for which a batch is refused.

use crate::model::{Helper, Origin, RouterId, RuleId, RuleTarget};

/// A reason for the refusal, and the operation of the batch that it is about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("operation {operation}: {reason}")]
pub struct Refusal {
    /// The index of the operation in the batch, from 0.
    pub operation: usize,
    /// The reason for the refusal.
    pub reason: Reason,
}

/// The reason why an operation is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// No rule has this id.
    #[error("there is no rule {0}")]
    NoSuchRule(RuleId),
    /// The rule belongs to another origin.
    #[error("rule {id} belongs to {owner}; {asker} can change only its own rules")]
    NotYours {
        /// The rule.
        id: RuleId,
        /// The origin that owns it.
        owner: Origin,
        /// The origin that asked.
        asker: Origin,
    },
    /// Another rule has this id.
    #[error("there is a rule {0} already")]
    IdTaken(RuleId),
    /// The origin already has a rule with the same target.
    #[error("router {router} has {target} already, as rule {by}", router = .target.router)]
    Duplicate {
        /// The target of both rules.
        target: RuleTarget,
        /// The existing rule.
        by: RuleId,
    },
    /// A rule can't be moved to another router.
    #[error("rule {id} is of router {of} and stays there; {given} was given")]
    OtherRouter {
        /// The rule.
        id: RuleId,
        /// The router of the rule.
        of: RouterId,
        /// The router that was given.
        given: RouterId,
    },
    /// The operator's policy doesn't allow this helper.
    #[error("helper {0} is not allowed on this host")]
    HelperNotAllowed(Helper),
    /// The kernel has no such helper.
    #[error("this kernel has no helper {0:?}")]
    HelperNotPresent(Helper),
    /// The router would have too many rules.
    #[error("router {router} would have {count} rules; {limit} are allowed")]
    TooManyRules {
        /// The router.
        router: RouterId,
        /// The number of rules that it would have after the whole batch.
        count: usize,
        /// The number of rules that it may have.
        limit: usize,
    },
    /// Too many routers would have rules.
    #[error("{count} routers would have rules; {limit} are allowed")]
    TooManyRouters {
        /// The number of routers with rules after the whole batch.
        count: usize,
        /// The number of routers that may have rules.
        limit: usize,
    },
}
