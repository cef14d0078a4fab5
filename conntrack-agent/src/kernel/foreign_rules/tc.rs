//! Reads what tc filters on the ingress of interfaces do to a packet's mark and
//! priority.
//!
//! What a filter's or an action's program does is not known here.

use std::io;

use netlink_packet_core::{DecodeError, NlasIterator, parse_string, parse_u32};

use super::ruleset::{Chain, ForeignRule, Hook, RuleAction, RuleScope, Ruleset, TableName};
use crate::kernel::{
    attachment::filter::{TCA_KIND, TCA_OPTIONS, filters_as, qdiscs, split},
    interface::interfaces,
    netlink::{Route, attribute},
};

/// The attribute with a filter's actions, for each kind of filter:
/// `TCA_BASIC_ACT` and so on, `include/uapi/linux/pkt_cls.h`.
const ACTIONS: [(&str, u16); 9] = [
    ("basic", 3),
    ("bpf", 1),
    ("cgroup", 1),
    ("flow", 9),
    ("flower", 3),
    ("fw", 4),
    ("matchall", 2),
    ("route", 6),
    ("u32", 7),
];

/// The attributes `TCA_ACT_KIND` and `TCA_ACT_OPTIONS` there.
const ACTION_KIND: u16 = 1;
const ACTION_OPTIONS: u16 = 2;

/// The attributes `TCA_SKBEDIT_PRIORITY`, `_MARK`, `_MASK` and `_FLAGS`, and the flag
/// `SKBEDIT_F_INHERITDSFIELD`, `include/uapi/linux/tc_act/tc_skbedit.h`.
const SKBEDIT_PRIORITY: u16 = 3;
const SKBEDIT_MARK: u16 = 5;
const SKBEDIT_MASK: u16 = 8;
const SKBEDIT_FLAGS: u16 = 9;
const INHERIT_DSFIELD: u64 = 0x20;

/// Reads the filters of the calling thread's network namespace.
///
/// # Errors
/// The errors of [`Route::dump`].
pub(super) fn ruleset() -> io::Result<Ruleset> {
    let mut found = Ruleset::default();
    let mut route = Route::open()?;
    let qdiscs = qdiscs(&mut route)?;
    if qdiscs.is_empty() {
        return Ok(found);
    }
    for listed in interfaces(&mut route)? {
        let interface = listed.interface;
        if qdiscs.contains_key(&interface.index) {
            let read = |filter: &[u8]| rule(&interface.name, filter);
            let filters = filters_as(&mut route, interface.index, read)?;
            for (chain, rule) in filters.into_iter().flatten() {
                if !found.chains.contains(&chain) {
                    found.chains.push(chain);
                }
                found.rules.push(rule);
            }
        }
    }
    Ok(found)
}

/// Reads a filter. Returns `None` if it does nothing that concerns the agent.
fn rule(interface: &str, filter: &[u8]) -> Result<Option<(Chain, ForeignRule)>, DecodeError> {
    let (header, attributes) = split(filter)?;
    let actions = actions(attributes)?;
    if actions.is_empty() {
        return Ok(None);
    }
    // The lower half is the protocol (`tc_get_tfilter`, `net/sched/cls_api.c`).
    let priority = u16::try_from(header.info >> 16).unwrap_or_default();
    let chain = Chain {
        table: TableName {
            family: "tc",
            name: interface.to_owned(),
        },
        name: format!("ingress pref {priority}"),
        hook: Some(Hook::TcFilter(priority)),
    };
    let rule = ForeignRule {
        table: chain.table.clone(),
        chain: chain.name.clone(),
        handle: u64::from(header.handle.major) << 16 | u64::from(header.handle.minor),
        scope: RuleScope::default(),
        actions,
    };
    Ok(Some((chain, rule)))
}

fn actions(filter: &[u8]) -> Result<Vec<RuleAction>, DecodeError> {
    let mut found = Vec::new();
    let kind = name(attribute(filter, TCA_KIND)?);
    let row = ACTIONS.iter().find(|(name, _)| *name == kind);
    let options = attribute(filter, TCA_OPTIONS)?.unwrap_or_default();
    let list = row.map(|(_, list)| attribute(options, *list)).transpose()?;
    for action in NlasIterator::new(list.flatten().unwrap_or_default()) {
        let action = action?;
        let options = attribute(action.value(), ACTION_OPTIONS)?.unwrap_or_default();
        match name(attribute(action.value(), ACTION_KIND)?).as_str() {
            "skbedit" => edit(options, &mut found)?,
            // These look for the packet's connection, before conntrack does
            // (`tcf_connmark_act`, net/sched/act_connmark.c; `tcf_ctinfo_act`,
            // net/sched/act_ctinfo.c).
            "connmark" | "ctinfo" => {
                let write = RuleAction::WritesMark(u32::MAX);
                found.push(RuleAction::WithConnection(Box::new(write)));
            }
            _ => {}
        }
    }
    Ok(found)
}

/// Interprets an action skbedit (`tcf_skbedit_act`, `net/sched/act_skbedit.c`).
fn edit(options: &[u8], found: &mut Vec<RuleAction>) -> Result<(), DecodeError> {
    if attribute(options, SKBEDIT_MARK)?.is_some() {
        let mask = attribute(options, SKBEDIT_MASK)?;
        let mask = mask.map(parse_u32).transpose()?;
        found.push(RuleAction::WritesMark(mask.unwrap_or(u32::MAX)));
    }
    let flags = attribute(options, SKBEDIT_FLAGS)?.and_then(|flags| flags.try_into().ok());
    let inherits = flags.map_or(0, u64::from_ne_bytes) & INHERIT_DSFIELD != 0;
    if inherits || attribute(options, SKBEDIT_PRIORITY)?.is_some() {
        found.push(RuleAction::WritesPriority);
    }
    Ok(())
}

/// Returns a kind's name; others' may have any shape.
fn name(kind: Option<&[u8]>) -> String {
    kind.and_then(|kind| parse_string(kind).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nla(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    /// A filter's message: struct tcmsg, with its handle at 8 and its info at 16.
    fn filter(kind: &str, list: u16, action: &str, options: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = vec![0; 20];
        bytes[8..12].copy_from_slice(&0x0001_0002_u32.to_ne_bytes());
        bytes[16..20].copy_from_slice(&(7_u32 << 16).to_ne_bytes());
        let action = [
            nla(ACTION_KIND, format!("{action}\0").as_bytes()),
            nla(ACTION_OPTIONS, &options.concat()),
        ];
        bytes.extend(nla(TCA_KIND, format!("{kind}\0").as_bytes()));
        let first = nla(1, &action.concat());
        bytes.extend(nla(TCA_OPTIONS, &nla(list, &first)));
        bytes
    }

    #[test]
    fn actions_are_told_by_their_options() {
        let word = |kind, value: u32| nla(kind, &value.to_ne_bytes());
        let flags = |flags: u64| nla(SKBEDIT_FLAGS, &flags.to_ne_bytes());
        let restored = RuleAction::WithConnection(Box::new(RuleAction::WritesMark(u32::MAX)));
        let (mark, priority) = (RuleAction::WritesMark, RuleAction::WritesPriority);
        for (row, filter, expected) in [
            (
                "a mark",
                filter("u32", 7, "skbedit", &[word(SKBEDIT_MARK, 1)]),
                vec![mark(u32::MAX)],
            ),
            (
                "some bits of it, and the priority",
                filter(
                    "flower",
                    3,
                    "skbedit",
                    &[
                        word(SKBEDIT_PRIORITY, 1),
                        word(SKBEDIT_MARK, 1),
                        word(SKBEDIT_MASK, 0xff),
                    ],
                ),
                vec![mark(0xff), priority.clone()],
            ),
            (
                "the priority by the DS field",
                filter("matchall", 2, "skbedit", &[flags(INHERIT_DSFIELD)]),
                vec![priority],
            ),
            (
                "another flag",
                filter("matchall", 2, "skbedit", &[flags(0x40)]),
                vec![],
            ),
            (
                "another type of packet",
                filter("matchall", 2, "skbedit", &[nla(7, &[0, 0])]),
                vec![],
            ),
            (
                "a connection's mark",
                filter("bpf", 1, "connmark", &[]),
                vec![restored],
            ),
            ("a verdict", filter("u32", 7, "gact", &[]), vec![]),
            (
                "an unknown kind",
                filter("nonesuch", 7, "skbedit", &[word(SKBEDIT_MARK, 1)]),
                vec![],
            ),
        ] {
            let found = rule("qr-1", &filter).unwrap();
            let actions = found.map(|(_, rule)| rule.actions).unwrap_or_default();
            assert_eq!(actions, expected, "{row}");
            for end in 0..filter.len() {
                // Whatever is left of it, it does not panic.
                drop(rule("qr-1", &filter[..end]));
            }
        }
    }

    #[test]
    fn a_filter_is_told_by_its_interface_and_place() {
        let filter = filter("u32", 7, "connmark", &[]);
        let (chain, rule) = rule("qr-1", &filter).unwrap().unwrap();
        assert_eq!(chain.hook, Some(Hook::TcFilter(7)));
        let place = format!("{} {}", rule.table, rule.chain);
        assert_eq!(place, "tc qr-1 ingress pref 7");
        assert_eq!(rule.handle, 0x0001_0002);
    }
}
