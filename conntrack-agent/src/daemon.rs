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
    footprint::{self, Footprint, FootprintError},
    kernel::{self, AgentId, Binding, Carrier, Instance, Nft, Pins, Usable},
    model::{Helper, HelperRule, Origin, RuleId},
    reconcile::{ApplyError, Host, Reconciler, Summary, apply},
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
    /// What is pinned in its folder is another agent's.
    #[error(
        "the instances pinned in {} belong to agent {owner}, this is agent {agent}; \
         give each agent its own bpffs_dir and state_dir", bpffs_dir.display()
    )]
    Foreign {
        /// The folder.
        bpffs_dir: PathBuf,
        /// Whose they are.
        owner: AgentId,
        /// Who this is.
        agent: AgentId,
    },
    /// The kernel or nft is not as needed.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// A folder could not be had.
    #[error(transparent)]
    Footprint(#[from] FootprintError),
    /// The rules could not be applied; nothing of them is.
    #[error("the rules cannot be applied; nothing was changed")]
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
    // From the cheapest check to the dearest, and nothing made before the last.
    let policy = |present: Vec<Helper>| Policy::new(config.limits, present, config.allowed());
    read_rules(rules, &policy(Helper::all().collect()))?;
    require_capabilities()?;
    let agent = identify(config)?;
    let carrier = Carrier::mark(config.mark_mask).ok_or(kernel::Error::Missing("carrier"))?;
    let binding = Binding::probe(Nft::new(&config.nft), agent, carrier)?;
    let policy = policy(binding.helpers().to_vec());
    let wanted = read_rules(rules, &policy)?;

    let mut hangup = signal(SignalKind::hangup()).map_err(RunError::Signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signals)?;

    let mut footprint = Footprint::claim(config, agent)?;
    let host = Host::new(config, agent, carrier, binding);
    let started =
        Agent::start(config, &mut footprint, host, policy, rebuild).and_then(|mut agent| {
            let summary = agent.take(wanted.as_ref())?;
            Ok((agent, summary))
        });
    let (mut agent, summary) = match started {
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
        let retry = agent.reconciler.next_retry();
        tokio::select! {
            _ = pass.tick() => agent.look_around(),
            () = until(retry) => agent.retry(),
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
    /// With the mapping that the store holds.
    fn start(
        config: &Config,
        footprint: &mut Footprint,
        host: Host,
        policy: Policy,
        rebuild: Option<Rebuild>,
    ) -> Result<Self, RunError> {
        let folder = &config.state_dir;
        let is_first = !footprint.has_store() && host.rules_in_force()?.is_empty();
        let existed = Store::exists(folder);
        let (store, mapping) = match (existed, rebuild) {
            (true, None) => Store::open(folder)?,
            (true, Some(_)) => match Store::open(folder) {
                Ok(_) => return Err(RunError::NothingToRebuild(folder.join(store::NAME))),
                Err(error @ StoreError::Damaged { .. }) => {
                    warn!(%error, "rebuilding");
                    Self::rebuilt(folder, &host, rebuild)?
                }
                Err(error) => return Err(error.into()),
            },
            (false, None) if !is_first => Store::open(folder)?,
            (false, _) => Self::rebuilt(folder, &host, rebuild)?,
        };
        footprint.note_store(!existed)?;
        Ok(Self {
            host,
            policy,
            mapping,
            store,
            reconciler: Reconciler::default(),
        })
    }

    /// A new store: empty, or with the rules that are in force. Those become
    /// the API's, because nothing says whose they were.
    fn rebuilt(
        folder: &Path,
        host: &Host,
        rebuild: Option<Rebuild>,
    ) -> Result<(Store, Mapping), RunError> {
        let rules = match rebuild {
            Some(Rebuild::Pins) => host.rules_in_force()?,
            Some(Rebuild::Rules) | None => Vec::new(),
        };
        let entries = (0..).zip(rules).map(|(age, says)| Entry {
            rule: HelperRule {
                id: RuleId::random(),
                says,
                origin: Origin::Api,
            },
            age,
        });
        let mapping = Mapping::from_entries(entries).map_err(RunError::Inconsistent)?;
        Ok((Store::create(folder, &mapping)?, mapping))
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
        let applied = apply(&mut self.host, &self.mapping, &change.routers());
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

    fn retry(&mut self) {
        self.reconciler
            .retry(&mut self.host, &self.mapping, Instant::now());
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

/// Who this agent is: by its footprint; where that was lost, by what is pinned
/// in its folder; a new one where there is nothing.
fn identify(config: &Config) -> Result<AgentId, RunError> {
    let known = footprint::agent_id(config)?;
    let pins = Pins::new(&config.bpffs_dir);
    let mut agent = known;
    for router in pins.routers()? {
        let Usable::Whole(instance) = Instance::open(&pins.instance(router))? else {
            continue;
        };
        let owner = instance.owner();
        let agent = *agent.get_or_insert(owner);
        if owner != agent {
            return Err(RunError::Foreign {
                bpffs_dir: config.bpffs_dir.clone(),
                owner,
                agent,
            });
        }
    }
    if let (None, Some(agent)) = (known, agent) {
        warn!(%agent, "no footprint: taking the name that is pinned");
    }
    Ok(agent.unwrap_or_else(AgentId::random))
}
