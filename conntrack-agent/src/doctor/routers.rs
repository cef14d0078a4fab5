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
    pub(super) id: RouterId,
    /// Opened, so that they stay what they are until all has been asked.
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

/// What the namespaces of all routers are called.
pub(super) fn names(config: &Config) -> (BTreeMap<RouterId, Vec<String>>, Vec<Finding>) {
    let mut names = BTreeMap::<_, Vec<_>>::new();
    let folder = &config.netns_dir;
    match NetnsFolder::new(folder).names() {
        Ok(all) => {
            for name in all {
                if let Some(id) = router_of(&name, &config.namespace_prefixes) {
                    names.entry(id).or_default().push(name);
                }
            }
            (names, Vec::new())
        }
        Err(error) => {
            let finding = Finding::unknown(CHECK, sentence(&error));
            (names, vec![finding.at(folder.display().to_string())])
        }
    }
}

/// Opens what there is of a router. To who may not ask, each pin looks broken.
pub(super) fn open(
    config: &Config,
    id: RouterId,
    names: &[String],
    may_ask: bool,
) -> (Router, Vec<Finding>) {
    let mut findings = Vec::new();
    let mut unknown = |place: &str, what: String| {
        findings.push(Finding::unknown(CHECK, what).at(place));
    };
    let mut router = Router {
        id,
        namespaces: Vec::new(),
        programs: BTreeSet::new(),
        in_force: InForce::Nothing,
    };
    let folder = NetnsFolder::new(&config.netns_dir);
    for name in names {
        match folder.open(name) {
            Ok(Some(netns)) => router.namespaces.push(netns),
            Ok(None) => unknown(name, "what has this name is no network namespace".into()),
            Err(error) => unknown(name, sentence(&error)),
        }
    }
    let place = format!("router {id}");
    match read_pins(config, &mut router) {
        Err(error) => unknown(&place, sentence(&error)),
        Ok(()) if router.in_force != InForce::Broken => {}
        Ok(()) if may_ask => {
            let what = "what is pinned of its rules is not whole";
            let remedy = "start the agent, which makes it anew";
            findings.push(Finding::wrong(CHECK, what, remedy).at(place));
        }
        Ok(()) => unknown(&place, "what is pinned of its rules can't be opened".into()),
    }
    (router, findings)
}

/// How many there are.
pub(super) fn summary(count: usize, with_rules: usize) -> Finding {
    Finding::ok(
        CHECK,
        format!("{count} with namespaces here, {with_rules} of them with rules in force"),
    )
}

/// The router whose namespace has this name.
fn router_of(name: &str, prefixes: &[String]) -> Option<RouterId> {
    let mut rests = prefixes.iter();
    rests.find_map(|prefix| name.strip_prefix(prefix.as_str())?.parse().ok())
}

/// What is pinned of the router, by whichever ABI.
fn read_pins(config: &Config, router: &mut Router) -> Result<(), Error> {
    let id = router.id;
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
