//! Applies a mapping to the kernel: a change on all its routers or on none, a pass on
//! each router for itself.

use std::collections::{BTreeMap, BTreeSet};

use tracing::{error, info};

use super::{Desired, Effect, EffectTally, Kernel, Unreachable, diff};
use crate::{
    engine::Mapping,
    kernel::Error,
    model::{Destination, Helper, RouterId},
    port_table::{Amendment, Edit},
};

/// The reason why the kernel does not hold what the mapping says.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The kernel could not be asked about the router.
    #[error("router {router} cannot be examined")]
    Observe {
        /// The router.
        router: RouterId,
        /// The error of the kernel layer.
        #[source]
        source: Error,
    },
    /// The desired state of a router can't be reached.
    #[error("router {router}")]
    Unreachable {
        /// The router.
        router: RouterId,
        /// The reason.
        #[source]
        source: Unreachable,
    },
    /// An effect was refused.
    #[error("router {router}: could not {effect}")]
    Effect {
        /// The router.
        router: RouterId,
        /// The effect.
        effect: Box<Effect>,
        /// The error of the kernel layer.
        #[source]
        source: Error,
    },
    /// A namespace was deleted while the agent was working on it.
    #[error(
        "router {router}: network namespace {namespace} went away while the agent was working on it"
    )]
    Gone {
        /// The router.
        router: RouterId,
        /// The namespace.
        namespace: String,
    },
}

/// The part of a router that is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The whole router is compared.
    Whole,
    /// The entries of the port table for these destinations are compared. Where
    /// the router is not as it was when it was observed last, all of it is.
    Part(BTreeSet<Destination>),
}

/// The result of a pass on a router.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Whether its rules wait for a namespace.
    pub is_pending: bool,
    /// The effects that were carried out; none if all was as it should be.
    pub effects: EffectTally,
    /// Whether only a part of it was compared.
    pub is_partial: bool,
}

/// An effect that takes back one that was carried out.
struct Undo {
    router: RouterId,
    effect: Effect,
}

/// Brings the kernel to what the mapping says, on all these routers.
///
/// # Errors
/// [`ApplyError`] if a part of it can't be done; all that was done until then
/// is undone, on every router.
pub fn apply(
    kernel: &mut impl Kernel,
    mapping: &Mapping,
    routers: &BTreeMap<RouterId, Scope>,
) -> Result<BTreeMap<RouterId, Done>, ApplyError> {
    let mut journal = Vec::new();
    let result = forward(kernel, mapping, routers, &mut journal);
    if result.is_ok() {
        for router in routers.keys() {
            kernel.settled(*router, mapping.has(*router));
        }
    }
    if let Err(cause) = &result {
        if !journal.is_empty() {
            info!(%cause, steps = journal.len(), "taking back what was done");
        }
        for Undo { router, effect } in journal.into_iter().rev() {
            if let Err(error) = kernel.run(router, &effect) {
                error!(%router, %effect, error = &error as &dyn std::error::Error,
                    "could not take a step back");
            }
        }
    }
    for router in routers.keys() {
        kernel.release(*router);
    }
    result
}

fn forward(
    kernel: &mut impl Kernel,
    mapping: &Mapping,
    routers: &BTreeMap<RouterId, Scope>,
    journal: &mut Vec<Undo>,
) -> Result<BTreeMap<RouterId, Done>, ApplyError> {
    let mut all = BTreeMap::new();
    let mut removals = Vec::new();
    for (router, scope) in routers {
        let router = *router;
        let (effects, mut done) = match amendment(kernel, mapping, router, scope)? {
            Some(effects) => {
                let is_partial = true;
                let done = Done {
                    is_partial,
                    ..Done::default()
                };
                (effects, done)
            }
            None => difference(kernel, mapping, router)?,
        };
        done.effects = EffectTally::of(&effects);
        all.insert(router, done);
        for effect in effects {
            // An effect that can't be undone waits until nothing can fail any
            // more.
            if effect.is_final() {
                removals.push((router, effect));
            } else if let Some(effect) = run(kernel, router, effect)? {
                journal.push(Undo { router, effect });
            }
        }
        // A router that is to have nothing loses nothing by it.
        if mapping.has(router) {
            still_there(kernel, router)?;
        }
    }
    for (router, effect) in removals {
        run(kernel, router, effect)?;
    }
    Ok(all)
}

/// Returns the effects that the router lacks.
fn difference(
    kernel: &mut impl Kernel,
    mapping: &Mapping,
    router: RouterId,
) -> Result<(Vec<Effect>, Done), ApplyError> {
    let observed = kernel
        .observe(router)
        .map_err(|source| ApplyError::Observe { router, source })?;
    let desired = desired(mapping, router);
    let done = Done {
        is_pending: !desired.is_empty() && observed.namespaces.is_empty(),
        ..Done::default()
    };
    let effects =
        diff(&observed, &desired).map_err(|source| ApplyError::Unreachable { router, source })?;
    Ok((effects, done))
}

/// Returns the effects that the router lacks for a part of its rules, or `None`
/// if that can't be told without looking at all of it.
fn amendment(
    kernel: &mut impl Kernel,
    mapping: &Mapping,
    router: RouterId,
    scope: &Scope,
) -> Result<Option<Vec<Effect>>, ApplyError> {
    let Scope::Part(destinations) = scope else {
        return Ok(None);
    };
    // Removing the last rule removes everything else too.
    if !mapping.has(router) {
        return Ok(None);
    }
    let partial = kernel
        .partial(router, destinations)
        .map_err(|source| ApplyError::Observe { router, source })?;
    let helper = |to: &Destination| mapping.winner(router, *to);
    let amendment: Amendment = destinations
        .iter()
        .map(|to| (*to, helper(to).map(Helper::mark)))
        .collect();
    let edit = partial.and_then(|partial| partial.amend(&amendment).ok());
    let effects = |edit: Edit| (!edit.is_empty()).then_some(Effect::WriteTable(edit));
    Ok(edit.map(|edit| effects(edit).into_iter().collect()))
}

fn run(
    kernel: &mut impl Kernel,
    router: RouterId,
    effect: Effect,
) -> Result<Option<Effect>, ApplyError> {
    match kernel.run(router, &effect) {
        Ok(undo) => {
            info!(%router, %effect, "done");
            Ok(undo)
        }
        // A namespace that went away explains whatever failed in it.
        Err(source) => {
            still_there(kernel, router)?;
            Err(ApplyError::Effect {
                router,
                effect: Box::new(effect),
                source,
            })
        }
    }
}

fn still_there(kernel: &impl Kernel, router: RouterId) -> Result<(), ApplyError> {
    match kernel.vanished(router) {
        None => Ok(()),
        Some(namespace) => Err(ApplyError::Gone { router, namespace }),
    }
}

fn desired(mapping: &Mapping, router: RouterId) -> Desired {
    mapping
        .winners(router)
        .into_iter()
        .map(|(destination, helper)| (destination, helper.mark()))
        .collect()
}
