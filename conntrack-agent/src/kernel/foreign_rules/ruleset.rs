//! The actions of other tools' rules that concern the agent, in terms that serve
//! nftables, both iptables and tc.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// A table, by its family and its name: `ip raw` of nftables, which is iptables-nft's
/// too, or `iptables-legacy raw`. For tc, it stands for an interface: `tc qr-1`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableName {
    /// The family of its packets, or the tool that it belongs to.
    pub family: &'static str,
    /// The table's name, or the interface's.
    pub name: String,
}

impl fmt::Display for TableName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.family, self.name)
    }
}

/// The source of a base chain's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Packets come from an interface, before they have a connection: behind the
    /// classifier (`sch_handle_ingress` comes before `nf_ingress` in
    /// `__netif_receive_skb_core`, net/core/dev.c).
    Ingress,
    /// Packets come from an interface by tc filters of this priority: behind tcx
    /// programs, and before or behind the classifier where it is a tc filter too.
    TcFilter(u16),
    /// Packets come from prerouting, with this priority.
    Prerouting(i32),
    /// Packets come from prerouting by NAT, with this priority among nat chains.
    /// Whatever it is, packets pass all of these chains where NAT is
    /// (`nf_nat_register_fn`, `net/netfilter/nf_nat_core.c`).
    Nat(i32),
    /// Packets come from anywhere else.
    Elsewhere,
}

/// A chain of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The chain's table.
    pub table: TableName,
    /// The chain's name.
    pub name: String,
    /// The hook of a base chain; `None` for a chain that only others jump to.
    pub hook: Option<Hook>,
}

/// An action of a rule that concerns the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleAction {
    /// The rule gives a connection this helper; `None` for one that depends on the
    /// packet.
    GivesHelper(Option<String>),
    /// The rule may change these bits of `skb->mark`.
    WritesMark(u32),
    /// The rule's effect depends on these bits of `skb->mark`.
    ReadsMark(u32),
    /// The rule changes `skb->priority`.
    WritesPriority,
    /// The rule keeps packets from getting a connection.
    SetsUntracked,
    /// The rule translates the connection's addresses or ports: then no further nat
    /// chain of the hook is passed (`nf_nat_inet_fn`, `net/netfilter/nf_nat_core.c`).
    Translates,
    /// The rule does this only to packets that have a connection: `meta mark set ct
    /// mark`, say.
    WithConnection(Box<RuleAction>),
    /// The rule hands packets to this chain of its table.
    Jumps(String),
    /// The rule hands packets to chains that depend on the packet.
    JumpsByMap,
}

/// The packets that a rule is plainly limited to. What is limited in another way,
/// like by a set or by the rule that jumps to it, counts as not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleScope {
    /// The number of the transport protocol.
    pub protocol: Option<u8>,
    /// The destination port.
    pub port: Option<u16>,
}

/// A rule with at least one action that concerns the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignRule {
    /// The rule's table.
    pub table: TableName,
    /// The rule's chain.
    pub chain: String,
    /// The rule's handle in nftables and tc; for legacy iptables, its number in the
    /// chain.
    pub handle: u64,
    /// The packets that it is plainly limited to.
    pub scope: RuleScope,
    /// The rule's actions, first to last.
    pub actions: Vec<RuleAction>,
}

/// A namespace's chains, and its rules that concern the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// The chains.
    pub chains: Vec<Chain>,
    /// The rules.
    pub rules: Vec<ForeignRule>,
}

impl Ruleset {
    /// Adds the chains and rules of another ruleset.
    pub(super) fn extend(&mut self, other: Self) {
        self.chains.extend(other.chains);
        self.rules.extend(other.rules);
    }

    /// Returns the ruleset without one table.
    #[must_use]
    pub fn without(mut self, table: &TableName) -> Self {
        self.chains.retain(|chain| chain.table != *table);
        self.rules.retain(|rule| rule.table != *table);
        self
    }

    /// Returns the rules that packets may pass that come into base chains by the
    /// wanted hooks.
    ///
    /// A jump that depends on the packet may lead to each chain of its table.
    pub fn met_from(&self, is_wanted: impl Fn(Hook) -> bool) -> impl Iterator<Item = &ForeignRule> {
        type Key<'a> = (&'a TableName, &'a str);
        let mut rules: BTreeMap<Key<'_>, Vec<&ForeignRule>> = BTreeMap::new();
        for rule in &self.rules {
            let key = (&rule.table, rule.chain.as_str());
            rules.entry(key).or_default().push(rule);
        }
        let begin = self.chains.iter().filter(|chain| {
            let hook = chain.hook;
            hook.is_some_and(&is_wanted)
        });
        let mut left: Vec<Key<'_>> = begin
            .map(|chain| (&chain.table, chain.name.as_str()))
            .collect();
        let mut met = BTreeSet::new();
        let mut found = Vec::new();
        while let Some(key) = left.pop() {
            if !met.insert(key) {
                continue;
            }
            for rule in rules.get(&key).into_iter().flatten() {
                found.push(*rule);
                for action in &rule.actions {
                    match action {
                        RuleAction::Jumps(to) => left.push((key.0, to)),
                        RuleAction::JumpsByMap => left.extend(
                            self.chains
                                .iter()
                                .filter(|chain| chain.table == *key.0 && chain.hook.is_none())
                                .map(|chain| (&chain.table, chain.name.as_str())),
                        ),
                        _ => {}
                    }
                }
            }
        }
        found.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str) -> TableName {
        TableName {
            family: "ip",
            name: name.into(),
        }
    }

    fn chain(name: &str, hook: Option<Hook>) -> Chain {
        Chain {
            table: table("t"),
            name: name.into(),
            hook,
        }
    }

    fn rule(chain: &str, action: RuleAction) -> ForeignRule {
        ForeignRule {
            table: table("t"),
            chain: chain.into(),
            handle: 1,
            scope: RuleScope::default(),
            actions: vec![action],
        }
    }

    fn met(rules: Vec<ForeignRule>) -> Vec<String> {
        let ruleset = Ruleset {
            chains: vec![
                chain("early", Some(Hook::Prerouting(-300))),
                chain("late", Some(Hook::Prerouting(0))),
                chain("a", None),
                chain("b", None),
            ],
            rules,
        };
        let early = |hook| matches!(hook, Hook::Prerouting(priority) if priority < -160);
        let met = ruleset.met_from(early);
        let mut met: Vec<_> = met.map(|rule| rule.chain.clone()).collect();
        met.sort();
        met
    }

    #[test]
    fn rules_are_met_by_jumps_from_where_packets_come_in() {
        let write = |chain| rule(chain, RuleAction::WritesMark(1));
        let jump = |chain, to: &str| rule(chain, RuleAction::Jumps(to.into()));
        assert_eq!(met(vec![write("late"), write("a")]), [""; 0]);
        assert_eq!(met(vec![write("early")]), ["early"]);
        let by_two = vec![jump("early", "a"), jump("a", "b"), write("b")];
        assert_eq!(met(by_two), ["a", "b", "early"]);
        let round = vec![jump("early", "a"), jump("a", "a")];
        assert_eq!(met(round), ["a", "early"]);
        let from_late = vec![jump("late", "a"), write("a")];
        assert_eq!(met(from_late), [""; 0]);
        let by_map = vec![
            rule("early", RuleAction::JumpsByMap),
            write("b"),
            write("late"),
        ];
        assert_eq!(met(by_map), ["b", "early"]);
    }

    #[test]
    fn a_table_can_be_left_out() {
        let ruleset = Ruleset {
            chains: vec![chain("a", None)],
            rules: vec![rule("a", RuleAction::WritesPriority)],
        };
        assert_eq!(ruleset.clone().without(&table("t")), Ruleset::default());
        assert_eq!(ruleset.clone().without(&table("u")), ruleset);
    }
}
