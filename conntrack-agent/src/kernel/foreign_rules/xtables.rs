//! Interprets iptables' targets and matches, which legacy tables and nftables rules of
//! iptables-nft have in the same form.
//!
//! Layouts: `include/uapi/linux/netfilter/xt_….h`.

use super::{
    bytes::{text, u16_at, u32_at},
    ruleset::{RuleAction, RuleScope},
};

/// The flag `XT_CT_NOTRACK`.
const NOTRACK: u16 = 1;

/// The mode `XT_CONNMARK_RESTORE`.
const RESTORE: u8 = 2;

/// The flag `XT_TCP_INV_DSTPT`, which is `XT_UDP_INV_DSTPT` too.
const OTHER_PORTS: u8 = 2;

/// Adds the actions of a target with this data.
pub(super) fn target(name: &str, revision: u32, info: &[u8], actions: &mut Vec<RuleAction>) {
    actions.extend(match name {
        "CT" => assignment(info),
        "NOTRACK" => Some(RuleAction::SetsUntracked),
        // struct xt_mark_tginfo2: u32 mark, u32 mask; the new mark is `mark & ~mask ^
        // mark` (`mark_tg`, net/netfilter/xt_mark.c).
        "MARK" => {
            let bits = words(info).map_or(u32::MAX, |[mark, mask]| mark | mask);
            Some(RuleAction::WritesMark(bits))
        }
        "CONNMARK" => restored_mark(revision, info),
        "CLASSIFY" => Some(RuleAction::WritesPriority),
        "DNAT" | "SNAT" | "MASQUERADE" | "REDIRECT" | "NETMAP" => Some(RuleAction::Translates),
        _ => None,
    });
}

/// Interprets a target CT: struct `xt_ct_target_info`, u16 flags, u16 zone, u32
/// `ct_events`, u32 `exp_events`, char helper\[16\].
fn assignment(info: &[u8]) -> Option<RuleAction> {
    if u16_at(info, 0)? & NOTRACK != 0 {
        return Some(RuleAction::SetsUntracked);
    }
    let helper = text(info.get(12..28)?);
    (!helper.is_empty()).then_some(RuleAction::GivesHelper(Some(helper)))
}

/// Interprets a target CONNMARK: struct `xt_connmark_tginfo1` (`connmark_tg`,
/// `net/netfilter/xt_connmark.c`), u32 ctmark, u32 ctmask, u32 nfmask, u8 mode; in
/// revision 2 two bytes of a shift before the mode. A packet without a connection
/// stays as it is.
fn restored_mark(revision: u32, info: &[u8]) -> Option<RuleAction> {
    let (mode, shift) = match revision {
        1 => (info.get(12), Some(&0)),
        _ => (info.get(14), info.get(13)),
    };
    if mode.is_some_and(|mode| *mode != RESTORE) {
        return None;
    }
    let bits = words(info).filter(|_| shift == Some(&0));
    let bits = bits.map_or(u32::MAX, |[_, from, to]| from | to);
    let write = RuleAction::WritesMark(bits);
    Some(RuleAction::WithConnection(Box::new(write)))
}

/// Adds what a match with this data says of a rule.
pub(super) fn match_of(
    name: &str,
    info: &[u8],
    scope: &mut RuleScope,
    actions: &mut Vec<RuleAction>,
) {
    // struct xt_tcp and struct xt_udp: u16 spts[2], u16 dpts[2], and for TCP three
    // bytes; u8 invflags.
    let (protocol, inverted) = match name {
        // struct xt_mark_mtinfo1: u32 mark, u32 mask.
        "mark" => {
            let bits = words(info).map_or(u32::MAX, |[_, mask]| mask);
            actions.push(RuleAction::ReadsMark(bits));
            return;
        }
        "tcp" => (6, info.get(11)),
        "udp" => (17, info.get(8)),
        _ => return,
    };
    scope.protocol = Some(protocol);
    let port = u16_at(info, 4).filter(|first| u16_at(info, 6) == Some(*first));
    if let (Some(port), Some(0)) = (port, inverted.map(|flags| flags & OTHER_PORTS)) {
        scope.port = Some(port);
    }
}

/// Returns the first words of a struct.
fn words<const N: usize>(info: &[u8]) -> Option<[u32; N]> {
    let mut words = [0; N];
    for (number, word) in words.iter_mut().enumerate() {
        *word = u32_at(info, number * 4)?;
    }
    Some(words)
}
