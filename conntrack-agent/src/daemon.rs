//! `run`: the agent in the foreground.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tracing::{info, warn};

use crate::{
    agent::{Agent, policy, read_rules},
    api::{
        Access, AccessError, Api, ListenError, Listeners, Service, TokensError, routes, serve,
        tokens,
    },
    audit::{AuditError, Auditor},
    config::Config,
    engine::{Inconsistent, Refusal},
    footprint::{Footprint, FootprintError},
    kernel::{self, AgentId, Edition, Instance, Pins},
    model::Helper,
    reconcile::ApplyError,
    sources::{listed, rules_file::RulesFileError},
    store::StoreError,
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
    /// The agent's thread can't be started.
    #[error("no thread can be started")]
    Thread(#[source] std::io::Error),
    /// The kernel's events can't be had.
    #[error(transparent)]
    Watch(#[from] kernel::WatchError),
    /// A part of it has ended without being told to: a bug.
    #[error("{0} has ended unexpectedly")]
    Ended(&'static str),
    /// Nobody could be listened to.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The grants can't be read.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The tokens can't be had.
    #[error(transparent)]
    Tokens(#[from] TokensError),
    /// The audit trail can't be written.
    #[error(transparent)]
    Audit(#[from] AuditError),
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
    edition: &Edition,
    config: &Config,
    rules: Option<&Path>,
    rebuild: Option<Rebuild>,
) -> Result<(), RunError> {
    // First of all, or a reload that comes early would end the agent.
    let mut hangup = signal(SignalKind::hangup()).map_err(RunError::Signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signals)?;

    // From the cheapest check to the dearest; nothing is made before the claim.
    raise_descriptor_limit();
    read_rules(rules, &policy(config, Helper::all().collect()))?;
    require_capabilities()?;
    Pins::of(edition, &config.bpffs_dir).require_none_newer()?;
    let mut footprint = Footprint::claim(config, || pinned_agent(config))?;
    let started = begin(edition, config, &mut footprint, rules, rebuild).await;
    let (agent, listeners, service) = match started {
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
    let (handle, mut end) = agent.run().map_err(RunError::Thread)?;
    let api = Api::new(config, footprint.agent(), handle.clone());
    let service = Arc::new(service(routes(Arc::new(api))));
    let (stop, stopped) = watch::channel(false);
    let mut server = tokio::spawn(serve(listeners, service, stopped));
    info!("listening");
    let ended = loop {
        tokio::select! {
            _ = hangup.recv() => handle.reload(),
            _ = terminate.recv() => break Ok(()),
            _ = interrupt.recv() => break Ok(()),
            reason = &mut end => break Err(reason.unwrap_or(RunError::Ended("the agent"))),
            _ = &mut server => break Err(RunError::Ended("the server")),
        }
    };
    ended?;
    info!("stopping; the datapath stays as it is");
    // Nobody is let in any more, and who is in has an answer coming.
    stop.send_replace(true);
    server.await.map_err(|_| RunError::Ended("the server"))?;
    handle.stop();
    // What it is at is brought to its end.
    let _ = end.await;
    Ok(())
}

/// The agent, and what it listens on; what answers, when it has its routes.
async fn begin(
    edition: &Edition,
    config: &Config,
    footprint: &mut Footprint,
    rules: Option<&Path>,
    rebuild: Option<Rebuild>,
) -> Result<
    (
        Agent,
        Listeners,
        impl FnOnce(axum::Router) -> Service + use<>,
    ),
    RunError,
> {
    // A service that can't be had is said before anything is done.
    let access = Access::new(&config.grants)?;
    let tokens = config.tcp.as_ref();
    let tokens = tokens
        .map(|tcp| tokens::read(&tcp.token_file))
        .transpose()?;
    for name in config.grants.iter().flat_map(|grant| &grant.tokens) {
        if !tokens.as_ref().is_some_and(|tokens| tokens.has(name)) {
            warn!(
                token = name,
                "a grant is for a token that the token file doesn't have"
            );
        }
    }
    let auditor = Arc::new(Auditor::open(&config.audit, &config.state_dir)?);
    let limits = config.api.limits;
    let listeners = Listeners::bind(config).await?;
    let agent = Agent::start(edition, config, footprint, &auditor, rules, rebuild)?;
    let service = move |routes| Service::new(routes, access, tokens, auditor, limits);
    Ok((agent, listeners, service))
}

/// Each connection is a descriptor, and the customary limit is 1,024.
fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        warn!(%error, "the limit of open files stays as it is");
    }
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
    for pins in Pins::of_all_versions(&config.bpffs_dir)? {
        for router in pins.routers()? {
            if let Some(agent) = Instance::owner_of(&pins.instance(router)) {
                warn!(%agent, "no footprint: taking the name that is pinned");
                return Ok(Some(agent));
            }
        }
    }
    Ok(None)
}
