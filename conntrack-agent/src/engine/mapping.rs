//! The mapping: router → {helper rules}.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Change, Entry};
use crate::model::{Destination, Helper, Origin, RouterId, RuleId};

/// The rules on one destination, oldest first, with their ages. There is nearly always
/// one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ranked(Vec<(u64, RuleId)>);

impl Ranked {
    pub(super) fn ids(&self) -> impl Iterator<Item = RuleId> {
        self.0.iter().map(|(_, id)| *id)
    }

    fn oldest(&self) -> Option<(u64, RuleId)> {
        self.0.first().copied()
    }

    fn insert(&mut self, age: u64, id: RuleId) {
        let at = self.0.partition_point(|(there, _)| *there < age);
        self.0.insert(at, (age, id));
    }

    /// Removes the rule of this age, and returns whether there was one.
    fn remove(&mut self, age: u64) -> bool {
        let at = self.0.binary_search_by_key(&age, |(there, _)| *there);
        at.map(|at| self.0.remove(at)).is_ok()
    }
}

/// The rules of one router.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RouterRules {
    /// The rules by destination; no list is empty.
    pub(super) destinations: BTreeMap<Destination, Ranked>,
    /// The number of rules in all lists.
    pub(super) rules: usize,
}

/// The mapping: all rules, indexed by id and by router.
///
/// Invariants, checked by the property tests after every step: both indexes hold the same
/// rules; a router without rules is not in them; no two entries have the same age, and
/// all ages are below the next one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    entries: HashMap<RuleId, Entry>,
    routers: BTreeMap<RouterId, RouterRules>,
    next_age: u64,
}

/// The error for entries that can't be in one mapping together.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Inconsistent {
    /// Two rules have the same id.
    #[error("two rules are called {0}")]
    Id(RuleId),
    /// Two rules have the same age.
    #[error("rule {0} has the age of another one")]
    Age(RuleId),
}

impl Mapping {
    /// Builds a mapping from stored entries.
    ///
    /// # Errors
    /// Returns [`Inconsistent`] if no mapping can have held them.
    pub fn from_entries(entries: impl IntoIterator<Item = Entry>) -> Result<Self, Inconsistent> {
        let mut mapping = Self::default();
        let mut ages = BTreeSet::new();
        for entry in entries {
            if mapping.entries.contains_key(&entry.rule.id) {
                return Err(Inconsistent::Id(entry.rule.id));
            }
            if !ages.insert(entry.age) {
                return Err(Inconsistent::Age(entry.rule.id));
            }
            mapping.insert(entry);
        }
        Ok(mapping)
    }

    /// Applies a change that was decided on this very mapping.
    pub fn commit(&mut self, change: &Change) {
        for entry in &change.removed {
            self.remove(entry);
        }
        for entry in &change.added {
            self.insert(*entry);
        }
    }

    /// Returns the change that makes this mapping equal to `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Change {
        let missing_in = |there: &Self, entry: &&Entry| there.get(entry.rule.id) != Some(*entry);
        let removed = self.entries().filter(|entry| missing_in(other, entry));
        let added = other.entries().filter(|entry| missing_in(self, entry));
        Change {
            removed: removed.copied().collect(),
            added: added.copied().collect(),
        }
    }

    /// Returns the rule with this id.
    #[must_use]
    pub fn get(&self, id: RuleId) -> Option<&Entry> {
        self.entries.get(&id)
    }

    /// Returns all routers that have a rule.
    #[must_use]
    pub fn routers(&self) -> BTreeSet<RouterId> {
        self.routers.keys().copied().collect()
    }

    /// Returns whether the router has a rule.
    #[must_use]
    pub fn has(&self, router: RouterId) -> bool {
        self.routers.contains_key(&router)
    }

    /// Returns all routers on which an origin has a rule.
    #[must_use]
    pub fn routers_of(&self, origin: Origin) -> BTreeSet<RouterId> {
        let rules = self.entries.values().map(|entry| entry.rule);
        let own = rules.filter(|rule| rule.origin == origin);
        own.map(|rule| rule.target.router).collect()
    }

    /// Returns all entries, in no order.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// Returns the entries of a router, by destination, oldest first.
    pub fn of(&self, router: RouterId) -> impl Iterator<Item = &Entry> {
        let destinations = self.routers.get(&router).map(|router| &router.destinations);
        destinations
            .into_iter()
            .flat_map(BTreeMap::values)
            .flat_map(Ranked::ids)
            .filter_map(|id| self.entries.get(&id))
    }

    /// Returns the number of rules.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether there is no rule.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the helper of each destination: of several rules on one, the oldest wins.
    #[must_use]
    pub fn winners(&self, router: RouterId) -> BTreeMap<Destination, Helper> {
        let Some(router) = self.routers.get(&router) else {
            return BTreeMap::new();
        };
        router
            .destinations
            .iter()
            .filter_map(|(destination, ranked)| Some((*destination, self.oldest(ranked)?)))
            .collect()
    }

    /// Returns the helper of one destination.
    #[must_use]
    pub fn winner(&self, router: RouterId, destination: Destination) -> Option<Helper> {
        self.oldest(self.ranked(router, destination)?)
    }

    /// Returns whether an older rule has the same destination.
    #[must_use]
    pub fn is_shadowed(&self, entry: &Entry) -> bool {
        let target = entry.rule.target;
        self.ranked(target.router, target.destination())
            .and_then(Ranked::oldest)
            .is_some_and(|(oldest, _)| oldest < entry.age)
    }

    pub(super) const fn next_age(&self) -> u64 {
        self.next_age
    }

    pub(super) fn ranked(&self, router: RouterId, destination: Destination) -> Option<&Ranked> {
        self.routers.get(&router)?.destinations.get(&destination)
    }

    pub(super) fn rules_of(&self, router: RouterId) -> usize {
        self.routers.get(&router).map_or(0, |router| router.rules)
    }

    pub(super) fn routers_in_use(&self) -> usize {
        self.routers.len()
    }

    fn oldest(&self, ranked: &Ranked) -> Option<Helper> {
        let (_, id) = ranked.oldest()?;
        Some(self.entries.get(&id)?.rule.target.helper)
    }

    fn insert(&mut self, entry: Entry) {
        let target = entry.rule.target;
        self.next_age = self.next_age.max(entry.age.saturating_add(1));
        self.entries.insert(entry.rule.id, entry);
        let router = self.routers.entry(target.router).or_default();
        router.rules += 1;
        router
            .destinations
            .entry(target.destination())
            .or_default()
            .insert(entry.age, entry.rule.id);
    }

    fn remove(&mut self, entry: &Entry) {
        let target = entry.rule.target;
        self.entries.remove(&entry.rule.id);
        let Some(router) = self.routers.get_mut(&target.router) else {
            return;
        };
        if let Some(ranked) = router.destinations.get_mut(&target.destination())
            && ranked.remove(entry.age)
        {
            router.rules -= 1;
            if ranked.0.is_empty() {
                router.destinations.remove(&target.destination());
            }
        }
        if router.rules == 0 {
            self.routers.remove(&target.router);
        }
    }
}
