//! What the classifier has counted.

use conntrack_agent::kernel::{Instance, Pins, Usable};
use conntrack_ebpf::abi::{Counters, Destination, Protocol as AbiProtocol};

use crate::helpers::{Protocol, Rule};
use crate::lab::LabDir;
use crate::router::Router;

/// What the classifier has counted for a rule, read from the router's maps.
///
/// # Errors
/// What is missing, or can't be read.
pub fn rule_counters(lab: &LabDir, router: &Router, rule: Rule) -> Result<Counters, String> {
    let pins = Pins::new(lab.agent_bpffs_dir());
    let destination = Destination {
        protocol: match rule.protocol {
            Protocol::Tcp => AbiProtocol::Tcp,
            Protocol::Udp => AbiProtocol::Udp,
        },
        port: rule.port,
    };
    match Instance::open(&pins.instance(router.router_id())) {
        Ok(Usable::Whole(instance)) => match instance.counters(destination) {
            Ok(Some(counters)) => Ok(counters),
            Ok(None) => Err("the router's port table lacks the rule".to_owned()),
            Err(error) => Err(error.to_string()),
        },
        Ok(Usable::Absent | Usable::Broken) => Err("the router has no instance".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
