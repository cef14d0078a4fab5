//! Reads other tools' rules in a network namespace, as far as they concern the agent:
//! those of nftables, which are iptables-nft's too, of legacy iptables and of tc.
//!
//! All of it is asked from the kernel directly. A run of nft takes milliseconds, and
//! iptables' programs need `CAP_NET_RAW`, which the agent doesn't keep.

mod bytes;
mod expression;
mod legacy;
mod nat;
mod nftables;
mod registers;
mod ruleset;
mod tc;
mod xtables;

use super::{Error, Netns};
pub(super) use nat::has_nat;
pub use ruleset::{Chain, ForeignRule, Hook, RuleAction, RuleScope, Ruleset, TableName};

/// Returns a namespace's chains, and its rules that concern the agent.
///
/// # Errors
/// [`Error`] if they can't be read.
pub fn ruleset_of(netns: &Netns) -> Result<Ruleset, Error> {
    netns.enter(|| {
        let place = netns.name();
        let mut found = nftables::ruleset().map_err(|source| Error::Table {
            place: place.to_owned(),
            table: "(any)".into(),
            source,
        })?;
        found.extend(legacy::ruleset(place)?);
        found.extend(tc::ruleset().map_err(|source| Error::Interfaces {
            name: place.to_owned(),
            source,
        })?);
        Ok(found)
    })
}
