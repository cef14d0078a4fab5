//! Limits the descriptors that watching may use.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};

use rustix::process::{Resource, getrlimit};
use tracing::warn;

/// A limit on descriptors, shared by all watches, so that some are left for the
/// agent's work and its connections.
#[derive(Debug)]
pub(super) struct Budget {
    limit: usize,
    used: AtomicUsize,
    refused: AtomicUsize,
    is_said: AtomicBool,
}

/// The number of descriptors that are left for everything else. Some 20 are
/// always open, and work on a router opens an instance's maps, its namespaces,
/// and the pipes of an nft at one time.
const FOR_WORK: usize = 48;

/// A permit to open descriptors, given back when it is dropped.
#[derive(Debug)]
pub(super) struct FdPermit {
    budget: Arc<Budget>,
    descriptors: usize,
}

impl Budget {
    /// Makes a budget of half of what the process may have open
    /// (`RLIMIT_NOFILE`), or less, so that the agent can go on working on one
    /// router after the other.
    pub(super) fn of_process() -> Arc<Self> {
        let limit = getrlimit(Resource::Nofile).current;
        let limit = limit.map_or(usize::MAX, |limit| {
            usize::try_from(limit).unwrap_or(usize::MAX)
        });
        Self::new(limit.saturating_sub(FOR_WORK).min(limit / 2))
    }

    fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            is_said: AtomicBool::new(false),
        })
    }

    /// Returns a permit for `descriptors` descriptors, or `None` if that would
    /// exceed the limit.
    pub(super) fn take(self: &Arc<Self>, descriptors: usize) -> Option<FdPermit> {
        let more = |used: usize| {
            used.checked_add(descriptors)
                .filter(|used| *used <= self.limit)
        };
        if self.used.fetch_update(Relaxed, Relaxed, more).is_err() {
            self.refused.fetch_add(descriptors, Relaxed);
            return None;
        }
        Some(FdPermit {
            budget: Arc::clone(self),
            descriptors,
        })
    }

    /// Logs once that there are too few descriptors, and what helps.
    pub(super) fn say(&self) {
        let refused = self.refused.swap(0, Relaxed);
        if refused > 0 && !self.is_said.swap(true, Relaxed) {
            warn!(
                missing = refused,
                allowed = self.limit,
                "too few descriptors to watch every router: some are looked at by the full pass \
                 alone; raise the limit of open files (LimitNOFILE) by twice what is missing"
            );
        }
    }
}

impl Drop for FdPermit {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.descriptors, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_allowed_and_what_is_given_back_again() {
        let budget = Budget::new(3);
        let two = budget.take(2).unwrap();
        assert!(budget.take(2).is_none());
        let _one = budget.take(1).unwrap();
        assert!(budget.take(1).is_none());
        drop(two);
        assert!(budget.take(2).is_some());
        assert_eq!(budget.refused.load(Relaxed), 3);
    }
}
