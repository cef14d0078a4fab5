//! Random rules.

use conntrack_agent::model::{Families, Helper, protocol_name};
use conntrack_tests::helpers::{Protocol, Rule};
use conntrack_tests::neutron;
use fastrand::Rng;

use crate::wire::Family;

/// Where the helpers are used to be.
const USUAL: [(&str, u16); 9] = [
    ("ftp", 21),
    ("tftp", 69),
    ("sip", 5060),
    ("amanda", 10080),
    ("sane", 6566),
    ("irc", 6667),
    ("pptp", 1723),
    ("Q.931", 1720),
    ("RAS", 1719),
];

pub(crate) fn of(helper: Helper, port: u16) -> Rule {
    let protocol = match protocol_name(helper.protocol()) {
        "tcp" => Protocol::Tcp,
        _ => Protocol::Udp,
    };
    Rule {
        protocol,
        port,
        helper: helper.name(),
    }
}

/// Every helper at least once; some on a destination that another has.
pub(crate) fn random(rng: &mut Rng) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    let helpers: Vec<_> = Helper::all().collect();
    let count = rng.usize(helpers.len()..40);
    for number in 0..count {
        let helper = helpers[number % helpers.len()];
        let port = match USUAL.iter().find(|(name, _)| *name == helper.name()) {
            Some((_, port)) if rng.u8(..3) == 0 => *port,
            _ => rng.u16(1..),
        };
        rules.push(of(helper, port));
        // What Neutron can't do in IPv6 has no first rule there.
        let is_alone = !serves_both(helper);
        if !is_alone && rng.u8(..8) == 0 {
            let others = helpers.iter().filter(|other| {
                other.protocol() == helper.protocol() && serves_both(**other) && **other != helper
            });
            rules.extend(others.take(1).map(|other| of(*other, port)));
        }
    }
    // Two random ports can be the same one, too.
    let fits = |at: &usize| {
        let rule = rules[*at];
        let mut before = rules[..*at]
            .iter()
            .filter(|other| (other.protocol, other.port) == (rule.protocol, rule.port));
        before.all(|other| {
            *other != rule
                && [*other, rule]
                    .iter()
                    .all(|each| serves(Family::V6, each.helper))
        })
    };
    let fitting = (0..rules.len()).filter(fits);
    fitting.map(|at| rules[at]).collect()
}

fn serves_both(helper: Helper) -> bool {
    helper.families() == Families::Both
}

/// Whether this family's packets can get the helper. In IPv6 the kernel refuses
/// the target for some (`xt_ct_find_helper`, `net/netfilter/xt_CT.c`), so Neutron
/// has no rule for them, and we assign none.
pub(crate) fn serves(family: Family, name: &str) -> bool {
    let mut helpers = Helper::all().filter(|helper| helper.name() == name);
    family == Family::V4 || helpers.any(serves_both)
}

/// The rules as Neutron would have them for a family.
pub(crate) fn neutrons(family: Family, rules: &[Rule]) -> String {
    let rules = rules.iter().filter(|rule| serves(family, rule.helper));
    neutron::table(rules.map(|rule| neutron::assignment(rule.protocol, rule.port, rule.helper)))
}
