//! Decides whether a batch is accepted, and computes the change.
//!
//! It works on the mapping and a staging area with what the batch has changed so far. So
//! an operation sees the operations before it, a refused batch has changed nothing, and a
//! change costs the same among many rules as among few.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Change, Entry, Mapping, NewRule, Operation, Policy, Reason, Refusal, mapping::Ranked};
use crate::model::{Destination, HelperRule, Origin, RouterId, RuleId, RuleTarget};

impl Mapping {
    /// Returns the change that a batch of `origin` makes; nothing is changed yet. An
    /// empty batch, and one that asks for what exists already, change nothing.
    ///
    /// # Errors
    /// Returns every reason against the batch; then no part of it may be applied.
    pub fn decide(
        &self,
        policy: &Policy,
        origin: Origin,
        batch: &[Operation],
    ) -> Result<Change, Vec<Refusal>> {
        let mut transaction = Transaction {
            mapping: self,
            policy,
            origin,
            staged: HashMap::new(),
            fresh: HashMap::new(),
            fresh_of: HashMap::new(),
            touched: BTreeMap::new(),
            next_age: self.next_age(),
            operation: 0,
            refusals: Vec::new(),
        };
        for (index, operation) in batch.iter().enumerate() {
            transaction.operation = index;
            transaction.carry_out(operation);
        }
        transaction.check_limits();
        if transaction.refusals.is_empty() {
            Ok(transaction.change())
        } else {
            Err(transaction.refusals)
        }
    }
}

struct Transaction<'a> {
    mapping: &'a Mapping,
    policy: &'a Policy,
    origin: Origin,
    /// The rules that the batch has touched, as they are now; `None` for a removed one.
    staged: HashMap<RuleId, Option<Entry>>,
    /// The present and former destinations of staged rules: hints to find them by, with
    /// duplicates.
    fresh: HashMap<(RouterId, Destination), Vec<RuleId>>,
    fresh_of: HashMap<RouterId, Vec<RuleId>>,
    /// The routers that the batch has touched, each with the last operation that did.
    touched: BTreeMap<RouterId, usize>,
    next_age: u64,
    operation: usize,
    refusals: Vec<Refusal>,
}

impl Transaction<'_> {
    fn carry_out(&mut self, operation: &Operation) {
        match operation {
            Operation::Create(rule) => self.create(*rule),
            Operation::Update {
                id,
                router,
                port,
                helper,
            } => {
                let Some(entry) = self.own(*id) else { return };
                let of = entry.rule.target.router;
                if let Some(given) = router.filter(|given| *given != of) {
                    self.refuse(Reason::OtherRouter { id: *id, of, given });
                }
                let target = RuleTarget {
                    router: of,
                    port: port.unwrap_or(entry.rule.target.port),
                    helper: helper.unwrap_or(entry.rule.target.helper),
                };
                if self.may_say(target, Some(*id)) {
                    let rule = HelperRule {
                        target,
                        ..entry.rule
                    };
                    self.stage(*id, Some(Entry { rule, ..entry }));
                }
            }
            Operation::Delete(id) => {
                if self.own(*id).is_some() {
                    self.stage(*id, None);
                }
            }
            Operation::Clear(router) => {
                for id in self.own_of(*router) {
                    self.stage(id, None);
                }
            }
            Operation::Replace { router, rules } => self.replace(*router, rules),
        }
    }

    fn create(&mut self, rule: NewRule) {
        let taken = self.get(rule.id).is_some();
        if taken {
            self.refuse(Reason::IdTaken(rule.id));
        }
        if self.may_say(rule.target, None) && !taken {
            let entry = Entry {
                rule: HelperRule {
                    id: rule.id,
                    target: rule.target,
                    origin: self.origin,
                },
                age: self.next_age,
            };
            self.next_age += 1;
            self.stage(rule.id, Some(entry));
        }
    }

    fn replace(&mut self, router: RouterId, rules: &[NewRule]) {
        let mut keep = BTreeSet::new();
        let mut create = Vec::new();
        for rule in rules {
            let given = rule.target.router;
            if given != router {
                self.refuse(Reason::OtherRouter {
                    id: rule.id,
                    of: router,
                    given,
                });
                continue;
            }
            match self.saying(rule.target) {
                // A rule may be only once in the requested set.
                Some(by) if !keep.insert(by) => self.refuse(Reason::Duplicate {
                    target: rule.target,
                    by,
                }),
                // An existing rule stays if the policy still allows it.
                Some(_) => {
                    if let Some(reason) = self.policy.objection(rule.target.helper) {
                        self.refuse(reason);
                    }
                }
                None => create.push(*rule),
            }
        }
        for id in self.own_of(router) {
            if !keep.contains(&id) {
                self.stage(id, None);
            }
        }
        for rule in create {
            self.create(rule);
        }
    }

    /// Returns whether a rule may have this target; `of` is the rule itself, if it exists
    /// already.
    fn may_say(&mut self, target: RuleTarget, of: Option<RuleId>) -> bool {
        let mut reasons: Vec<_> = self.policy.objection(target.helper).into_iter().collect();
        if let Some(by) = self.saying(target).filter(|by| Some(*by) != of) {
            reasons.push(Reason::Duplicate { target, by });
        }
        let fine = reasons.is_empty();
        for reason in reasons {
            self.refuse(reason);
        }
        fine
    }

    /// Returns the origin's rule with exactly this target. Equal rules of two origins are
    /// no duplicates: neither origin could change the other's.
    fn saying(&self, target: RuleTarget) -> Option<RuleId> {
        let destination = target.destination();
        let there = self.mapping.ranked(target.router, destination);
        let staged = self.fresh.get(&(target.router, destination));
        there
            .into_iter()
            .flat_map(Ranked::ids)
            .chain(staged.into_iter().flatten().copied())
            .find(|id| {
                self.get(*id).is_some_and(|entry| {
                    entry.rule.target == target && entry.rule.origin == self.origin
                })
            })
    }

    /// Returns the rule if the origin may change it.
    fn own(&mut self, id: RuleId) -> Option<Entry> {
        let Some(entry) = self.get(id) else {
            self.refuse(Reason::NoSuchRule(id));
            return None;
        };
        let owner = entry.rule.origin;
        if owner != self.origin {
            let asker = self.origin;
            self.refuse(Reason::NotYours { id, owner, asker });
            return None;
        }
        Some(entry)
    }

    /// Returns the origin's rules on a router.
    fn own_of(&self, router: RouterId) -> Vec<RuleId> {
        let there = self.mapping.of(router).map(|entry| entry.rule.id);
        let staged = self.fresh_of.get(&router).into_iter().flatten();
        let ids: BTreeSet<_> = there.chain(staged.copied()).collect();
        let own = |id: &RuleId| {
            self.get(*id).is_some_and(|entry| {
                entry.rule.target.router == router && entry.rule.origin == self.origin
            })
        };
        ids.into_iter().filter(own).collect()
    }

    fn get(&self, id: RuleId) -> Option<Entry> {
        match self.staged.get(&id) {
            Some(staged) => *staged,
            None => self.mapping.get(id).copied(),
        }
    }

    fn stage(&mut self, id: RuleId, entry: Option<Entry>) {
        for target in [self.get(id), entry]
            .into_iter()
            .flatten()
            .map(|entry| entry.rule.target)
        {
            self.touched.insert(target.router, self.operation);
        }
        if let Some(Entry { rule, .. }) = entry {
            let router = rule.target.router;
            let place = (router, rule.target.destination());
            self.fresh.entry(place).or_default().push(id);
            self.fresh_of.entry(router).or_default().push(id);
        }
        self.staged.insert(id, entry);
    }

    /// Checks the limits for the batch as a whole: a batch that first adds and then
    /// removes is judged by its result.
    fn check_limits(&mut self) {
        let limits = self.policy.limits();
        let mut counts: BTreeMap<RouterId, usize> = self
            .touched
            .keys()
            .map(|router| (*router, self.mapping.rules_of(*router)))
            .collect();
        let mut routers = self.mapping.routers_in_use();
        for (id, staged) in &self.staged {
            // A rule stays with its router, so one counter serves for before and after.
            if let Some(before) = self.mapping.get(*id)
                && let Some(count) = counts.get_mut(&before.rule.target.router)
            {
                *count -= 1;
            }
            if let Some(after) = staged
                && let Some(count) = counts.get_mut(&after.rule.target.router)
            {
                *count += 1;
            }
        }
        for (router, count) in counts {
            let before = self.mapping.rules_of(router);
            match (before, count) {
                (0, 1..) => routers += 1,
                (1.., 0) => routers -= 1,
                _ => {}
            }
            // A router over a limit that was lowered may stay so, but not grow.
            if count > limits.rules_per_router && count > before {
                self.operation = self.touched.get(&router).copied().unwrap_or_default();
                self.refuse(Reason::TooManyRules {
                    router,
                    count,
                    limit: limits.rules_per_router,
                });
            }
        }
        if routers > limits.routers && routers > self.mapping.routers_in_use() {
            self.operation = self.touched.values().copied().max().unwrap_or_default();
            self.refuse(Reason::TooManyRouters {
                count: routers,
                limit: limits.routers,
            });
        }
    }

    fn refuse(&mut self, reason: Reason) {
        self.refusals.push(Refusal {
            operation: self.operation,
            reason,
        });
    }

    fn change(self) -> Change {
        let mut change = Change::default();
        for (id, after) in self.staged {
            let before = self.mapping.get(id).copied();
            if before != after {
                change.removed.extend(before);
                change.added.extend(after);
            }
        }
        // By age, which is the order in which the rules were requested.
        change.added.sort_by_key(|entry| entry.age);
        change.removed.sort_by_key(|entry| entry.age);
        change
    }
}
