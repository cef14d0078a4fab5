//! Collects the rules that a source wants, in their order.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    engine::{Mapping, NewRule, Operation},
    model::{Origin, RouterId, RuleId, RuleTarget},
};

/// The rules that each router named by a source is to have from that source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleSet {
    routers: BTreeMap<RouterId, Vec<RuleTarget>>,
    /// The same rules as a sorted set, to find duplicates quickly among many thousands.
    rules: BTreeSet<RuleTarget>,
}

impl RuleSet {
    /// Adds a router, which may stay without rules.
    pub fn name(&mut self, router: RouterId) {
        self.routers.entry(router).or_default();
    }

    /// Adds a rule, and returns `false` if it is there already.
    pub fn insert(&mut self, target: RuleTarget) -> bool {
        let new = self.rules.insert(target);
        if new {
            self.routers.entry(target.router).or_default().push(target);
        }
        new
    }

    /// Returns all rules.
    pub fn rules(&self) -> impl Iterator<Item = &RuleTarget> {
        self.routers.values().flatten()
    }

    /// Returns the batch that makes the origin's rules in the mapping exactly these:
    /// these on the named routers, and none on any other.
    pub fn operations(
        &self,
        mapping: &Mapping,
        origin: Origin,
        mut new_id: impl FnMut() -> RuleId,
    ) -> Vec<Operation> {
        let mut batch: Vec<_> = mapping
            .routers_of(origin)
            .into_iter()
            .filter(|router| !self.routers.contains_key(router))
            .map(Operation::Clear)
            .collect();
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
