//! `run`: the agent in the foreground.

use std::path::{Path, PathBuf};

use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

use crate::{
    config::Config,
    engine::{Mapping, Policy, Refusal},
    footprint::{self, Footprint, FootprintError},
    kernel::{self, AgentId, Binding, Carrier, Instance, Nft, Pins, Usable},
    model::{Helper, Origin, RuleId},
    reconcile::{ApplyError, Host, Summary, apply},
    sources::{
        RuleSet, listed,
        rules_file::{self, RulesFileError},
    },
};

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
pub async fn run(config: &Config, rules: Option<&Path>) -> Result<(), RunError> {
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

    let footprint = Footprint::claim(config, agent)?;
    let mut agent = Agent {
        host: Host::new(config, agent, carrier, binding),
        policy,
        mapping: Mapping::default(),
    };
    match agent.take(&wanted) {
        Ok(summary) => agent.report("ready", summary),
        Err(error) => {
            if let Err(error) = footprint.abandon() {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "could not remove a folder"
                );
            }
            return Err(error);
        }
    }
    loop {
        tokio::select! {
            _ = hangup.recv() => agent.reload(rules),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    info!("stopping; the datapath stays as it is");
    Ok(())
}

/// A running agent.
struct Agent {
    host: Host,
    policy: Policy,
    mapping: Mapping,
}

impl Agent {
    fn reload(&mut self, rules: Option<&Path>) {
        let reloaded = read_rules(rules, &self.policy).and_then(|wanted| self.take(&wanted));
        match reloaded {
            Ok(summary) => self.report("reloaded", summary),
            Err(error) => error!(
                error = &error as &dyn std::error::Error,
                "reload refused; the rules stay as they were"
            ),
        }
    }

    /// Makes the rules file's rules these, in the mapping and in the kernel, or
    /// leaves both as they are.
    fn take(&mut self, wanted: &RuleSet) -> Result<Summary, RunError> {
        let batch = wanted.operations(&self.mapping, Origin::File, RuleId::random);
        let change = self
            .mapping
            .decide(&self.policy, Origin::File, &batch)
            .map_err(RunError::Refused)?;
        self.mapping.commit(&change);
        apply(&mut self.host, &self.mapping).map_err(|error| {
            self.mapping.commit(&change.inverse());
            RunError::Apply(Box::new(error))
        })
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
            effects = summary.effects,
            "{event}"
        );
    }
}

fn read_rules(rules: Option<&Path>, policy: &Policy) -> Result<RuleSet, RunError> {
    let Some(path) = rules else {
        return Ok(RuleSet::default());
    };
    Ok(rules_file::read(path, policy)?)
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
