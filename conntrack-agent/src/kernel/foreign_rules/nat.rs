//! Detects whether a network namespace has NAT for IPv4.

use std::io;

use super::legacy;
use crate::kernel::netfilter::{DumpPart, Listing, NAME_OF_TYPE, ObjectKind, TABLE};

/// The families `NFPROTO_INET` and `NFPROTO_IPV4`,
/// include/uapi/linux/netfilter.h.
const FAMILIES: [u8; 2] = [1, 2];

/// Returns whether the calling thread's network namespace has NAT for IPv4: a
/// nat chain in a table whose name does not begin with `ours`, or legacy
/// iptables' nat table. The first of either registers the hooks for all of them
/// (`nf_nat_register_fn`, `net/netfilter/nf_nat_core.c`).
///
/// # Errors
/// The error of netlink(7): EPERM without `CAP_NET_ADMIN`; an answer that can't
/// be read.
pub(in crate::kernel) fn has_nat(ours: &str) -> io::Result<bool> {
    Ok(legacy::tables(legacy::IPV4_TABLES)?.contains("nat") || has_chain(ours)?)
}

fn has_chain(ours: &str) -> io::Result<bool> {
    Listing::whole(|listing| {
        let mut found = false;
        let is_whole = listing.each(ObjectKind::Chain, |chain| {
            found |= is_nat(chain, ours)?;
            Ok(())
        })?;
        Ok(is_whole.then_some(found))
    })
}

fn is_nat(chain: &DumpPart<'_>, ours: &str) -> io::Result<bool> {
    let is_ours = chain
        .attribute(TABLE)?
        .is_some_and(|name| name.starts_with(ours.as_bytes()));
    let is_nat = chain.attribute(NAME_OF_TYPE)? == Some(b"nat\0");
    Ok(is_nat && !is_ours && FAMILIES.contains(&chain.family))
}
