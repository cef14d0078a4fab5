//! Publishes the agent's accepted and applied state to readers on other threads; a change
//! that may still be undone is never visible.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Instant,
};

use tokio::sync::Notify;

use super::{
    Connections,
    connections::{AddressFamily, HelperOutcome},
};
use crate::{
    engine::{Change, Mapping},
    model::{RouterId, RuleTarget},
    reconcile::Reconciler,
};

/// The reason why a router's rules are not in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The router has no namespace on this host.
    Pending,
    /// The router could not be reconciled.
    Failed {
        /// The error, with all its causes.
        reason: String,
        /// The number of consecutive failures.
        failures: u32,
    },
}

/// A change of a router's condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// The router has failed, for the first time or again.
    Failed,
    /// The router is as it should be, after a failure.
    Recovered,
}

/// The routers whose condition has changed.
pub(super) type Turns = Vec<(RouterId, Turn)>;

/// The state of the agent at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The mapping.
    pub mapping: Mapping,
    /// The conditions of routers whose rules are not in force.
    pub conditions: BTreeMap<RouterId, Condition>,
    /// The connections by the rule that they met. Rules that no connection has met yet
    /// are not included.
    pub connections: BTreeMap<RuleTarget, Connections>,
}

/// The agent's state for readers on other threads.
#[derive(Debug, Default)]
pub struct View {
    seen: RwLock<Snapshot>,
    changed: Notify,
}

impl View {
    /// Returns the present state, which can't change while the guard is held; hold it
    /// briefly.
    pub fn read(&self) -> RwLockReadGuard<'_, Snapshot> {
        self.seen.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for any change that was not waited for yet.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn write(&self) -> RwLockWriteGuard<'_, Snapshot> {
        self.seen.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes this whole mapping.
    pub(super) fn begin(&self, mapping: &Mapping, reconciler: &Reconciler) -> Turns {
        let mut seen = Snapshot {
            mapping: mapping.clone(),
            conditions: self.read().conditions.clone(),
            ..Snapshot::default()
        };
        let mut routers: BTreeSet<_> = seen.conditions.keys().copied().collect();
        routers.extend(mapping.routers());
        let turns = note_all(&mut seen, routers, reconciler);
        let mut now = self.write();
        seen.connections = std::mem::take(&mut now.connections);
        seen.connections.retain(|target, _| {
            mapping.winner(target.router, target.destination()) == Some(target.helper)
        });
        *now = seen;
        drop(now);
        self.changed.notify_one();
        turns
    }

    /// Publishes a change that was made.
    pub(super) fn commit(&self, change: &Change, reconciler: &Reconciler) -> Turns {
        let mut seen = self.write();
        seen.mapping.commit(change);
        let mut routers = BTreeSet::new();
        for target in change.matches() {
            routers.insert(target.router);
            // A rule that is added again starts counting anew.
            seen.connections.remove(&target);
        }
        let turns = note_all(&mut seen, routers, reconciler);
        drop(seen);
        self.changed.notify_one();
        turns
    }

    /// Counts the outcome of a connection, and returns whether the rule that it met still
    /// exists; otherwise nothing is counted.
    pub fn met(&self, target: RuleTarget, family: AddressFamily, outcome: &HelperOutcome) -> bool {
        let mut seen = self.write();
        let winner = seen.mapping.winner(target.router, target.destination());
        if winner != Some(target.helper) {
            return false;
        }
        let connections = seen.connections.entry(target).or_default();
        connections.add(family, outcome, Instant::now());
        true
    }

    /// Publishes the condition of a router that was reconciled.
    pub(super) fn note(&self, router: RouterId, reconciler: &Reconciler) -> Turns {
        let turns = note_all(&mut self.write(), [router].into(), reconciler);
        self.changed.notify_one();
        turns
    }
}

fn note_all(seen: &mut Snapshot, routers: BTreeSet<RouterId>, reconciler: &Reconciler) -> Turns {
    let turn = |router| Some((router, note(seen, router, reconciler)?));
    routers.into_iter().filter_map(turn).collect()
}

fn note(seen: &mut Snapshot, router: RouterId, reconciler: &Reconciler) -> Option<Turn> {
    let failures = |condition: Option<&Condition>| match condition {
        Some(Condition::Failed { failures, .. }) => Some(*failures),
        _ => None,
    };
    let before = failures(seen.conditions.get(&router));
    let condition = match reconciler.failures().get(&router) {
        Some(trouble) => Some(Condition::Failed {
            reason: crate::input::sentence(&trouble.error),
            failures: trouble.failures,
        }),
        None if reconciler.is_pending(router) => Some(Condition::Pending),
        None => None,
    };
    let now = failures(condition.as_ref());
    match condition.filter(|_| seen.mapping.has(router)) {
        Some(condition) => seen.conditions.insert(router, condition),
        None => seen.conditions.remove(&router),
    };
    match (before, now) {
        (_, Some(_)) if before != now => Some(Turn::Failed),
        (Some(_), None) => Some(Turn::Recovered),
        _ => None,
    }
}
