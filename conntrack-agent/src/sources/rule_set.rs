//! A set of rules that a source wants, in its own order.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    engine::{Mapping, NewRule, Operation},
    model::{Match, Origin, RouterId, RuleId},
};

/// For each router that a source names, all rules that it is to have from it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleSet {
    routers: BTreeMap<RouterId, Vec<Match>>,
    /// The same rules, to find a duplicate among many thousands.
    rules: BTreeSet<Match>,
}

impl RuleSet {
    /// Names a router, which may be left without rules.
    pub fn name(&mut self, router: RouterId) {
        self.routers.entry(router).or_default();
    }

    /// Adds a rule. Returns false if it is there already.
    pub fn insert(&mut self, says: Match) -> bool {
        let new = self.rules.insert(says);
        if new {
            self.routers.entry(says.router).or_default().push(says);
        }
        new
    }

    /// All rules.
    pub fn rules(&self) -> impl Iterator<Item = &Match> {
        self.routers.values().flatten()
    }

    /// The batch that makes the origin's rules in the mapping exactly these:
    /// on the routers that are named, and none on any other.
    pub fn operations(
        &self,
        mapping: &Mapping,
        origin: Origin,
        mut new_id: impl FnMut() -> RuleId,
    ) -> Vec<Operation> {
        let gone = mapping.routers_of(origin).into_iter();
        let gone = gone.filter(|router| !self.routers.contains_key(router));
        let mut batch: Vec<_> = gone.map(Operation::Clear).collect();
        batch.extend(self.routers.iter().map(|(router, rules)| {
            let rules = rules.iter().map(|says| NewRule {
                id: new_id(),
                says: *says,
            });
            Operation::Replace {
                router: *router,
                rules: rules.collect(),
            }
        }));
        batch
    }
}
