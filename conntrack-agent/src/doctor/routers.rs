//! The routers that are on this machine.

use std::collections::{BTreeMap, BTreeSet};

use super::Finding;
use crate::{
    config::Config,
    input::sentence,
    kernel::{Carrier, Error, Instance, Netns, NetnsFolder, Pins, Usable, programs_in},
    model::RouterId,
};

const CHECK: &str = "routers";

/// A router that has a namespace here.
pub(super) struct Router {
    pub(super) namespaces: Vec<Netns>,
    /// The kernel's ids of the agent's programs for it.
    pub(super) programs: BTreeSet<u32>,
    pub(super) in_force: InForce,
}

/// What is pinned of a router's rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InForce {
    /// None of this build's.
    Nothing,
    /// Something that is not whole.
    Broken,
    /// So many, with this carrier.
    Rules {
        count: usize,
        carrier: Option<Carrier>,
    },
}

impl Router {
    /// Whether rules of the agent's are at work.
    pub(super) fn has_rules(&self) -> bool {
        matches!(self.in_force, InForce::Rules { count, .. } if count > 0)
    }
}

/// All of them, by their ids.
pub(super) type Routers = BTreeMap<RouterId, Router>;

/// Opens their namespaces, which stay what they are until all has been asked.
///
/// To who may not ask, each pin looks broken.
pub(super) fn find(config: &Config, may_ask: bool) -> (Routers, Vec<Finding>) {
    let (mut routers, mut findings) = (Routers::new(), Vec::new());
    let folder = NetnsFolder::new(&config.netns_dir);
    let mut unknown = |place: &str, what: String| {
        findings.push(Finding::unknown(CHECK, what).at(place));
    };
    let names = folder.names().unwrap_or_else(|error| {
        unknown(&config.netns_dir.display().to_string(), sentence(&error));
        Vec::new()
    });
    for name in names {
        let Some(id) = router_of(&name, &config.namespace_prefixes) else {
            continue;
        };
        match folder.open(&name) {
            Ok(Some(netns)) => {
                let router = routers.entry(id).or_insert_with(|| Router {
                    namespaces: Vec::new(),
                    programs: BTreeSet::new(),
                    in_force: InForce::Nothing,
                });
                router.namespaces.push(netns);
            }
            Ok(None) => unknown(&name, "what has this name is no network namespace".into()),
            Err(error) => unknown(&name, sentence(&error)),
        }
    }
    for (id, router) in &mut routers {
        if let Err(error) = read_pins(config, *id, router) {
            unknown(&format!("router {id}"), sentence(&error));
        }
    }
    let broken = routers
        .iter()
        .filter(|(_, router)| router.in_force == InForce::Broken);
    findings.extend(broken.map(|(id, _)| {
        let finding = if may_ask {
            let what = "what is pinned of its rules is not whole";
            Finding::wrong(CHECK, what, "start the agent, which makes it anew")
        } else {
            Finding::unknown(CHECK, "what is pinned of its rules can't be opened")
        };
        finding.at(format!("router {id}"))
    }));
    let ruled = routers.values().filter(|router| router.has_rules()).count();
    let count = routers.len();
    findings.push(Finding::ok(
        CHECK,
        format!("{count} with namespaces here, {ruled} of them with rules in force"),
    ));
    (routers, findings)
}

/// The router whose namespace has this name.
fn router_of(name: &str, prefixes: &[String]) -> Option<RouterId> {
    let mut rests = prefixes.iter();
    rests.find_map(|prefix| name.strip_prefix(prefix.as_str())?.parse().ok())
}

/// What is pinned of the router, by whichever ABI.
fn read_pins(config: &Config, id: RouterId, router: &mut Router) -> Result<(), Error> {
    for pins in Pins::of_all_versions(&config.bpffs_dir)? {
        let folders = pins.instances(id);
        let programs = folders.iter().flat_map(|folder| programs_in(folder));
        router.programs.extend(programs);
    }
    let pins = Pins::new(&config.bpffs_dir);
    router.in_force = match Instance::open(&pins.instance(id))? {
        Usable::Absent => InForce::Nothing,
        Usable::Broken => InForce::Broken,
        Usable::Whole(instance) => InForce::Rules {
            count: instance.image()?.rules().len(),
            carrier: instance.carrier()?,
        },
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_a_routers_by_its_name() {
        const ID: &str = "6ab1c2d3-0a1b-4c2d-8e3f-0123456789ab";
        let prefixes = ["qrouter-".to_owned(), "snat-".to_owned()];
        let of = |name: String| router_of(&name, &prefixes).is_some();
        assert!(of(format!("qrouter-{ID}")));
        assert!(of(format!("snat-{ID}")));
        for other in [format!("qdhcp-{ID}"), format!("qrouter-{ID}x"), ID.into()] {
            assert!(!of(other));
        }
    }
}
