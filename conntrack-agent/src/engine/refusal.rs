//! The reasons for which a batch is refused.

use crate::model::{Helper, Origin, RouterId, RuleId, RuleTarget};

/// One reason, and the operation of the batch that it is about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("operation {operation}: {reason}")]
pub struct Refusal {
    /// Its place in the batch, from 0.
    pub operation: usize,
    /// The reason.
    pub reason: Reason,
}

/// What is wrong with an operation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// No rule has this name.
    #[error("there is no rule {0}")]
    NoSuchRule(RuleId),
    /// The rule is another origin's.
    #[error("rule {id} belongs to {owner}; {asker} can change only its own rules")]
    NotYours {
        /// The rule.
        id: RuleId,
        /// Whose it is.
        owner: Origin,
        /// Who asked.
        asker: Origin,
    },
    /// Another rule has this name.
    #[error("there is a rule {0} already")]
    IdTaken(RuleId),
    /// The origin has a rule that says the same.
    #[error("router {router} has {target} already, as rule {by}", router = .target.router)]
    Duplicate {
        /// What both say.
        target: RuleTarget,
        /// The rule that is there.
        by: RuleId,
    },
    /// A rule stays with its router.
    #[error("rule {id} is of router {of} and stays there; {given} was given")]
    OtherRouter {
        /// The rule.
        id: RuleId,
        /// Its router.
        of: RouterId,
        /// The one that was given.
        given: RouterId,
    },
    /// The operator's policy has no such helper.
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
        /// How many it would have after the whole batch.
        count: usize,
        /// How many it may have.
        limit: usize,
    },
    /// Too many routers would have rules.
    #[error("{count} routers would have rules; {limit} are allowed")]
    TooManyRouters {
        /// How many it would be after the whole batch.
        count: usize,
        /// How many it may be.
        limit: usize,
    },
}
