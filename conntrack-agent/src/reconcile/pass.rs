//! Keeps the kernel what the mapping says, router by router.
//!
//! One router's failure holds up no other: it is noted, said, and tried again
//! after a while that doubles each time. Time is an argument.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use tracing::{info, warn};

use super::{ApplyError, Kernel, apply};
use crate::{engine::Mapping, kernel::Error, model::RouterId};

/// After the first failure.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// At the most.
const LAST_RETRY: Duration = Duration::from_mins(1);

/// What is wrong with a router.
#[derive(Debug)]
pub struct Trouble {
    /// What happened last.
    pub error: ApplyError,
    /// How often in a row.
    pub failures: u32,
    /// When it is tried again.
    pub retry: Instant,
}

/// What a pass found and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Routers whose rules are in the kernel.
    pub active: usize,
    /// Routers with rules that have no namespace on this host.
    pub pending: usize,
    /// Routers that could not be made what they should be.
    pub failed: usize,
    /// Effects that were carried out; none if all was as it should be.
    pub effects: usize,
}

/// What is to be looked at again, and what was said already.
#[derive(Debug, Default)]
pub struct Reconciler {
    troubles: BTreeMap<RouterId, Trouble>,
    pending: BTreeSet<RouterId>,
}

impl Reconciler {
    /// Looks at every router that has a rule, or anything in the kernel.
    ///
    /// # Errors
    /// [`Error`] if the kernel can't say which routers those are.
    pub fn full_pass(
        &mut self,
        kernel: &mut impl Kernel,
        mapping: &Mapping,
        now: Instant,
    ) -> Result<Summary, Error> {
        let mut routers = mapping.routers();
        routers.extend(kernel.routers()?);
        self.troubles.retain(|router, _| routers.contains(router));
        Ok(self.each(kernel, mapping, &routers, now))
    }

    /// Looks again at the routers whose time has come.
    pub fn retry(&mut self, kernel: &mut impl Kernel, mapping: &Mapping, now: Instant) -> Summary {
        let due = self
            .troubles
            .iter()
            .filter(|(_, trouble)| trouble.retry <= now);
        let due = due.map(|(router, _)| *router).collect();
        self.each(kernel, mapping, &due, now)
    }

    /// When [`Self::retry`] has something to do; none if nothing is wrong.
    #[must_use]
    pub fn next_retry(&self) -> Option<Instant> {
        self.troubles.values().map(|trouble| trouble.retry).min()
    }

    /// The routers that are not what they should be.
    #[must_use]
    pub const fn troubles(&self) -> &BTreeMap<RouterId, Trouble> {
        &self.troubles
    }

    fn each(
        &mut self,
        kernel: &mut impl Kernel,
        mapping: &Mapping,
        routers: &BTreeSet<RouterId>,
        now: Instant,
    ) -> Summary {
        let mut summary = Summary::default();
        for router in routers {
            match apply(kernel, mapping, &BTreeSet::from([*router])) {
                Ok(done) => {
                    summary.effects += done.effects;
                    if done.is_pending {
                        summary.pending += 1;
                        if self.pending.insert(*router) {
                            info!(%router, "no namespace on this host: its rules are pending");
                        }
                    } else {
                        self.pending.remove(router);
                        summary.active += usize::from(mapping.has(*router));
                    }
                    if self.troubles.remove(router).is_some() {
                        info!(%router, "is as it should be again");
                    }
                }
                Err(error) => {
                    summary.failed += 1;
                    self.note(*router, error, now);
                }
            }
        }
        summary
    }

    fn note(&mut self, router: RouterId, error: ApplyError, now: Instant) {
        let failures = self
            .troubles
            .get(&router)
            .map_or(0, |trouble| trouble.failures)
            + 1;
        let doublings = (failures - 1).min(16);
        let wait = FIRST_RETRY.saturating_mul(1 << doublings).min(LAST_RETRY);
        warn!(%router, failures, retry_in = ?wait, error = &error as &dyn std::error::Error,
            "is not as it should be");
        let trouble = Trouble {
            error,
            failures,
            retry: now + wait,
        };
        self.troubles.insert(router, trouble);
    }
}
