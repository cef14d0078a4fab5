//! The agent: it owns mapping, store and kernel state, and changes them one step after
//! the other. It works on a thread of its own; other threads send it requests through a
//! [`Handle`], and read its [`View`] meanwhile.

mod connections;
mod error;
mod start;
mod view;
mod worker;

use std::{
    collections::{BTreeSet, VecDeque},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::{debug, error, info, warn};

pub use connections::{AddressFamily, Connections, HelperOutcome};
pub use error::AgentError;
pub use view::{Condition, Snapshot, View};
use view::{Turn, Turns};
pub use worker::{Applied, Handle, Rejection, Request};

use crate::{
    access::Principal,
    audit::{AuditRecord, Auditor, Outcome, RequestId, RequestOperation},
    config::Config,
    engine::{Change, Entry, Mapping, Policy},
    event_log::{Event, EventLog},
    heartbeat::Heartbeat,
    host_state::Bpffs,
    input::sentence,
    kernel::{DirtyRouters, Watch},
    metrics::{Metrics, Occasion},
    model::{Helper, HelperRule, Origin, RouterId, RuleId},
    reconcile::{Host, Reconciler, Summary},
    sources::{RuleSet, rules_file},
    store::Store,
};

/// The source from which a lost store is rebuilt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Rebuild {
    /// The rules that are in force, as the pinned port tables have them.
    Pins,
    /// The rules file alone.
    Rules,
}

/// A running agent.
pub(crate) struct Agent {
    host: Host,
    policy: Policy,
    mapping: Mapping,
    store: Store,
    reconciler: Reconciler,
    view: Arc<View>,
    auditor: Arc<Auditor>,
    metrics: Arc<Metrics>,
    event_log: Arc<EventLog>,
    rules: Option<PathBuf>,
    full_pass: Duration,
    bpffs: Bpffs,
    watch: Watch,
    /// The routers that the start gave tc filters, and that are to get links.
    relinking: VecDeque<RouterId>,
    /// The routers whose turn has come and that were not reconciled yet.
    relinked: BTreeSet<RouterId>,
    heartbeat: Heartbeat,
}

impl Agent {
    /// Reads the rules file again, and returns the reason if it was refused.
    fn reload(&mut self, goes_on: &dyn Fn() -> bool) -> Result<(), String> {
        let wanted = read_rules(self.rules.as_deref(), &self.policy);
        match wanted.and_then(|wanted| self.take(wanted.as_ref(), goes_on)) {
            Ok(summary) => {
                self.tell(self.view.begin(&self.mapping, &self.reconciler));
                self.report("reloaded", summary);
                Ok(())
            }
            Err(error) => {
                error!(
                    error = &error as &dyn std::error::Error,
                    "reload refused; the rules stay as they were"
                );
                Err(sentence(&error))
            }
        }
    }

    /// Replaces the rules file's rules with these, durably and in the kernel, or leaves
    /// everything as it is. Without a rules file, its rules stay as they are.
    fn take(
        &mut self,
        wanted: Option<&RuleSet>,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<Summary, AgentError> {
        if let Some(wanted) = wanted {
            let begun = Instant::now();
            let made = self.make(wanted);
            self.record(&made, begun);
            made?;
        }
        let now = Instant::now();
        let (host, mapping) = (&mut self.host, &self.mapping);
        let pass = self.reconciler.full_pass_while(host, mapping, now, goes_on);
        let summary = pass?;
        self.metrics.looked(&summary, Occasion::Wanted);
        for router in self.mapping.routers() {
            self.watch.follow(router);
        }
        Ok(summary)
    }

    fn make(&mut self, wanted: &RuleSet) -> Result<Change, AgentError> {
        let batch = wanted.operations(&self.mapping, Origin::File, RuleId::random);
        let change = self
            .mapping
            .decide(&self.policy, Origin::File, &batch)
            .map_err(AgentError::Refused)?;
        if !change.is_empty() {
            self.change(change.clone())?;
        }
        Ok(change)
    }

    /// Into the audit trail, as a request's change would be.
    fn record(&self, made: &Result<Change, AgentError>, begun: Instant) {
        let rules = |entries: &[Entry]| entries.iter().map(|entry| entry.rule).collect();
        let (before, after, outcome) = match made {
            Ok(change) if change.is_empty() => return,
            Ok(change) => (
                rules(change.removed()),
                rules(change.added()),
                Outcome::Done,
            ),
            Err(error @ AgentError::Refused(_)) => {
                (Vec::new(), Vec::new(), Outcome::Refused(sentence(error)))
            }
            Err(error) => (Vec::new(), Vec::new(), Outcome::Failed(sentence(error))),
        };
        let changed: &[HelperRule] = &[before.as_slice(), after.as_slice()].concat();
        let routers: BTreeSet<_> = changed.iter().map(|rule| rule.target.router).collect();
        let record = AuditRecord {
            request: RequestId::random(),
            peer: Principal::RulesFile,
            operation: RequestOperation::RulesFile,
            routers: routers.into_iter().collect(),
            before,
            after,
            outcome,
            took: begun.elapsed(),
        };
        self.auditor.record(&record);
        let event = Event::change(&record);
        self.event_log.note(event, record.routers);
    }

    /// Makes one change, durably and in the kernel, or not at all.
    fn change(&mut self, change: Change) -> Result<(), AgentError> {
        self.bpffs.ensure()?;
        let stored = self.store.commit(&self.mapping, &change);
        self.metrics.committed(stored.is_ok());
        stored?;
        self.mapping.commit(&change);
        let now = Instant::now();
        let (host, mapping) = (&mut self.host, &self.mapping);
        let applied = self.reconciler.change(host, mapping, &change, now);
        match applied {
            Ok(summary) => {
                self.metrics.looked(&summary, Occasion::Wanted);
                self.tell(self.view.commit(&change, &self.reconciler));
                for target in change.matches() {
                    self.keep_watching(target.router);
                }
                Ok(())
            }
            Err(error) => {
                let failed = Summary {
                    failed: 1,
                    ..Summary::default()
                };
                self.metrics.looked(&failed, Occasion::Wanted);
                let back = change.inverse();
                let stored = self.store.commit(&self.mapping, &back);
                self.metrics.committed(stored.is_ok());
                if let Err(error) = stored {
                    error!(
                        error = &error as &dyn std::error::Error,
                        "the store could not be put back yet; it will be before the next change"
                    );
                }
                self.mapping.commit(&back);
                Err(AgentError::Apply(Box::new(error)))
            }
        }
    }

    /// Queues the routers that the kernel's events mark for reconciliation.
    fn hear(&mut self, news: &DirtyRouters) {
        let now = Instant::now();
        for router in &news.routers {
            self.reconciler.enqueue(*router, now);
        }
        if news.everything {
            self.have_bpffs();
            let (host, mapping) = (&self.host, &self.mapping);
            if let Err(error) = self.reconciler.heard_of_all(host, mapping, now) {
                error!(
                    error = &error as &dyn std::error::Error,
                    "the kernel could not be examined"
                );
            }
        }
    }

    /// Mounts the bpffs if it is missing. Without one, every router fails with an error,
    /// and is tried again.
    fn have_bpffs(&self) {
        match self.bpffs.ensure() {
            Ok(false) => {}
            Ok(true) => warn!("the bpffs was unmounted; it is mounted again"),
            Err(error) => error!(
                error = &error as &dyn std::error::Error,
                "there is no bpffs any more"
            ),
        }
    }

    /// Watches the router if it has rules or a failure, and stops watching it otherwise:
    /// then it has nothing, and is to have nothing.
    fn keep_watching(&self, router: RouterId) {
        if self.mapping.has(router) || self.reconciler.failures().contains_key(&router) {
            self.watch.follow(router);
        } else {
            self.watch.leave(router);
        }
    }

    /// Queues every router, for changes that no event reported.
    fn enqueue_all(&mut self) {
        self.have_bpffs();
        let due = self
            .reconciler
            .mark_all(&self.host, &self.mapping, Instant::now());
        if let Err(error) = due {
            error!(
                error = &error as &dyn std::error::Error,
                "the kernel could not be examined"
            );
        }
    }

    /// Queues the next router that has tc filters and is to get links.
    fn relink_next(&mut self) {
        if let Some(router) = self.relinking.pop_front() {
            self.host.turn_of(router);
            self.reconciler.enqueue_now(router, Instant::now());
            self.relinked.insert(router);
        }
    }

    /// Reconciles one of the routers that are due.
    fn look(&mut self) {
        let (host, mapping) = (&mut self.host, &self.mapping);
        let looked = self
            .reconciler
            .reconcile_next(host, mapping, Instant::now());
        if let Some((router, summary)) = looked {
            // Relinking completes a start, and is no repair.
            let is_planned = self.relinked.remove(&router);
            let occasion = if is_planned {
                Occasion::Wanted
            } else {
                Occasion::Unasked
            };
            self.metrics.looked(&summary, occasion);
            if !is_planned && summary.failed == 0 && summary.effects.total() > 0 {
                let repair = Event::repair(router, &summary.effects);
                self.event_log.note(repair, vec![router]);
            }
            self.tell(self.view.note(router, &self.reconciler));
            self.keep_watching(router);
            let effects = summary.effects.total();
            debug!(%router, effects, "looked at");
            if effects > 0 && summary.failed == 0 && !is_planned {
                info!(%router, effects, "repaired");
            }
        }
    }

    /// Logs an event for each router that has failed or recovered.
    fn tell(&self, turns: Turns) {
        for (router, turn) in turns {
            let router_id = router.to_string();
            let event = match (turn, self.reconciler.failures().get(&router)) {
                (Turn::Failed, Some(trouble)) => Event::Failure {
                    router_id,
                    reason: sentence(&trouble.error),
                    failures: trouble.failures,
                },
                _ => Event::Recovery { router_id },
            };
            self.event_log.note(event, vec![router]);
        }
    }

    fn report(&self, event: &'static str, summary: Summary) {
        for entry in self.mapping.entries() {
            if self.mapping.is_shadowed(entry) {
                let target = entry.rule.target;
                warn!(router = %target.router, rule = %target, "shadowed: an older rule has this port");
            }
        }
        info!(
            rules = self.mapping.len(),
            routers = summary.active,
            pending = summary.pending,
            failed = summary.failed,
            effects = summary.effects.total(),
            "{event}"
        );
    }
}

pub(crate) fn policy(config: &Config, present: Vec<Helper>) -> Policy {
    Policy::new(config.limits, present, config.allowed_helpers.clone())
}

pub(crate) fn read_rules(
    rules: Option<&Path>,
    policy: &Policy,
) -> Result<Option<RuleSet>, AgentError> {
    Ok(rules
        .map(|path| rules_file::read(path, policy))
        .transpose()?)
}
