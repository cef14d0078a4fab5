//! The operations that a batch can consist of.

use crate::model::{Helper, Port, RouterId, RuleId, RuleTarget};

/// A rule that is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewRule {
    /// Its name: the requester's, or a random one made where the request came in.
    pub id: RuleId,
    /// What it says.
    pub target: RuleTarget,
}

/// One change that is asked for, on behalf of one origin. A request is a batch
/// of them: all happen, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Add a rule.
    Create(NewRule),
    /// Let an existing rule say something else. It keeps its name and its age.
    Update {
        /// Which rule.
        id: RuleId,
        /// The router it is said to be of; a rule stays with its router, so any
        /// other than its own is refused.
        router: Option<RouterId>,
        /// Its new port, if that changes.
        port: Option<Port>,
        /// Its new helper, if that changes.
        helper: Option<Helper>,
    },
    /// Remove a rule.
    Delete(RuleId),
    /// Remove all rules that the origin has on a router.
    Clear(RouterId),
    /// Make the origin's rules on a router exactly these. One that is there
    /// already stays as it is, with its own name and age.
    Replace {
        /// The router.
        router: RouterId,
        /// All rules that it is to have from this origin.
        rules: Vec<NewRule>,
    },
}
