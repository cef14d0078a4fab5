//! Reads all nftables chains of a network namespace, and what their rules do.

use std::{collections::BTreeSet, io};

use super::{
    bytes::text,
    expression::{CT_HELPER, actions, number},
    ruleset::{Chain, ForeignRule, Hook, Ruleset, TableName},
};
use crate::kernel::netfilter::{DumpPart, Listing, NAME_OF_TYPE, ObjectKind, SET, TABLE};

/// The limit of rules kept that concern the agent; iptables is slow long before it.
const MOST_RULES: usize = 1 << 20;

/// The attributes `NFTA_CHAIN_NAME` and `_HOOK`, and in the latter
/// `NFTA_HOOK_HOOKNUM` and `_PRIORITY`.
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;

/// The attributes `NFTA_RULE_CHAIN`, `_HANDLE` and `_EXPRESSIONS`, and
/// `NFTA_SET_OBJ_TYPE`.
const RULE_CHAIN: u16 = 2;
const RULE_HANDLE: u16 = 3;
const RULE_EXPRESSIONS: u16 = 4;
const SET_OBJECTS: u16 = 15;

/// The families `NFPROTO_INET` and `NFPROTO_NETDEV`, include/uapi/linux/netfilter.h.
const INET: u8 = 1;
const NETDEV: u8 = 5;

/// The hooks `NF_INET_PRE_ROUTING`, `NF_INET_INGRESS` and `NF_NETDEV_INGRESS` there.
const PREROUTING: u32 = 0;
const INET_INGRESS: u32 = 5;
const NETDEV_INGRESS: u32 = 0;

/// Reads all chains of the calling thread's network namespace, and its rules that
/// concern the agent.
///
/// # Errors
/// The error of netlink(7): EPERM without `CAP_NET_ADMIN`; an answer that can't be
/// read.
pub(super) fn ruleset() -> io::Result<Ruleset> {
    Listing::whole(attempt)
}

/// Makes one attempt. Returns `None` if something changed meanwhile.
fn attempt(listing: &mut Listing) -> io::Result<Option<Ruleset>> {
    let mut found = Ruleset::default();
    let mut helper_maps = BTreeSet::new();
    let is_whole = listing.each(ObjectKind::Chain, |part| {
        found.chains.extend(chain(part)?);
        Ok(())
    })? && listing.each(ObjectKind::Set, |part| {
        let objects = part.attribute(SET_OBJECTS)?;
        if objects == Some(&CT_HELPER.to_be_bytes())
            && let Some((table, name)) = table(part)?.zip(part.attribute(SET)?)
        {
            helper_maps.insert((table, name.to_vec()));
        }
        Ok(())
    })? && listing.each(ObjectKind::Rule, |part| {
        let of = table(part)?.zip(part.attribute(RULE_CHAIN)?.map(text));
        let Some((table, chain)) = of else {
            return Ok(());
        };
        let expressions = part.attribute(RULE_EXPRESSIONS)?.unwrap_or_default();
        let (scope, actions) = actions(expressions, |set| {
            helper_maps.contains(&(table.clone(), set.to_vec()))
        })?;
        if !actions.is_empty() {
            if found.rules.len() >= MOST_RULES {
                return Err(io::Error::other(
                    "more rules do what concerns the agent than it keeps",
                ));
            }
            let handle = part.attribute(RULE_HANDLE)?;
            let handle = handle.and_then(|handle| handle.try_into().ok());
            found.rules.push(ForeignRule {
                table,
                chain,
                handle: handle.map_or(0, u64::from_be_bytes),
                scope,
                actions,
            });
        }
        Ok(())
    })?;
    Ok(is_whole.then_some(found))
}

fn table(part: &DumpPart<'_>) -> io::Result<Option<TableName>> {
    let name = part.attribute(TABLE)?;
    Ok(name.map(|name| TableName {
        family: family(part.family),
        name: text(name),
    }))
}

/// Returns nft's name of a family, by its `NFPROTO_…`.
const fn family(number: u8) -> &'static str {
    match number {
        INET => "inet",
        2 => "ip",
        3 => "arp",
        NETDEV => "netdev",
        7 => "bridge",
        10 => "ip6",
        _ => "?",
    }
}

fn chain(part: &DumpPart<'_>) -> io::Result<Option<Chain>> {
    let of = table(part)?.zip(part.attribute(CHAIN_NAME)?.map(text));
    let Some((table, name)) = of else {
        return Ok(None);
    };
    let type_of_base = part.attribute(NAME_OF_TYPE)?;
    let hook = match part.attribute(CHAIN_HOOK)? {
        Some(hook) => Some(hook_of(part.family, type_of_base, hook)?),
        None if type_of_base.is_some() => Some(Hook::Elsewhere),
        None => None,
    };
    Ok(Some(Chain { table, name, hook }))
}

fn hook_of(family: u8, name_of_type: Option<&[u8]>, hook: &[u8]) -> io::Result<Hook> {
    let priority = number(hook, HOOK_PRIORITY)?.unwrap_or_default();
    let priority = priority.cast_signed();
    let is_nat = name_of_type == Some(b"nat\0");
    Ok(match (family, number(hook, HOOK_NUMBER)?) {
        (NETDEV, Some(NETDEV_INGRESS)) | (INET, Some(INET_INGRESS)) => Hook::Ingress,
        // These are inet, ip and ip6; packets of other families aren't routed.
        (INET | 2 | 10, Some(PREROUTING)) if is_nat => Hook::Nat(priority),
        (INET | 2 | 10, Some(PREROUTING)) => Hook::Prerouting(priority),
        _ => Hook::Elsewhere,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(number: u32, priority: i32) -> Vec<u8> {
        let attribute = |kind: u16, value: [u8; 4]| {
            let mut bytes = [8_u16.to_ne_bytes(), kind.to_ne_bytes()].concat();
            bytes.extend(value);
            bytes
        };
        [
            attribute(HOOK_NUMBER, number.to_be_bytes()),
            attribute(HOOK_PRIORITY, priority.to_be_bytes()),
        ]
        .concat()
    }

    #[test]
    fn where_packets_come_from_depends_on_family_and_hook() {
        for (family, number, priority, expected) in [
            (1, 0, -300, Hook::Prerouting(-300)),
            (2, 0, -150, Hook::Prerouting(-150)),
            (10, 0, 0, Hook::Prerouting(0)),
            (1, 5, -300, Hook::Ingress),
            (5, 0, 10, Hook::Ingress),
            (5, 1, 10, Hook::Elsewhere),
            (2, 3, -300, Hook::Elsewhere),
            (7, 0, -300, Hook::Elsewhere),
        ] {
            let found = hook_of(family, Some(b"filter\0"), &hook(number, priority)).unwrap();
            assert_eq!(found, expected, "{family} {number}");
        }
        let nat = |number| hook_of(1, Some(b"nat\0"), &hook(number, -120)).unwrap();
        assert_eq!(nat(0), Hook::Nat(-120));
        assert_eq!(nat(3), Hook::Elsewhere);
    }
}
