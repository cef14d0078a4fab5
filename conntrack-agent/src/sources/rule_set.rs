//! A set of rules that a source wants, in order.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    engine::{Mapping, NewRule, Operation},
    model::{Origin, RouterId, RuleId, RuleTarget},
};

/// For each router that a source names, all rules that it is to have from it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleSet {
    routers: BTreeMap<RouterId, Vec<RuleTarget>>,
    /// The same rules, to find a duplicate among many thousands.
    rules: BTreeSet<RuleTarget>,
}

impl RuleSet {
    /// Names a router, which may be left without rules.
    pub fn name(&mut self, router: RouterId) {
        self.routers.entry(router).or_default();
    }

    /// Adds a rule. Returns false if it is there already.
    pub fn insert(&mut self, target: RuleTarget) -> bool {
        let new = self.rules.insert(target);
        if new {
            self.routers.entry(target.router).or_default().push(target);
        }
        new
    }

    /// All rules.
    pub fn rules(&self) -> impl Iterator<Item = &RuleTarget> {
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
            let rules = rules.iter().map(|target| NewRule {
                id: new_id(),
                target: *target,
            });
            Operation::Replace {
                router: *router,
                rules: rules.collect(),
            }
        }));
        batch
    }
}
