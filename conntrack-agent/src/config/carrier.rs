//! Defines the `carrier` key: which field of the packet carries helper marks.

use serde::Deserialize;

use crate::kernel::Carrier;

/// The choice of the carrier, the field that holds the helper mark from the classifier to
/// the binding.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum CarrierChoice {
    /// The cheaper carrier, router by router: see [`Self::of`].
    #[default]
    Auto,
    /// The field `skb->mark`.
    Mark,
    /// The field `skb->priority`; a kernel without nat chains is refused.
    Priority,
}

/// The NAT state that a choice depends on: for each of the router's namespaces, whether
/// it has NAT for IPv4.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nat(pub Vec<bool>);

impl CarrierChoice {
    /// Returns the carrier of a router.
    ///
    /// `auto` is `priority` where all namespaces of the router have NAT: there the
    /// binding's chain is one of several nat chains, and costs nothing except for the
    /// first packet of a connection. In a namespace without NAT that chain would be the
    /// first nat chain. The kernel would then do NAT's work for every packet, keep room
    /// for it in every connection, and give a connection that clashes with another one a
    /// different port (`nf_nat_alloc_null_binding`, `net/netfilter/nf_nat_core.c`), which
    /// nobody asked the agent to do.
    #[must_use]
    pub fn of(self, nat: &Nat, has_nat_chains: bool) -> Carrier {
        match self {
            Self::Mark => Carrier::Mark,
            Self::Priority => Carrier::Priority,
            Self::Auto => {
                let is_everywhere = !nat.0.is_empty() && nat.0.iter().all(|each| *each);
                if is_everywhere && has_nat_chains {
                    Carrier::Priority
                } else {
                    Carrier::Mark
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_itself_it_is_priority_where_nat_is_everywhere_and_else_mark() {
        for (nat, has_chains, expected) in [
            (&[true][..], true, Carrier::Priority),
            (&[true, true], true, Carrier::Priority),
            (&[true, false], true, Carrier::Mark),
            (&[false], true, Carrier::Mark),
            (&[], true, Carrier::Mark),
            (&[true], false, Carrier::Mark),
        ] {
            let nat = Nat(nat.to_vec());
            assert_eq!(CarrierChoice::Auto.of(&nat, has_chains), expected);
            assert_eq!(CarrierChoice::Mark.of(&nat, has_chains), Carrier::Mark);
            let forced = CarrierChoice::Priority.of(&nat, has_chains);
            assert_eq!(forced, Carrier::Priority);
        }
    }
}
