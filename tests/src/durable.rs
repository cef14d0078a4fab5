//! A mapping as others see it: asked for by a rules file, kept in the store, in
//! force in the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;

use conntrack_agent::engine::Mapping;
use conntrack_agent::kernel::{Instance, Pins, TABLE_PREFIX, Usable};
use conntrack_agent::model::{Destination, Helper, RouterId, RuleTarget, protocol_name};
use conntrack_agent::port_table::Wanted;
use conntrack_agent::store::{self, Store, StoreError};

use crate::helpers::{Rule, rules_of};
use crate::lab::{Lab, LabDir};
use crate::netns::Netns;
use crate::router_lab::any_router;
use crate::snapshot::ingress_programs;

/// What a rules file asks for.
pub type Rules = BTreeSet<RuleTarget>;

/// The rules file that asks for these, and names no router without any.
#[must_use]
pub fn rules_file(rules: &Rules) -> String {
    let mut file = String::new();
    let mut router = None;
    for target in rules {
        if router.replace(target.router) != Some(target.router) {
            let _infallible = writeln!(file, "[[router]]\nid = \"{}\"", target.router);
        }
        let _infallible = writeln!(
            file,
            "[[router.helpers]]\nprotocol = \"{}\"\nport = {}\nhelper = \"{}\"",
            protocol_name(target.helper.protocol()),
            target.port,
            target.helper
        );
    }
    file
}

/// What the rules of a mapping say.
#[must_use]
pub fn said(mapping: &Mapping) -> Rules {
    mapping.entries().map(|entry| entry.rule.target).collect()
}

/// What the lab's store holds; of an agent that runs, while it is idle.
///
/// Read from a copy: opening a store repairs it, and the next agent shall find
/// it as the last one left it.
///
/// # Errors
/// As opening the store itself would have.
pub fn stored(lab: &LabDir) -> Result<Mapping, StoreError> {
    let copy = tempfile::tempdir_in(lab.path()).expect("a folder for the copy");
    let store = lab.state_dir().join(store::NAME);
    if store.exists() {
        fs::copy(store, copy.path().join(store::NAME)).expect("the copy");
    }
    Store::open(copy.path()).map(|(_store, mapping)| mapping)
}

/// A router without hosts: a namespace with two interfaces that are each
/// other's peer.
pub struct BareRouter {
    id: RouterId,
    netns: Netns,
}

const INTERFACES: [&str; 2] = ["qr-1", "qg-1"];

impl BareRouter {
    /// Makes its namespace.
    #[must_use]
    pub fn new(lab: &Lab) -> Self {
        Self::of(lab, any_router())
    }

    /// Makes the namespace of a router that has none.
    #[must_use]
    pub fn of(lab: &Lab, id: RouterId) -> Self {
        let netns = lab.netns(&format!("qrouter-{id}"));
        let router = Self { id, netns };
        router.plug();
        router
    }

    /// Makes its interfaces.
    pub fn plug(&self) {
        let [inside, outside] = INTERFACES;
        self.netns
            .ip(&format!("link add {inside} type veth peer name {outside}"));
    }

    /// Removes its interfaces.
    pub fn unplug(&self) {
        self.netns.ip(&format!("link del {}", INTERFACES[0]));
    }

    /// Its namespace.
    #[must_use]
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> RouterId {
        self.id
    }

    /// The part of a rules file that gives it these rules.
    #[must_use]
    pub fn rules_file(&self, rules: &[Rule]) -> String {
        rules_of(self.id, rules)
    }

    /// What the kernel has of it.
    #[must_use]
    pub fn in_kernel(&self) -> InKernel {
        let pins = Pins::new(self.netns.lab().agent_bpffs_dir());
        let (program, table) = match Instance::open(&pins.instance(self.id)) {
            Ok(Usable::Absent) => (None, Wanted::new()),
            Ok(Usable::Whole(instance)) => {
                let image = instance.image().expect("the maps");
                (Some(instance.program_id()), image.rules())
            }
            Ok(Usable::Broken) => panic!("the instance of {} is broken", self.id),
            Err(error) => panic!("the instance of {}: {error}", self.id),
        };
        let attached = INTERFACES.map(|interface| ingress_programs(&self.netns, interface));
        InKernel {
            program,
            table,
            attached,
            links: pins.links_of(self.id).expect("the links").len(),
            is_renewed: pins.next_instance(self.id).exists() || pins.successor(self.id).exists(),
            ruleset: self.netns.ruleset(),
        }
    }

    /// Asserts that the kernel has what the mapping says, and nothing else.
    pub fn assert_has(&self, mapping: &Mapping) {
        let winners = mapping.winners(self.id);
        let there = self.in_kernel();
        assert!(there.is(&winners), "wanted: {winners:?}\nthere: {there:?}");
    }
}

/// What the kernel has of a router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InKernel {
    /// Its instance's program.
    program: Option<u32>,
    /// Its port table.
    table: Wanted,
    /// The programs at the ingress of each of its interfaces.
    attached: [Vec<u32>; INTERFACES.len()],
    /// How many links are pinned.
    links: usize,
    /// Whether a second instance is there.
    is_renewed: bool,
    ruleset: String,
}

impl InKernel {
    /// Whether it is what these rules need.
    #[must_use]
    pub fn is(&self, winners: &BTreeMap<Destination, Helper>) -> bool {
        let table = winners.iter().map(|(to, helper)| (*to, helper.mark()));
        let is_used = !winners.is_empty();
        let attached: Vec<_> = self.program.into_iter().collect();
        let tables = self.ruleset.matches(TABLE_PREFIX).count();
        self.table == table.collect()
            && self.program.is_some() == is_used
            && self.attached.iter().all(|programs| *programs == attached)
            && self.links == if is_used { INTERFACES.len() } else { 0 }
            && !self.is_renewed
            && tables == usize::from(is_used)
            && (is_used || self.ruleset.is_empty())
    }
}
