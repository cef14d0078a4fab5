//! The binding's chains, one for each carrier.

use conntrack_ebpf::abi::in_priority;

use super::object_name;
use crate::{
    kernel::{
        Carrier, MarkBits,
        nft::{Expression, NftObject, Statement, TableFamily},
    },
    model::Helper,
};

/// A chain that reads one carrier.
pub(super) struct BindingChain {
    name: &'static str,
    /// The chain's type (nft(8)): "filter" chains see every packet, "nat" chains
    /// only the first of each connection (`nf_nat_inet_fn`,
    /// `net/netfilter/nf_nat_core.c`).
    kind: &'static str,
    priority: i32,
    rules: Vec<Vec<Statement>>,
}

impl BindingChain {
    pub(super) fn of(carrier: Carrier, bits: MarkBits, helpers: &[Helper]) -> Self {
        match carrier {
            Carrier::Mark => by_mark(bits, helpers),
            Carrier::Priority => by_priority(helpers),
        }
    }

    /// Returns the chain in this table, by its name.
    pub(super) fn named(&self, table: &str) -> NftObject {
        NftObject::ChainNamed {
            family: TableFamily::Inet,
            table: table.to_owned(),
            name: self.name,
        }
    }

    /// Returns the chain in this table, and its rules.
    pub(super) fn objects(self, table: &str) -> Vec<NftObject> {
        let Self {
            name,
            kind,
            priority,
            rules,
        } = self;
        let mut objects = vec![NftObject::Chain {
            family: TableFamily::Inet,
            table: table.to_owned(),
            name,
            kind,
            hook: "prerouting",
            prio: priority,
            policy: "accept",
        }];
        objects.extend(rules.into_iter().map(|expr| NftObject::Rule {
            family: TableFamily::Inet,
            table: table.to_owned(),
            chain: name,
            expr,
        }));
        objects
    }
}

/// Returns the chain that reads the mark. It runs between conntrack (−200),
/// before which there is no connection to give a helper to, and Neutron's mangle
/// rules (−150), which own all of `skb->mark`. Priorities:
/// `include/uapi/linux/netfilter_ipv4.h`.
///
/// Most packets have no mark and leave at the first rule. Setting and clearing
/// are separate rules: a mark that the map has no entry for ends its rule, and
/// must be cleared all the same.
fn by_mark(bits: MarkBits, helpers: &[Helper]) -> BindingChain {
    let mark = || Expression::Meta { key: "mark" };
    let and = |bits| Expression::And(Box::new(mark()), Box::new(Expression::Number(bits)));
    let ours = bits.mask();
    BindingChain {
        name: "bind",
        kind: "filter",
        priority: -160,
        rules: vec![
            vec![
                Statement::Match {
                    op: "==",
                    left: and(ours),
                    right: Expression::Number(0),
                },
                Statement::Accept(()),
            ],
            set_helper(and(ours), helpers, |mark| bits.bits(mark)),
            vec![Statement::Mangle {
                key: mark(),
                value: and(!ours),
            }],
        ],
    }
}

/// Returns the chain that reads the priority. All nat chains of a hook run where
/// DNAT does, at −100, one after the other by their priorities
/// (`nf_nat_register_fn`). This one runs before DNAT's, after which a helper
/// lacks its sequence adjustment.
///
/// Neutron's rules do nothing with `skb->priority`, and IPv4 forwarding sets it
/// anew from the TOS (`ip_forward`), so nothing has to clear it.
fn by_priority(helpers: &[Helper]) -> BindingChain {
    let priority = Expression::Meta { key: "priority" };
    BindingChain {
        name: "bind-first",
        kind: "nat",
        priority: -110,
        rules: vec![set_helper(priority, helpers, in_priority)],
    }
}

/// Returns the statements that set the helper, which only new connections get. A
/// connection that another connection's helper expected keeps what that helper
/// gives it, or gets none, as with iptables: its CT target's template has no
/// effect there (`init_conntrack`, `net/netfilter/nf_conntrack_core.c`), whereas
/// `ct helper set` would act.
fn set_helper(key: Expression, helpers: &[Helper], carried: impl Fn(u32) -> u32) -> Vec<Statement> {
    let entries = helpers
        .iter()
        .map(|helper| (carried(helper.mark()), object_name(*helper)));
    vec![
        Statement::Match {
            op: "in",
            left: Expression::Ct { key: "state" },
            right: Expression::Symbol("new"),
        },
        Statement::SetHelper(Expression::Map {
            key: Box::new(key),
            data: Box::new(Expression::Set(entries.collect())),
        }),
    ]
}
