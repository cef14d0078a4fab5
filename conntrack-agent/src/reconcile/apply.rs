//! Makes the kernel what a mapping says, for all routers or not at all.

use std::{collections::BTreeSet, rc::Rc};

use tracing::{error, info};

use super::{
    Desired, Effect, Unreachable, diff,
    host::{Host, Namespaces},
};
use crate::{engine::Mapping, kernel::Error, model::RouterId};

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Routers whose rules are in the kernel.
    pub active: usize,
    /// Routers with rules that have no namespace on this host.
    pub pending: usize,
    /// Effects that were carried out; none if all was as it should be.
    pub effects: usize,
}

/// Why the kernel does not hold what the mapping says.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The kernel could not be asked.
    #[error("router {router} cannot be examined")]
    Observe {
        /// Which router.
        router: RouterId,
        /// Why.
        #[source]
        source: Error,
    },
    /// The routers that something is pinned for could not be listed.
    #[error("the routers of the host cannot be listed")]
    List(#[source] Error),
    /// What is wanted of a router can't be had.
    #[error("router {router}")]
    Unreachable {
        /// Which router.
        router: RouterId,
        /// Why.
        #[source]
        source: Unreachable,
    },
    /// An effect was refused.
    #[error("router {router}: could not {effect}")]
    Effect {
        /// Which router.
        router: RouterId,
        /// The effect.
        effect: Box<Effect>,
        /// Why.
        #[source]
        source: Error,
    },
    /// A namespace was deleted while it was worked on.
    #[error("router {router}")]
    Gone {
        /// Which router.
        router: RouterId,
        /// Which namespace.
        #[source]
        source: Error,
    },
}

/// An effect that can be taken back.
struct Done {
    router: RouterId,
    namespaces: Rc<Namespaces>,
    undo: Effect,
}

/// Makes the kernel what `mapping` says: all that is to be there is, and what
/// the agent has on a router that is to have nothing is gone.
///
/// # Errors
/// [`ApplyError`] if a part of it can't be done; all that was done until then
/// is taken back.
pub fn apply(host: &mut Host, mapping: &Mapping) -> Result<Summary, ApplyError> {
    let mut journal = Vec::new();
    let result = forward(host, mapping, &mut journal);
    if let Err(error) = &result {
        if !journal.is_empty() {
            info!(%error, steps = journal.len(), "taking back what was done");
        }
        for done in journal.into_iter().rev() {
            if let Err(error) = host.run(done.router, &done.namespaces, &done.undo) {
                let router = done.router;
                error!(%router, effect = %done.undo, error = &error as &dyn std::error::Error,
                    "could not take a step back");
            }
        }
    }
    result
}

fn forward(
    host: &mut Host,
    mapping: &Mapping,
    journal: &mut Vec<Done>,
) -> Result<Summary, ApplyError> {
    let mut routers = mapping.routers();
    routers.extend(host.pinned_routers().map_err(ApplyError::List)?);
    let mut summary = Summary::default();
    let mut removals = Vec::new();
    for router in routers {
        let observe = |source| ApplyError::Observe { router, source };
        host.settle(router).map_err(observe)?;
        let (observed, namespaces) = host.observe(router).map_err(observe)?;
        let namespaces = Rc::new(namespaces);
        let desired = desired(mapping, router);
        match (desired.is_empty(), namespaces.is_empty()) {
            (true, _) => {}
            (false, true) => {
                info!(%router, "no namespace on this host: its rules are pending");
                summary.pending += 1;
            }
            (false, false) => summary.active += 1,
        }
        let effects = diff(&observed, &desired)
            .map_err(|source| ApplyError::Unreachable { router, source })?;
        for effect in effects {
            summary.effects += 1;
            // What can't be taken back waits until nothing can fail any more.
            if effect == Effect::RemoveInstance {
                removals.push((router, Rc::clone(&namespaces)));
                continue;
            }
            if let Some(undo) = run(host, router, &namespaces, effect)? {
                journal.push(Done {
                    router,
                    namespaces: Rc::clone(&namespaces),
                    undo,
                });
            }
        }
        if !desired.is_empty() {
            still_there(router, &namespaces)?;
        }
    }
    for (router, namespaces) in removals {
        run(host, router, &namespaces, Effect::RemoveInstance)?;
    }
    Ok(summary)
}

fn run(
    host: &mut Host,
    router: RouterId,
    namespaces: &Namespaces,
    effect: Effect,
) -> Result<Option<Effect>, ApplyError> {
    match host.run(router, namespaces, &effect) {
        Ok(undo) => {
            info!(%router, %effect, "done");
            Ok(undo)
        }
        // A namespace that went away explains whatever failed in it.
        Err(source) => {
            still_there(router, namespaces)?;
            Err(ApplyError::Effect {
                router,
                effect: Box::new(effect),
                source,
            })
        }
    }
}

fn still_there(router: RouterId, namespaces: &Namespaces) -> Result<(), ApplyError> {
    let gone: BTreeSet<_> = namespaces
        .values()
        .filter(|netns| netns.is_gone())
        .map(|netns| netns.name().to_owned())
        .collect();
    match gone.into_iter().next() {
        None => Ok(()),
        Some(name) => Err(ApplyError::Gone {
            router,
            source: Error::NamespaceGone { name },
        }),
    }
}

fn desired(mapping: &Mapping, router: RouterId) -> Desired {
    mapping
        .winners(router)
        .into_iter()
        .map(|(destination, helper)| (destination, helper.mark()))
        .collect()
}
