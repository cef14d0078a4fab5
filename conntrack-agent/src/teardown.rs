//! Removes what the agent has in the kernel.

use std::{fmt, path::Path};

use tracing::warn;

use crate::{
    kernel::{self, AgentId, Hooks, Instance, NetnsFolder, Nft, Pins, remove_binding_of, unpin},
    model::RouterId,
};

/// The counts of what was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    links: usize,
    instances: usize,
    bindings: usize,
    /// Whether the audit trail is left: it says who changed what, so the operator removes it.
    pub(crate) audit_trail_stays: bool,
}

impl fmt::Display for Removed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            links,
            instances,
            bindings,
            audit_trail_stays,
        } = self;
        write!(
            formatter,
            "removed {links} links, {instances} instances, {bindings} bindings"
        )?;
        if *audit_trail_stays {
            write!(formatter, "; the audit trail stays")?;
        }
        Ok(())
    }
}

/// Removes the agent's objects in the kernel, and nothing on disk. Without a record of
/// the agent's id, the pins tell it.
///
/// # Errors
/// Returns [`kernel::Error`] if something could not be removed; another call goes on
/// from there.
pub(crate) fn remove_datapath(
    nft: &Nft,
    bpffs_dir: &Path,
    netns_dir: &Path,
    mut agent: Option<AgentId>,
) -> Result<Removed, kernel::Error> {
    let folder = NetnsFolder::new(netns_dir);
    let mut removed = Removed::default();
    let mut ours = Vec::new();
    // Of every ABI version, whichever this agent has itself.
    for pins in Pins::of_all_versions(bpffs_dir)? {
        for router in pins.routers()? {
            match owner(&pins, router) {
                // Without a footprint, what is pinned in the agent's folder tells
                // who it was.
                Some(owner) if *agent.get_or_insert(owner) != owner => {
                    warn!(%router, %owner, "another agent's instance stays");
                }
                _ => ours.push((pins.clone(), router)),
            }
        }
    }
    for (pins, router) in &ours {
        for pin in pins.attachments_of(*router)? {
            match agent {
                Some(agent) => Hooks::to_remove(agent).reap(&folder, &pin)?,
                // No filter can be told to be ours; a link is by its place.
                None => unpin(&pin)?,
            }
            removed.links += 1;
        }
    }
    if let Some(agent) = agent {
        clear_everywhere(nft, &folder, agent, &mut removed)?;
    }
    for (pins, router) in ours {
        let instances = pins.instances(router);
        removed.instances += instances.iter().filter(|folder| folder.exists()).count();
        pins.remove(router)?;
    }
    Pins::remove_unshared(bpffs_dir)?;
    Ok(removed)
}

/// Removes filters without a pin, and bindings, in all namespaces, also if one of them
/// fails.
fn clear_everywhere(
    nft: &Nft,
    folder: &NetnsFolder,
    agent: AgentId,
    removed: &mut Removed,
) -> Result<(), kernel::Error> {
    let hooks = Hooks::to_remove(agent);
    let mut failed = None;
    for name in folder.names()? {
        let cleared = folder.open(&name).and_then(|netns| {
            if let Some(netns) = netns {
                removed.links += hooks.clear(&netns)?;
                removed.bindings += usize::from(remove_binding_of(nft, &netns, agent)?);
            }
            Ok(())
        });
        match cleared {
            Ok(()) => {}
            // A mount of another kind of namespace, or one that went just now.
            Err(error) if error.is_no_network_namespace() => {
                warn!(namespace = name, "not a network namespace");
            }
            Err(error) => {
                warn!(
                    namespace = name,
                    error = &error as &dyn std::error::Error,
                    "not examined"
                );
                failed.get_or_insert(error);
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Returns the agent that the router's pins belong to, if they tell.
fn owner(pins: &Pins, router: RouterId) -> Option<AgentId> {
    pins.instances(router)
        .iter()
        .find_map(|folder| Instance::owner_of(folder))
}
