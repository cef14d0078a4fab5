//! Lists the routers that have namespaces on this host.

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
pub(super) struct LocalRouter {
    pub(super) id: RouterId,
    /// The router's namespaces, kept open so that they stay the same during all checks.
    pub(super) namespaces: Vec<Netns>,
    /// The kernel's ids of the agent's programs for this router.
    pub(super) programs: BTreeSet<u32>,
    pub(super) in_force: InForce,
}

/// The state of a router's pinned rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InForce {
    /// Nothing is pinned.
    Nothing,
    /// The pins hold rules of an older agent, with this ABI version, which this version
    /// can't read. It is so after an upgrade, until the agent is restarted.
    Older(u32),
    /// The pins are incomplete.
    Broken,
    /// The number of rules in force, and their carrier.
    Rules {
        count: usize,
        carrier: Option<Carrier>,
    },
}

impl LocalRouter {
    /// Returns whether rules of the agent are in force.
    pub(super) fn has_rules(&self) -> bool {
        match self.in_force {
            InForce::Rules { count, .. } => count > 0,
            InForce::Older(_) => true,
            InForce::Nothing | InForce::Broken => false,
        }
    }
}

/// Returns the names of all routers' namespaces.
pub(super) fn names(config: &Config) -> (BTreeMap<RouterId, Vec<String>>, Vec<Finding>) {
    match config.router_namespaces().by_router() {
        Ok(names) => (names, Vec::new()),
        Err(error) => {
            let finding = Finding::unknown(CHECK, sentence(&error));
            let place = config.netns_dir.display().to_string();
            (BTreeMap::new(), vec![finding.at(place)])
        }
    }
}

/// Opens a router's namespaces and pins. Without the capabilities, each pin looks broken.
pub(super) fn open(
    config: &Config,
    id: RouterId,
    names: &[String],
    may_ask: bool,
) -> (LocalRouter, Vec<Finding>) {
    let mut findings = Vec::new();
    let mut unknown = |place: &str, what: String| {
        findings.push(Finding::unknown(CHECK, what).at(place));
    };
    let mut router = LocalRouter {
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
    if let Err(error) = read_pins(config, &mut router) {
        unknown(&place, sentence(&error));
    } else {
        let finding = judge(router.in_force, may_ask);
        findings.extend(finding.map(|finding| finding.at(place)));
    }
    (router, findings)
}

/// Returns the finding of one router; `None` where all is well.
fn judge(in_force: InForce, may_ask: bool) -> Option<Finding> {
    match in_force {
        InForce::Nothing | InForce::Rules { .. } => None,
        InForce::Older(abi) => Some(Finding::warn(
            CHECK,
            format!("rules of an older agent are in force (ABI version {abi})"),
            "restart the agent: the newer one takes them over",
        )),
        InForce::Broken if may_ask => Some(Finding::wrong(
            CHECK,
            "what is pinned of its rules is not whole",
            "start the agent, which makes it anew",
        )),
        InForce::Broken => {
            let what = "what is pinned of its rules can't be opened";
            Some(Finding::unknown(CHECK, what))
        }
    }
}

/// Returns a finding with the number of routers.
pub(super) fn summary(count: usize, with_rules: usize) -> Finding {
    Finding::ok(
        CHECK,
        format!("{count} with namespaces here, {with_rules} of them with rules in force"),
    )
}

/// What is pinned of the router, by whichever ABI.
fn read_pins(config: &Config, router: &mut LocalRouter) -> Result<(), Error> {
    let id = router.id;
    for pins in Pins::of_all_versions(&config.bpffs_dir)? {
        let folders = pins.instances(id);
        let programs = folders.iter().flat_map(|folder| programs_in(folder));
        router.programs.extend(programs);
    }
    let pins = Pins::new(&config.bpffs_dir);
    router.in_force = match Instance::open(&pins.instance(id))? {
        Usable::Absent => {
            let older = pins.older()?;
            let of_it = older.iter().rfind(|pins| pins.has(id));
            of_it.map_or(InForce::Nothing, |pins| InForce::Older(pins.abi()))
        }
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
    use crate::doctor::Verdict;

    #[test]
    fn rules_that_another_agent_left_are_told_of() {
        let rules = InForce::Rules {
            count: 1,
            carrier: Some(Carrier::Mark),
        };
        let result = |in_force, may_ask| judge(in_force, may_ask).map(|finding| finding.result);
        for may_ask in [true, false] {
            assert_eq!(result(InForce::Nothing, may_ask), None);
            assert_eq!(result(rules, may_ask), None);
            assert_eq!(result(InForce::Older(1), may_ask), Some(Verdict::Warn));
        }
        assert_eq!(result(InForce::Broken, true), Some(Verdict::Wrong));
        assert_eq!(result(InForce::Broken, false), Some(Verdict::Unknown));
    }
}
