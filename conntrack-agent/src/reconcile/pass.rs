//! Keeps routers reconciled: enqueues, retries with backoff, and records failures.
//!
//! A change brings just its own destinations to routers that were as they should
//! be, and has them looked at whole soon after: what is answered quickly is
//! checked all the same. One router's failure holds up no other: it is noted,
//! said, and tried again after a while that doubles each time. Time is an
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

/// From a change of a part to the look at the whole. Many changes in this time
/// share one.
const LOOK_AFTER: Duration = Duration::from_millis(500);
/// From one look at a router that events come from to the next.
const REST: Duration = Duration::from_millis(50);
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
    /// Routers that are what they should be, with rules or without.
    pub done: usize,
    /// Routers whose rules are in the kernel.
    pub active: usize,
    /// Routers with rules that have no namespace on this host.
    pub pending: usize,
    /// Routers that could not be made what they should be.
    pub failed: usize,
    /// Effects that were carried out; none if all was as it should be.
    pub effects: EffectTally,
}

/// What is to be looked at again, and what was said already.
#[derive(Debug, Default)]
pub struct Reconciler {
    failures: BTreeMap<RouterId, Trouble>,
    pending: BTreeSet<RouterId>,
    /// Routers that were as they should be when they were last looked at whole,
    /// and of which nobody has heard anything since.
    sound: BTreeSet<RouterId>,
    /// When a router is to be looked at.
    due: BTreeMap<RouterId, Instant>,
    /// When a router was last looked at.
    looked: BTreeMap<RouterId, Instant>,
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
        self.full_pass_while(kernel, mapping, now, &|| true)
    }

    /// The same, as long as `goes_on` says so: asked before each router.
    ///
    /// # Errors
    /// As [`Self::full_pass`].
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

    /// Looks at the routers whose time has come.
    pub fn look(&mut self, kernel: &mut impl Kernel, mapping: &Mapping, now: Instant) -> Summary {
        let retries = self.failures.iter();
        let retries = retries.map(|(router, trouble)| (router, &trouble.retry));
        let due = retries.chain(&self.due).filter(|(_, time)| **time <= now);
        let due = due.map(|(router, _)| *router).collect();
        self.each(kernel, mapping, &due, now, &|| true)
    }

    /// Looks at one of the routers whose time has come, the one that has waited
    /// longest; none if there is none. So that other work can come in between.
    pub fn look_at_one(
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

    /// Every router that has a rule, a namespace or anything in the kernel is to
    /// be looked at: a full pass, in as many steps.
    ///
    /// # Errors
    /// [`Error`] if the kernel can't say which routers those are.
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
            // One that fails has its own time.
            if !self.failures.contains_key(&router) {
                self.due.entry(router).or_insert(now);
            }
        }
        Ok(())
    }

    /// Whether the router's rules wait for a namespace.
    #[must_use]
    pub fn is_pending(&self, router: RouterId) -> bool {
        self.pending.contains(&router)
    }

    /// When [`Self::look`] has something to do; none if nothing is wrong.
    #[must_use]
    pub fn next_look(&self) -> Option<Instant> {
        let retries = self.failures.values().map(|trouble| trouble.retry);
        retries.chain(self.due.values().copied()).min()
    }

    /// Brings a change that the mapping has to the kernel, on all its routers or
    /// on none.
    ///
    /// # Errors
    /// [`ApplyError`] if a part of it was refused; all of it is taken back, and
    /// its routers are looked at again when the mapping has gone back too.
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

    /// Something has happened to this router: it is to be looked at.
    pub fn enqueue_now(&mut self, router: RouterId, now: Instant) {
        self.sound.remove(&router);
        self.due.insert(router, now);
    }

    /// An event came from this router: it is to be looked at, not for each of
    /// many events, and one that fails not for events that its own failures
    /// cause.
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

    /// Something has happened, and nobody can tell to which of the routers that
    /// have a rule, or anything in the kernel.
    ///
    /// # Errors
    /// [`Error`] if the kernel can't say which have anything.
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

    /// The routers that are not what they should be.
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

/// The routers that have a rule, or anything in the kernel.
fn concerned(kernel: &impl Kernel, mapping: &Mapping) -> Result<BTreeSet<RouterId>, Error> {
    let mut routers = mapping.routers();
    routers.extend(kernel.routers()?);
    Ok(routers)
}

#[cfg(test)]
mod tests;
