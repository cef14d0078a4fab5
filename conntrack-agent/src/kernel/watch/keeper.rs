//! Keeps pinned links open.
//!
//! For two reasons. A link that is detached by force (`bpftool link detach`)
//! tells nobody, so each has to be asked, and asking one that is open takes
//! under a microsecond. And an open link goes on running its program when its
//! pin, or the whole bpffs, is taken away, until it has been pinned again or another
//! runs in its place.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tracing::debug;

use super::{
    super::sys,
    budget::{Budget, Permit},
};
use crate::model::RouterId;

/// Open links, by router and pin.
#[derive(Debug)]
pub struct Keeper {
    pub(super) budget: Arc<Budget>,
    kept: Mutex<BTreeMap<RouterId, BTreeMap<PathBuf, Kept>>>,
}

#[derive(Debug)]
struct Kept {
    link: OwnedFd,
    _permit: Permit,
}

impl Keeper {
    /// One that keeps nothing yet. It takes at most half of the descriptors
    /// that the process may have now, with all that watches beside it.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            budget: Budget::of_process(),
            kept: Mutex::default(),
        })
    }

    /// Keeps the links that are pinned there, and no other of the router's.
    pub fn keep(&self, router: RouterId, pins: &[PathBuf]) {
        // Closed without the lock: that of the last one detaches a program.
        let old = self.lock().remove(&router);
        drop(old);
        let mut links = BTreeMap::new();
        for pin in pins {
            let Some(permit) = self.budget.take(1) else {
                break;
            };
            match sys::open_pinned(pin) {
                Ok(link) => {
                    let kept = Kept {
                        link,
                        _permit: permit,
                    };
                    links.insert(pin.clone(), kept);
                }
                // Gone since it was listed, or no link: nothing to keep, and
                // whoever removed it has been noticed.
                Err(error) => debug!(pin = %pin.display(), %error, "not kept open"),
            }
        }
        if !links.is_empty() {
            self.lock().insert(router, links);
        }
    }

    /// Lets go of a link, so that it ends with its pin.
    pub fn forget(&self, router: RouterId, pin: &Path) {
        let forgotten = self
            .lock()
            .get_mut(&router)
            .and_then(|links| links.remove(pin));
        drop(forgotten);
    }

    /// The routers with a link that is on no interface any more.
    pub(super) fn detached(&self) -> BTreeSet<RouterId> {
        let kept = self.lock();
        let is_detached = |kept: &Kept| {
            // A link that can't be asked is worth a look too.
            sys::link_interface(kept.link.as_fd()).map_or(true, |interface| interface == 0)
        };
        let some = kept
            .iter()
            .filter(|(_, links)| links.values().any(is_detached));
        some.map(|(router, _)| *router).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<RouterId, BTreeMap<PathBuf, Kept>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
