//! The operations that a batch can consist of.

use crate::model::{Helper, Port, RouterId, RuleId, RuleTarget};

/// A rule to be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewRule {
    /// The rule's id: the requester's, or a random one made where the request came in.
    pub id: RuleId,
    /// The rule's target.
    pub target: RuleTarget,
}

/// A batch operation on behalf of one origin. Either all operations of a batch are
/// applied, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Adds a rule.
    Create(NewRule),
    /// Changes an existing rule, which keeps its id and its age.
    Update {
        /// The rule to change.
        id: RuleId,
        /// The router that the request gives; a rule stays with its router, so any other
        /// than its own is refused.
        router: Option<RouterId>,
        /// The new port, if it changes.
        port: Option<Port>,
        /// The new helper, if it changes.
        helper: Option<Helper>,
    },
    /// Removes a rule.
    Delete(RuleId),
    /// Removes all rules that the origin has on a router.
    Clear(RouterId),
    /// Makes the origin's rules on a router exactly these. A rule that exists already
    /// stays as it is, with its own id and age.
    Replace {
        /// The router.
        router: RouterId,
        /// All rules that the router is to have from this origin.
        rules: Vec<NewRule>,
    },
}
