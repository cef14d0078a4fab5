//! Keeps routers reconciled: enqueues, retries with backoff, and records failures.
//!
//! A change brings only its own destinations to routers that were as they should
//! be, and these are looked at whole soon after: what is answered quickly is
//! still checked. One router's failure holds up no other: it is recorded,
//! logged, and retried after a delay that doubles each time. Time is an
//! argument.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use tracing::{info, warn};

use super::{ApplyError, Done, EffectTally, Kernel, Scope, apply};
use crate::{
    engine::{Change, Mapping},
    kernel::Error,
    model::RouterId,
};

/// The delay between a change of a part and the look at the whole router. Many
/// changes in this time share one look.
const LOOK_AFTER: Duration = Duration::from_millis(500);
/// The delay between two looks at a router that events come from.
const REST: Duration = Duration::from_millis(50);
/// The delay after the first failure.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The longest delay after a failure.
const LAST_RETRY: Duration = Duration::from_mins(1);

/// The trouble with a router.
#[derive(Debug)]
pub struct Trouble {
    /// The last error.
    pub error: ApplyError,
    /// The number of consecutive failures.
    pub failures: u32,
    /// The time of the next attempt.
    pub retry: Instant,
}

/// The result of a pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The number of routers that are what they should be, with rules or
    /// without.
    pub done: usize,
    /// The number of routers whose rules are in the kernel.
    pub active: usize,
    /// The number of routers with rules that have no namespace on this host.
    pub pending: usize,
    /// The number of routers that could not be made what they should be.
    pub failed: usize,
    /// The effects that were carried out; none if all was as it should be.
    pub effects: EffectTally,
}

/// The reconciler, with the routers that have to be looked at again and the
/// failures that were logged.
#[derive(Debug, Default)]
pub struct Reconciler {
    failures: BTreeMap<RouterId, Trouble>,
    pending: BTreeSet<RouterId>,
    /// The routers that were as they should be when they were last looked at
    /// whole, and without any event since.
    sound: BTreeSet<RouterId>,
    /// The times when routers have to be looked at.
    due: BTreeMap<RouterId, Instant>,
    /// The times when routers were last looked at.
    looked: BTreeMap<RouterId, Instant>,
}

impl Reconciler {
    /// Looks at every router that has a rule, or anything in the kernel.
    ///
    /// # Errors
    /// [`Error`] if the kernel can't tell which routers have anything.
    pub fn full_pass(
        &mut self,
        kernel: &mut impl Kernel,
        mapping: &Mapping,
        now: Instant,
    ) -> Result<Summary, Error> {
        self.full_pass_while(kernel, mapping, now, &|| true)
    }

    /// Does a full pass as long as `goes_on` says so, which is asked before each
    /// router.
    ///
    /// # Errors
    /// The same as those of [`Self::full_pass`].
    pub fn full_pass_while(
        &mut self,
        kernel: &mut impl Kernel,
        mapping: &Mapping,
        now: Instant,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<Summary, Error> {
        let routers = concerned(kernel, mapping)?;
        self.failures.retain(|router, _| routers.contains(router));
        Ok(self.each(kernel, mapping, &routers, now, goes_on))
    }

    /// Looks at the routers that are due.
    pub fn look(&mut self, kernel: &mut impl Kernel, mapping: &Mapping, now: Instant) -> Summary {
        let retries = self.failures.iter();
        let retries = retries.map(|(router, trouble)| (router, &trouble.retry));
        let due = retries.chain(&self.due).filter(|(_, time)| **time <= now);
        let due = due.map(|(router, _)| *router).collect();
        self.each(kernel, mapping, &due, now, &|| true)
    }

    /// Looks at the router that has been due longest, so that other work can
    /// come in between. Returns `None` if no router is due.
    pub fn reconcile_next(
        &mut self,
        kernel: &mut impl Kernel,
        mapping: &Mapping,
        now: Instant,
    ) -> Option<(RouterId, Summary)> {
        let retries = self.failures.iter();
        let retries = retries.map(|(router, trouble)| (trouble.retry, *router));
        let due = self.due.iter().map(|(router, time)| (*time, *router));
        let (time, router) = retries.chain(due).min()?;
        (time <= now).then(|| {
            let only = BTreeSet::from([router]);
            let summary = self.each(kernel, mapping, &only, now, &|| true);
            (router, summary)
        })
    }

    /// Makes every router due that has a rule, a namespace or anything in the
    /// kernel: a full pass, in as many steps.
    ///
    /// # Errors
    /// [`Error`] if the kernel can't tell which routers have anything.
    pub fn mark_all(
        &mut self,
        kernel: &impl Kernel,
        mapping: &Mapping,
        now: Instant,
    ) -> Result<(), Error> {
        let mut routers = concerned(kernel, mapping)?;
        routers.extend(kernel.present()?);
        self.failures.retain(|router, _| routers.contains(router));
        self.looked.retain(|router, _| routers.contains(router));
        for router in routers {
            // A router that fails has its own time.
            if !self.failures.contains_key(&router) {
                self.due.entry(router).or_insert(now);
            }
        }
        Ok(())
    }

    /// Returns whether the router's rules wait for a namespace.
    #[must_use]
    pub fn is_pending(&self, router: RouterId) -> bool {
        self.pending.contains(&router)
    }

    /// Returns when [`Self::look`] has something to do next, or `None` if
    /// nothing is wrong.
    #[must_use]
    pub fn next_look(&self) -> Option<Instant> {
        let retries = self.failures.values().map(|trouble| trouble.retry);
        retries.chain(self.due.values().copied()).min()
    }

    /// Brings a change of the mapping to the kernel, on all its routers or on
    /// none.
    ///
    /// # Errors
    /// [`ApplyError`] if a part of it was refused. Then all of it is undone, and
    /// its routers are looked at again when the mapping is restored too.
    pub fn change(
        &mut self,
        kernel: &mut impl Kernel,
        mapping: &Mapping,
        change: &Change,
        now: Instant,
    ) -> Result<Summary, ApplyError> {
        let mut scopes = BTreeMap::new();
        for target in change.matches() {
            let scope = scopes.entry(target.router).or_insert_with(|| {
                if self.sound.contains(&target.router) {
                    Scope::Part(BTreeSet::new())
                } else {
                    Scope::Whole
                }
            });
            if let Scope::Part(destinations) = scope {
                destinations.insert(target.destination());
            }
        }
        match apply(kernel, mapping, &scopes) {
            Ok(done) => {
                let mut summary = Summary::default();
                for (router, done) in done {
                    self.succeeded(router, done, mapping, now, &mut summary);
                }
                Ok(summary)
            }
            Err(error) => {
                for router in scopes.keys() {
                    self.enqueue_now(*router, now);
                }
                Err(error)
            }
        }
    }

    /// Makes this router due at once, as something has happened to it.
    pub fn enqueue_now(&mut self, router: RouterId, now: Instant) {
        self.sound.remove(&router);
        self.due.insert(router, now);
    }

    /// Makes this router due after an event. Many events share one look, and a
    /// router that fails isn't looked at for events that its own failures cause.
    pub fn enqueue(&mut self, router: RouterId, now: Instant) {
        self.sound.remove(&router);
        let failures = self.failures.get(&router);
        if failures.is_some_and(|trouble| trouble.failures > 1) {
            return;
        }
        let looked = self.looked.get(&router);
        let time = looked.map_or(now, |looked| now.max(*looked + REST));
        let due = self.due.entry(router).or_insert(time);
        *due = time.min(*due);
    }

    /// Makes all routers due that have a rule or anything in the kernel, after
    /// an event that could concern any of them.
    ///
    /// # Errors
    /// [`Error`] if the kernel can't tell which routers have anything.
    pub fn heard_of_all(
        &mut self,
        kernel: &impl Kernel,
        mapping: &Mapping,
        now: Instant,
    ) -> Result<(), Error> {
        for router in concerned(kernel, mapping)? {
            self.enqueue(router, now);
        }
        Ok(())
    }

    /// Returns the routers that are not what they should be.
    #[must_use]
    pub const fn failures(&self) -> &BTreeMap<RouterId, Trouble> {
        &self.failures
    }

    fn each(
        &mut self,
        kernel: &mut impl Kernel,
        mapping: &Mapping,
        routers: &BTreeSet<RouterId>,
        now: Instant,
        goes_on: &dyn Fn() -> bool,
    ) -> Summary {
        let mut summary = Summary::default();
        for router in routers.iter().take_while(|_| goes_on()) {
            self.due.remove(router);
            self.looked.insert(*router, now);
            let whole = BTreeMap::from([(*router, Scope::Whole)]);
            match apply(kernel, mapping, &whole) {
                Ok(done) => {
                    for (router, done) in done {
                        self.succeeded(router, done, mapping, now, &mut summary);
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

    fn succeeded(
        &mut self,
        router: RouterId,
        done: Done,
        mapping: &Mapping,
        now: Instant,
        summary: &mut Summary,
    ) {
        summary.done += 1;
        summary.effects += done.effects;
        if done.is_pending {
            summary.pending += 1;
            if self.pending.insert(router) {
                info!(%router, "no namespace on this host: its rules are pending");
            }
        } else {
            self.pending.remove(&router);
            summary.active += usize::from(mapping.has(router));
        }
        if self.failures.remove(&router).is_some() {
            info!(%router, "is as it should be again");
        }
        if done.is_partial {
            self.due.entry(router).or_insert(now + LOOK_AFTER);
        } else if done.is_pending || !mapping.has(router) {
            self.sound.remove(&router);
        } else {
            self.sound.insert(router);
        }
    }

    fn note(&mut self, router: RouterId, error: ApplyError, now: Instant) {
        let failures = self
            .failures
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
        self.sound.remove(&router);
        self.failures.insert(router, trouble);
    }
}

/// Returns the routers that have a rule, or anything in the kernel.
fn concerned(kernel: &impl Kernel, mapping: &Mapping) -> Result<BTreeSet<RouterId>, Error> {
    let mut routers = mapping.routers();
    routers.extend(kernel.routers()?);
    Ok(routers)
}

#[cfg(test)]
mod tests;
