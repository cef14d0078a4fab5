//! `cleanup`: removes everything that the agent ever made.

use std::fmt;

use tracing::warn;

use crate::{
    config::Config,
    daemon::{RunError, require_capabilities},
    footprint::{self, FootprintError},
    kernel::{self, AgentId, Instance, NetnsFolder, Nft, Pins, Usable, detach, remove_binding_of},
    model::RouterId,
};

/// Why something may be left.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// It may not do what it has to.
    #[error(transparent)]
    NotPermitted(#[from] RunError),
    /// An agent is running, or its folders can't be had.
    #[error(transparent)]
    Footprint(#[from] FootprintError),
    /// The kernel or nft refused.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    links: usize,
    instances: usize,
    bindings: usize,
}

impl fmt::Display for Removed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            links,
            instances,
            bindings,
        } = self;
        write!(
            formatter,
            "removed {links} links, {instances} instances, {bindings} bindings"
        )
    }
}

/// Removes links, then bindings, then instances, then files: at no moment does
/// a classifier run without its binding.
///
/// # Errors
/// [`CleanupError`] if something could not be removed; calling it again goes on
/// from there.
pub fn cleanup(config: &Config) -> Result<Removed, CleanupError> {
    require_capabilities()?;
    let footprint = footprint::existing(config)?;
    let pins = Pins::new(&config.bpffs_dir);
    let mut agent = footprint::agent_id(config)?;
    let mut removed = Removed::default();
    let mut ours = Vec::new();
    for router in pins.routers()? {
        match owner(&pins, router)? {
            // Without a footprint, what is pinned in the agent's folder tells
            // who it was.
            Some(owner) if *agent.get_or_insert(owner) != owner => {
                warn!(%router, %owner, "another agent's instance stays");
            }
            _ => ours.push(router),
        }
    }
    for router in &ours {
        for pin in pins.links_of(*router)? {
            detach(&pin)?;
            removed.links += 1;
        }
    }
    if let Some(agent) = agent {
        let nft = Nft::new(&config.nft);
        for netns in NetnsFolder::new(&config.netns_dir).all()? {
            removed.bindings += usize::from(remove_binding_of(&nft, &netns, agent)?);
        }
    }
    for router in ours {
        for folder in [pins.next_instance(router), pins.instance(router)] {
            removed.instances += usize::from(folder.exists());
            Instance::remove(&folder)?;
        }
        pins.tidy(router)?;
    }
    if let Some(footprint) = footprint {
        footprint.remove()?;
    }
    Ok(removed)
}

/// Whose the router's pins are, as far as they can tell.
fn owner(pins: &Pins, router: RouterId) -> Result<Option<AgentId>, kernel::Error> {
    for folder in [pins.instance(router), pins.next_instance(router)] {
        if let Usable::Whole(instance) = Instance::open(&folder)? {
            return Ok(Some(instance.owner()));
        }
    }
    Ok(None)
}
