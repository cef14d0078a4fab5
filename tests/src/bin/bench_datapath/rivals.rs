//! The ways that are not ours.

use std::fmt::Write as _;

use conntrack_agent::model::{Protocol, protocol_name};
use conntrack_tests::netns::Netns;
use conntrack_tests::neutron;

use crate::configuration::{Variant, Way};
use crate::rig::Router;
use crate::rules::{self, Rule};

/// The table that holds nft's way.
const TABLE: &str = "rival";

/// Puts a router's rules in force.
pub(crate) fn put_in_force(router: &Router) {
    let rules = rules::rules(router.configuration.rules);
    match router.configuration.way {
        Way::Neutron(variant) => restore(&router.netns, variant, &rules),
        Way::Map => router.netns.nft(&map(&rules)),
        // The rules that will go again.
        Way::Gone => router.netns.nft(&map(&rules::rules(2))),
        Way::Nothing | Way::Empty | Way::XdpAlone | Way::Ours(_) => {}
    }
}

/// Takes those away that were only there for the connections' beginning.
pub(crate) fn withdraw(router: &Router) {
    if router.configuration.way == Way::Gone {
        router.netns.nft(&format!("delete table inet {TABLE}"));
    }
}

/// Neutron's chains, in both families, each in one go.
fn restore(netns: &Netns, variant: Variant, rules: &[Rule]) {
    let assignments = rules
        .iter()
        .map(|rule| neutron::assignment(protocol_name(rule.protocol), rule.port, rule.helper()));
    let input = neutron::table(assignments);
    let variant = match variant {
        Variant::Legacy => "legacy",
        Variant::Nft => "nft",
    };
    // The host's own iptables must not wait for this one.
    let lock = netns.lab().run_dir().join("xtables.lock");
    let lock = format!("XTABLES_LOCKFILE={}", lock.display());
    for family in ["iptables", "ip6tables"] {
        let program = format!("{family}-{variant}-restore");
        netns.tool("env", [&lock, &program], &input);
    }
}

/// One rule with an anonymous map, where the agent's binding would be by mark.
fn map(rules: &[Rule]) -> String {
    let mut text = format!("table inet {TABLE} {{\n");
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let (name, word) = (rules::helper(protocol), protocol_name(protocol));
        let object = format!("ct helper {name} {{ type \"{name}\" protocol {word}\n }}");
        neutron::line(&mut text, &object);
    }
    let mut elements = String::new();
    for rule in rules {
        let (word, name) = (protocol_name(rule.protocol), rule.helper());
        let _infallible = write!(elements, "{word} . {} : \"{name}\", ", rule.port);
    }
    text + &format!(
        "chain prerouting {{
            type filter hook prerouting priority -160
            ct helper set meta l4proto . th dport map {{ {elements} }}
        }}
        }}"
    )
}
