//! What others may read of the agent while it works: what was accepted and
//! applied, never a change that may yet be taken back.

use std::{
    collections::BTreeMap,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use tokio::sync::Notify;

use crate::{
    engine::{Change, Mapping},
    model::RouterId,
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

/// A moment of the agent.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The rules.
    pub mapping: Mapping,
    /// Routers whose rules are not in force.
    pub conditions: BTreeMap<RouterId, Condition>,
}

/// The agent, as others see it.
#[derive(Debug, Default)]
pub struct View {
    seen: RwLock<Seen>,
    changed: Notify,
}

impl View {
    /// The present moment, which stays while it is held: not for long.
    pub fn read(&self) -> RwLockReadGuard<'_, Seen> {
        self.seen.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for something that was not waited for yet, whatever it is.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn write(&self) -> RwLockWriteGuard<'_, Seen> {
        self.seen.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// All is as in this mapping.
    pub(super) fn begin(&self, mapping: &Mapping, reconciler: &Reconciler) {
        let mut seen = Seen {
            mapping: mapping.clone(),
            conditions: BTreeMap::new(),
        };
        for router in mapping.routers() {
            note(&mut seen, router, reconciler);
        }
        *self.write() = seen;
        self.changed.notify_one();
    }

    /// A change was made.
    pub(super) fn commit(&self, change: &Change, reconciler: &Reconciler) {
        let mut seen = self.write();
        seen.mapping.commit(change);
        for says in change.matches() {
            note(&mut seen, says.router, reconciler);
        }
        drop(seen);
        self.changed.notify_one();
    }

    /// A router was looked at.
    pub(super) fn note(&self, router: RouterId, reconciler: &Reconciler) {
        note(&mut self.write(), router, reconciler);
        self.changed.notify_one();
    }
}

fn note(seen: &mut Seen, router: RouterId, reconciler: &Reconciler) {
    let condition = match reconciler.troubles().get(&router) {
        Some(trouble) => Some(Condition::Failed {
            reason: crate::input::sentence(&trouble.error),
            failures: trouble.failures,
        }),
        None if reconciler.is_pending(router) => Some(Condition::Pending),
        None => None,
    };
    match condition.filter(|_| seen.mapping.has(router)) {
        Some(condition) => seen.conditions.insert(router, condition),
        None => seen.conditions.remove(&router),
    };
}
