//! The rules that Neutron writes for conntrack helpers: a chain for each in the
//! raw table, once for IPv4 and once for IPv6.
//!
//! As in `neutron/agent/l3/extensions/conntrack_helper.py` and
//! `neutron/agent/linux/iptables_manager.py`. Left out is every rule of a router
//! that is about something else.

use std::fmt::{Display, Write as _};

/// The chain that jumps to each helper's own.
pub const CHAIN: &str = "neutron-l3-agent-cth";

/// A helper's own chain.
///
/// Neutron takes the first seven digits of the rule's id; these are numbers, so
/// that no two are alike.
#[must_use]
pub fn chain(number: usize) -> String {
    format!("{CHAIN}-{number:07x}")
}

/// What is in a helper's own chain.
#[must_use]
pub fn assignment(protocol: impl Display, port: impl Display, helper: &str) -> String {
    format!("-p {protocol} --dport {port} -j CT --helper {helper}")
}

/// What the programs `iptables-restore` and `ip6tables-restore` make all chains
/// of, in an empty raw table, for these assignments; the first one wins.
#[must_use]
pub fn table(assignments: impl IntoIterator<Item = String>) -> String {
    let mut input = format!("*raw\n:neutron-l3-agent-PREROUTING - [0:0]\n:{CHAIN} - [0:0]\n");
    let (mut jumps, mut helpers) = (String::new(), String::new());
    for (number, assignment) in assignments.into_iter().enumerate() {
        let chain = chain(number);
        line(&mut input, &format!(":{chain} - [0:0]"));
        let place = number + 1;
        line(&mut jumps, &format!("-I {CHAIN} {place} -j {chain}"));
        line(&mut helpers, &format!("-I {chain} 1 {assignment}"));
    }
    line(&mut input, "-I PREROUTING 1 -j neutron-l3-agent-PREROUTING");
    line(
        &mut input,
        &format!("-I neutron-l3-agent-PREROUTING 1 -j {CHAIN}"),
    );
    input.extend([jumps, helpers]);
    line(&mut input, "COMMIT");
    input
}

/// Adds a line to a text.
pub fn line(text: &mut String, line: &str) {
    let _infallible = writeln!(text, "{line}");
}
