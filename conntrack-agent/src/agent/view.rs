//! Publishes the agent's accepted and applied state to readers on other threads; a change
//! that may yet be undone is never in it.

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

/// What keeps a router's rules from being in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It has no namespace on this host.
    Pending,
    /// It could not be made what it should be.
    Failed {
        /// Why not, with all causes.
        reason: String,
        /// How often in a row.
        failures: u32,
    },
}

/// What has become of a router's condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It has failed, once more or for the first time.
    Failed,
    /// It is what it should be, and had failed.
    Recovered,
}

/// Routers whose condition has turned.
pub(super) type Turns = Vec<(RouterId, Turn)>;

/// A moment of the agent.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The rules.
    pub mapping: Mapping,
    /// Routers whose rules are not in force.
    pub conditions: BTreeMap<RouterId, Condition>,
    /// What became of connections, by the rule that they met. Rules that none has
    /// met yet are not in it.
    pub connections: BTreeMap<RuleTarget, Connections>,
}

/// The agent, as others see it.
#[derive(Debug, Default)]
pub struct View {
    seen: RwLock<Snapshot>,
    changed: Notify,
}

impl View {
    /// The present moment, which stays while it is held: not for long.
    pub fn read(&self) -> RwLockReadGuard<'_, Snapshot> {
        self.seen.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for something that was not waited for yet, whatever it is.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn write(&self) -> RwLockWriteGuard<'_, Snapshot> {
        self.seen.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// All is as in this mapping.
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

    /// A change was made.
    pub(super) fn commit(&self, change: &Change, reconciler: &Reconciler) -> Turns {
        let mut seen = self.write();
        seen.mapping.commit(change);
        let mut routers = BTreeSet::new();
        for target in change.matches() {
            routers.insert(target.router);
            // A rule that comes again begins anew.
            seen.connections.remove(&target);
        }
        let turns = note_all(&mut seen, routers, reconciler);
        drop(seen);
        self.changed.notify_one();
        turns
    }

    /// What became of a connection. Returns whether there still is the rule that
    /// it met; otherwise it is not counted.
    pub fn met(&self, target: RuleTarget, family: AddressFamily, fate: &HelperOutcome) -> bool {
        let mut seen = self.write();
        let winner = seen.mapping.winner(target.router, target.destination());
        if winner != Some(target.helper) {
            return false;
        }
        let connections = seen.connections.entry(target).or_default();
        connections.add(family, fate, Instant::now());
        true
    }

    /// A router was looked at.
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
