//! Which router has which helper rules.

use std::collections::{BTreeMap, BTreeSet};

use conntrack_ebpf::abi::Destination;

use super::{Helper, HelperRule, RouterId};

/// Router → its helper rules, oldest first. Pure: what it says is *desired*;
/// what the kernel holds is another matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    routers: BTreeMap<RouterId, Vec<HelperRule>>,
}

impl Mapping {
    /// Adds a rule behind the router's others.
    ///
    /// Returns whether it was added: a rule that is there already is not.
    pub fn insert(&mut self, rule: HelperRule) -> bool {
        let rules = self.routers.entry(rule.router).or_default();
        let new = !rules.contains(&rule);
        if new {
            rules.push(rule);
        }
        new
    }

    /// All routers that have a rule.
    #[must_use]
    pub fn routers(&self) -> BTreeSet<RouterId> {
        self.routers.keys().copied().collect()
    }

    /// All rules, router by router.
    pub fn rules(&self) -> impl Iterator<Item = &HelperRule> {
        self.routers.values().flatten()
    }

    /// The helper by destination: of several rules on one, the oldest wins.
    #[must_use]
    pub fn winners(&self, router: RouterId) -> BTreeMap<Destination, Helper> {
        let mut winners = BTreeMap::new();
        for rule in self.of(router) {
            winners.entry(rule.destination()).or_insert(rule.helper);
        }
        winners
    }

    /// The rules that another, older one on the same destination outdoes.
    pub fn shadowed(&self) -> impl Iterator<Item = &HelperRule> {
        self.routers.values().flat_map(|rules| {
            let mut taken = BTreeSet::new();
            rules
                .iter()
                .filter(move |rule| !taken.insert(rule.destination()))
        })
    }

    fn of(&self, router: RouterId) -> &[HelperRule] {
        self.routers.get(&router).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Port, Protocol};

    const ROUTER: &str = "6ab1c2d3-0a1b-4c2d-8e3f-0123456789ab";
    const OTHER: &str = "7ab1c2d3-0a1b-4c2d-8e3f-0123456789ab";

    fn rule(router: &str, protocol: Protocol, port: i64, helper: &str) -> HelperRule {
        HelperRule {
            router: router.parse().unwrap(),
            port: Port::try_from(port).unwrap(),
            helper: Helper::new(helper, protocol).unwrap(),
        }
    }

    #[test]
    fn the_oldest_rule_on_a_destination_wins() {
        let ftp = rule(ROUTER, Protocol::Tcp, 21, "ftp");
        let irc = rule(ROUTER, Protocol::Tcp, 21, "irc");
        let elsewhere = rule(OTHER, Protocol::Tcp, 21, "irc");
        let mut mapping = Mapping::default();
        for rule in [ftp, irc, elsewhere] {
            assert!(mapping.insert(rule));
            assert!(!mapping.insert(rule));
        }
        assert_eq!(mapping.winners(ftp.router)[&ftp.destination()], ftp.helper);
        assert_eq!(
            mapping.winners(elsewhere.router)[&irc.destination()],
            irc.helper
        );
        assert_eq!(mapping.shadowed().collect::<Vec<_>>(), [&irc]);
    }

    #[test]
    fn protocols_do_not_shadow_each_other() {
        let mut mapping = Mapping::default();
        mapping.insert(rule(ROUTER, Protocol::Tcp, 5060, "sip"));
        mapping.insert(rule(ROUTER, Protocol::Udp, 5060, "sip"));
        assert_eq!(mapping.shadowed().count(), 0);
        assert_eq!(mapping.winners(ROUTER.parse().unwrap()).len(), 2);
    }
}
