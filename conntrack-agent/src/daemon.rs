//! `run`: the agent in the foreground.
//!
//! Its life: what needs many privileges is had on the one thread that there is
//! (`prepared`), all privileges but three are given up, the agent takes over what
//! it finds in the kernel, and requests are answered (`serving`) until a signal
//! (`signals`) ends it. The service manager is told (`notify`, `watchdog`).

mod error;
mod notify;
mod prepared;
mod serving;
mod signals;
mod watchdog;

use std::path::Path;

use tokio::runtime;
use tracing::{debug, info, warn};

pub use error::RunError;

use self::{
    notify::Notify,
    prepared::{Prepared, raise_descriptor_limit},
    signals::Signals,
};
use crate::{
    agent::{Agent, Rebuild, policy, read_rules},
    config::{Config, OnStop},
    host_state::HostState,
    input::sentence,
    kernel::{self, AgentId, Build, EventReader, Instance, Nft, Pins},
    model::Helper,
    teardown::remove_datapath,
};

/// Runs the daemon until SIGTERM or SIGINT; SIGHUP reads the rules file again.
///
/// Ending leaves the datapath as it is: connections go on getting their
/// helpers, and the next start takes it over; unless the configuration's
/// `on_stop` wants it removed.
///
/// Must be called on the process's only thread: capabilities are given up for this
/// thread and those that it starts.
///
/// # Errors
/// Returns [`RunError`] if it can't start; then it has changed nothing.
pub fn run(
    build: &Build,
    config: &Config,
    rules: Option<&Path>,
    rebuild: Option<Rebuild>,
) -> Result<(), RunError> {
    if !kernel::share_heaps() {
        debug!("heaps as the C library has them");
    }
    // Early, or a reload that comes then would end the agent.
    let signals = Signals::take().map_err(RunError::Signals)?;
    let mut notify = Notify::of_environment()?;
    let ended = live(build, config, rules, rebuild, signals, &mut notify);
    if let Err(error) = &ended {
        notify.status(&sentence(error));
    }
    ended
}

fn live(
    build: &Build,
    config: &Config,
    rules: Option<&Path>,
    rebuild: Option<Rebuild>,
    signals: Signals,
    notify: &mut Notify,
) -> Result<(), RunError> {
    // From the cheapest check to the dearest; nothing is made before the claim.
    let descriptors = raise_descriptor_limit();
    read_rules(rules, &policy(config, Helper::all().collect()))?;
    kernel::require_capabilities()?;
    Pins::of(build, &config.bpffs_dir).require_none_newer()?;
    let mut footprint = HostState::claim(config, || pinned_agent(config))?;
    let mut begin = || {
        let prepared = Prepared::of(config, descriptors)?;
        give_up_privileges()?;
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(RunError::Thread)?;
        let goes_on = || !signals.is_stop();
        let auditor = &prepared.auditor;
        let footprint = &mut footprint;
        // Before its programs have packets to tell of.
        let inherited = EventReader::inherited(&Pins::new(&config.bpffs_dir));
        let agent = Agent::start(build, config, footprint, auditor, rules, rebuild, &goes_on)?;
        Ok((agent, prepared, inherited, runtime))
    };
    let (agent, prepared, inherited, runtime) = match begin() {
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
    let id = footprint.agent();
    let signals = {
        let _in = runtime.enter();
        signals.wait().map_err(RunError::Signals)?
    };
    runtime.block_on(serving::answer(
        config, id, agent, prepared, inherited, signals, notify,
    ))?;
    drop(runtime);
    if config.on_stop == OnStop::Cleanup {
        let nft = Nft::new(&config.nft);
        let removed = remove_datapath(&nft, &config.bpffs_dir, &config.netns_dir, Some(id));
        info!("{}", removed.map_err(RunError::OnStop)?);
    }
    // Until here nobody else may have the folders.
    drop(footprint);
    Ok(())
}

/// Reduces the capabilities to those that the agent and nft need.
fn give_up_privileges() -> Result<(), RunError> {
    let is_bounded = kernel::reduce().map_err(RunError::Reduce)?;
    if !is_bounded {
        warn!(
            "the capability bounding set stays as it is, for want of CAP_SETPCAP; \
             no new privileges can be had all the same"
        );
    }
    Ok(())
}

/// Returns the id of the agent whose instances are in the agent's folder, which is its
/// own id where the record of it was lost; `None` if there are no instances.
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
