//! `run`: the agent in the foreground.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval, sleep_until},
};
use tracing::{error, info, warn};

use crate::{
    config::Config,
    engine::{Change, Entry, Inconsistent, Mapping, Policy, Refusal},
    footprint::{Footprint, FootprintError},
    kernel::{self, AgentId, Binding, Carrier, Instance, Nft, Pins},
    model::{Helper, HelperRule, Origin, RuleId},
    reconcile::{ApplyError, Host, Reconciler, Summary},
    sources::{
        RuleSet, listed,
        rules_file::{self, RulesFileError},
    },
    store::{self, Store, StoreError},
};

/// What a store that was lost is made again from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Rebuild {
    /// The rules that are in force, as the pinned port tables have them.
    Pins,
    /// The rules file alone.
    Rules,
}

/// Why the agent did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The rules file was refused.
    #[error(transparent)]
    Rules(#[from] RulesFileError),
    /// It may not do what it has to.
    #[error("the agent lacks {}", list(.0))]
    Capabilities(Vec<kernel::Missing>),
    /// Its own capabilities could not be read.
    #[error("the agent's capabilities cannot be read")]
    Unknown(#[source] std::io::Error),
    /// The kernel or nft is not as needed.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// A folder could not be had.
    #[error(transparent)]
    Footprint(#[from] FootprintError),
    /// A change of the rules could not be applied; it was taken back.
    #[error("the rules cannot be applied; those in force stay")]
    Apply(#[source] Box<ApplyError>),
    /// The mapping can't become what the rules file says.
    #[error("the rules are refused:{}", listed(.0))]
    Refused(Vec<Refusal>),
    /// The store can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is a good store.
    #[error("the store {} is good; there is nothing to rebuild", .0.display())]
    NothingToRebuild(PathBuf),
    /// There is no rules file to rebuild from.
    #[error("--rebuild rules needs the rules file: give --rules FILE too")]
    NoRulesFile,
    /// What is pinned is no mapping: a bug.
    #[error("the rules in force make no mapping")]
    Inconsistent(#[source] Inconsistent),
    /// Signals can't be received.
    #[error("signals cannot be received")]
    Signals(#[source] std::io::Error),
}

fn list(missing: &[kernel::Missing]) -> String {
    let needs = missing
        .iter()
        .map(|missing| format!("{} (to {})", missing.name, missing.needed_for));
    needs.collect::<Vec<_>>().join(" and ")
}

/// Runs until SIGTERM or SIGINT; SIGHUP reads the rules file again.
///
/// Ending leaves the datapath as it is: connections go on getting their
/// helpers, and the next start takes it over.
///
/// # Errors
/// [`RunError`] if it can't start; then it has changed nothing.
pub async fn run(
    config: &Config,
    rules: Option<&Path>,
    rebuild: Option<Rebuild>,
) -> Result<(), RunError> {
    // First of all, or a reload that comes early would end the agent.
    let mut hangup = signal(SignalKind::hangup()).map_err(RunError::Signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signals)?;

    // From the cheapest check to the dearest; nothing is made before the claim.
    read_rules(rules, &policy(config, Helper::all().collect()))?;
    require_capabilities()?;
    let mut footprint = Footprint::claim(config, || pinned_agent(config))?;
    let (mut agent, summary) = match Agent::start(config, &mut footprint, rules, rebuild) {
        Ok(started) => started,
        Err(error) => {
            if let Err(error) = footprint.abandon() {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "could not remove what the start had made"
                );
            }
            return Err(error);
        }
    };
    agent.report("ready", summary);
    let mut pass = interval(config.full_pass());
    pass.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is at once; that pass has just been made.
    pass.tick().await;
    loop {
        let look = agent.reconciler.next_look();
        tokio::select! {
            _ = pass.tick() => agent.look_around(),
            () = until(look) => agent.look(),
            _ = hangup.recv() => agent.reload(rules),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    info!("stopping; the datapath stays as it is");
    Ok(())
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

/// A running agent.
struct Agent {
    host: Host,
    policy: Policy,
    mapping: Mapping,
    store: Store,
    reconciler: Reconciler,
}

impl Agent {
    /// With the mapping that the store holds, and what the rules file makes of it.
    fn start(
        config: &Config,
        footprint: &mut Footprint,
        rules: Option<&Path>,
        rebuild: Option<Rebuild>,
    ) -> Result<(Self, Summary), RunError> {
        let id = footprint.agent();
        let carrier = Carrier::mark(config.mark_mask).ok_or(kernel::Error::Missing("carrier"))?;
        let binding = Binding::probe(Nft::new(&config.nft), id, carrier)?;
        let policy = policy(config, binding.helpers().to_vec());
        let wanted = read_rules(rules, &policy)?;
        let host = Host::new(config, id, carrier, binding);
        let from = match rebuild {
            None => None,
            Some(Rebuild::Pins) => Some(Self::mapping_in_force(&host)?),
            // Whole before the store is made: an empty one, or one that an agent
            // which dies now leaves behind, would take all rules away.
            Some(Rebuild::Rules) => {
                let wanted = wanted.as_ref().ok_or(RunError::NoRulesFile)?;
                Some(Self::mapping_of(wanted, &policy)?)
            }
        };
        let (store, mapping) = Self::open_store(config, footprint, &host, from)?;
        let mut agent = Self {
            host,
            policy,
            mapping,
            store,
            reconciler: Reconciler::default(),
        };
        let summary = agent.take(wanted.as_ref())?;
        Ok((agent, summary))
    }

    /// The store that is there; or one made of `rebuild` in the place of one
    /// that was lost; or a first one.
    fn open_store(
        config: &Config,
        footprint: &mut Footprint,
        host: &Host,
        rebuild: Option<Mapping>,
    ) -> Result<(Store, Mapping), RunError> {
        let folder = &config.state_dir;
        let make = |mapping: Mapping| -> Result<_, RunError> {
            Ok((Store::create(folder, &mapping)?, mapping))
        };
        let mut is_new = true;
        let opened = match (Store::exists(folder), rebuild) {
            (true, None) => {
                is_new = false;
                Store::open(folder)?
            }
            (true, Some(mapping)) => match Store::open(folder) {
                Ok(_) => return Err(RunError::NothingToRebuild(folder.join(store::NAME))),
                Err(error @ StoreError::Damaged { .. }) => {
                    warn!(%error, "rebuilding");
                    make(mapping)?
                }
                Err(error) => return Err(error.into()),
            },
            (false, Some(mapping)) => make(mapping)?,
            (false, None) if footprint.has_store() || !host.rules_in_force()?.is_empty() => {
                Store::open(folder)?
            }
            (false, None) => make(Mapping::default())?,
        };
        footprint.note_store(is_new)?;
        Ok(opened)
    }

    /// The rules that are in force become the API's, because nothing says whose
    /// they were.
    fn mapping_in_force(host: &Host) -> Result<Mapping, RunError> {
        let entries = (0..).zip(host.rules_in_force()?).map(|(age, says)| Entry {
            rule: HelperRule {
                id: RuleId::random(),
                says,
                origin: Origin::Api,
            },
            age,
        });
        Mapping::from_entries(entries).map_err(RunError::Inconsistent)
    }

    fn mapping_of(wanted: &RuleSet, policy: &Policy) -> Result<Mapping, RunError> {
        let mut mapping = Mapping::default();
        let batch = wanted.operations(&mapping, Origin::File, RuleId::random);
        let change = mapping.decide(policy, Origin::File, &batch);
        mapping.commit(&change.map_err(RunError::Refused)?);
        Ok(mapping)
    }

    fn reload(&mut self, rules: Option<&Path>) {
        let reloaded =
            read_rules(rules, &self.policy).and_then(|wanted| self.take(wanted.as_ref()));
        match reloaded {
            Ok(summary) => self.report("reloaded", summary),
            Err(error) => error!(
                error = &error as &dyn std::error::Error,
                "reload refused; the rules stay as they were"
            ),
        }
    }

    /// Makes the rules file's rules these, durably and in the kernel, or leaves
    /// everything as it is. Without a rules file its rules stay as they are.
    fn take(&mut self, wanted: Option<&RuleSet>) -> Result<Summary, RunError> {
        let batch = wanted.map_or_else(Vec::new, |wanted| {
            wanted.operations(&self.mapping, Origin::File, RuleId::random)
        });
        let change = self
            .mapping
            .decide(&self.policy, Origin::File, &batch)
            .map_err(RunError::Refused)?;
        if !change.is_empty() {
            self.change(change)?;
        }
        Ok(self
            .reconciler
            .full_pass(&mut self.host, &self.mapping, Instant::now())?)
    }

    /// Makes one change, durably and in the kernel, or not at all.
    fn change(&mut self, change: Change) -> Result<(), RunError> {
        self.store.commit(&self.mapping, &change)?;
        self.mapping.commit(&change);
        let now = Instant::now();
        let (host, mapping) = (&mut self.host, &self.mapping);
        let applied = self.reconciler.change(host, mapping, &change, now);
        applied.map(|_| ()).map_err(|error| {
            let back = change.inverse();
            if let Err(error) = self.store.commit(&self.mapping, &back) {
                error!(
                    error = &error as &dyn std::error::Error,
                    "the store could not be put back yet; it will be before the next change"
                );
            }
            self.mapping.commit(&back);
            RunError::Apply(Box::new(error))
        })
    }

    /// The slow pass that finds what no event told.
    fn look_around(&mut self) {
        let now = Instant::now();
        match self
            .reconciler
            .full_pass(&mut self.host, &self.mapping, now)
        {
            Ok(summary) if summary.effects > 0 => self.report("repaired", summary),
            Ok(_) => {}
            Err(error) => error!(
                error = &error as &dyn std::error::Error,
                "the kernel could not be examined"
            ),
        }
    }

    /// At the routers whose time has come.
    fn look(&mut self) {
        let now = Instant::now();
        let summary = self.reconciler.look(&mut self.host, &self.mapping, now);
        if summary.effects > 0 {
            self.report("repaired", summary);
        }
    }

    fn report(&self, event: &'static str, summary: Summary) {
        for entry in self.mapping.entries() {
            if self.mapping.is_shadowed(entry) {
                let says = entry.rule.says;
                warn!(router = %says.router, rule = %says, "shadowed: an older rule has this port");
            }
        }
        info!(
            rules = self.mapping.len(),
            routers = summary.active,
            pending = summary.pending,
            failed = summary.failed,
            effects = summary.effects,
            "{event}"
        );
    }
}

fn policy(config: &Config, present: Vec<Helper>) -> Policy {
    Policy::new(config.limits, present, config.allowed())
}

fn read_rules(rules: Option<&Path>, policy: &Policy) -> Result<Option<RuleSet>, RunError> {
    Ok(rules
        .map(|path| rules_file::read(path, policy))
        .transpose()?)
}

/// That the agent may do what it has to.
///
/// # Errors
/// [`RunError::Capabilities`] if not.
pub fn require_capabilities() -> Result<(), RunError> {
    let missing = kernel::missing().map_err(RunError::Unknown)?;
    if missing.is_empty() {
        Ok(())
    } else {
        Err(RunError::Capabilities(missing))
    }
}

/// Whose the instances in the agent's folder are: its own name, where its
/// footprint was lost. None if there are none.
fn pinned_agent(config: &Config) -> Result<Option<AgentId>, RunError> {
    let pins = Pins::new(&config.bpffs_dir);
    for router in pins.routers()? {
        if let Some(agent) = Instance::owner_of(&pins.instance(router)) {
            warn!(%agent, "no footprint: taking the name that is pinned");
            return Ok(Some(agent));
        }
    }
    Ok(None)
}
