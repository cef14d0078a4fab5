//! What reads others' rules in a namespace, whoever wrote them.

use super::{Error, Netns, Ruleset, legacy, netfilter};

/// A namespace's chains and rules: nftables', which are iptables-nft's too, and
/// those that legacy iptables has in front of connections.
///
/// # Errors
/// [`Error`] if they can't be read.
pub fn ruleset_of(netns: &Netns) -> Result<Ruleset, Error> {
    netns.enter(|| {
        let found = netfilter::ruleset().map_err(|source| Error::Table {
            place: netns.name().to_owned(),
            table: "(any)".into(),
            source,
        })?;
        Ok(found.and(legacy::ruleset(netns.name())?))
    })
}
