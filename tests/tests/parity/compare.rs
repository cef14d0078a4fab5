//! Two conntrack tables, connection by connection.

use std::collections::BTreeSet;
use std::fmt;

use conntrack_tests::ctnetlink::{State, Tuple};

use crate::grammar::Step;
use crate::rig::Outcome;

/// A connection that isn't the same in both.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) tuple: Tuple,
    pub(crate) reference: Option<State>,
    pub(crate) ours: Option<State>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let say = |state: &Option<State>| match state {
            Some(state) => state.to_string(),
            None => "no connection".into(),
        };
        let (reference, ours) = (say(&self.reference), say(&self.ours));
        write!(f, "{}: iptables: {reference}; ours: {ours}", self.tuple)
    }
}

/// What is alike about differences that may have one cause.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kind {
    reference: Option<bool>,
    ours: Option<bool>,
    is_announced: bool,
    in_fragments: bool,
    protocol: u8,
}

impl Difference {
    /// Whether it is only that iptables gave a helper, and we gave none.
    pub(crate) fn is_a_helper_less(&self) -> bool {
        /// `IPS_HELPER`: it was given by a rule.
        const GIVEN: u32 = 1 << 13;
        let (Some(reference), Some(ours)) = (&self.reference, &self.ours) else {
            return false;
        };
        let without = State {
            helper: None,
            status: reference.status & !GIVEN,
            ..reference.clone()
        };
        reference.helper.is_some() && *ours == without
    }

    /// Whether another connection has announced it, on either side.
    pub(crate) fn is_announced(&self) -> bool {
        let mut states = self.reference.iter().chain(&self.ours);
        states.any(State::is_expected)
    }

    pub(crate) fn kind(&self, steps: &[Step]) -> Kind {
        let has_helper = |state: &State| state.helper.is_some();
        let mut concerned = steps.iter().filter(|step| step.concerns(&self.tuple));
        Kind {
            reference: self.reference.as_ref().map(has_helper),
            ours: self.ours.as_ref().map(has_helper),
            is_announced: self.is_announced(),
            in_fragments: concerned.any(|step| step.frames.iter().any(|frame| frame.may_wait)),
            protocol: self.tuple.protocol,
        }
    }
}

/// What differs. Connections are compared with all that conntrack tells: both
/// directions, status, helper, and who announced them.
pub(crate) fn differences(outcome: &Outcome) -> Vec<Difference> {
    let (reference, ours) = (&outcome.reference.connections, &outcome.ours.connections);
    let tuples: BTreeSet<_> = reference.keys().chain(ours.keys()).collect();
    let mut differences: Vec<_> = tuples
        .into_iter()
        .filter(|tuple| reference.get(tuple) != ours.get(tuple))
        .map(|tuple| Difference {
            tuple: *tuple,
            reference: reference.get(tuple).cloned(),
            ours: ours.get(tuple).cloned(),
        })
        .collect();
    // Expectations come of helpers; where these are the same, so must those be.
    if differences.is_empty() {
        let (reference, ours) = (&outcome.reference.expectations, &outcome.ours.expectations);
        let master = |(_, _, master): &(Tuple, Tuple, Tuple)| *master;
        let masters = reference.symmetric_difference(ours).map(master);
        differences.extend(masters.map(|tuple| Difference {
            tuple,
            reference: outcome.reference.connections.get(&tuple).cloned(),
            ours: outcome.ours.connections.get(&tuple).cloned(),
        }));
    }
    differences
}
