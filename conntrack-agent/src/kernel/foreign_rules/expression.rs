//! Interprets the expressions of nftables rules as far as they concern the agent.
//!
//! Attributes: `include/uapi/linux/netfilter/nf_tables.h` and, for the targets and
//! matches of iptables that a rule can contain, `nf_tables_compat.h`. An expression
//! that is not known here is taken to do nothing of concern, and to change any
//! register.

#[cfg(test)]
mod tests;

use std::io;

use super::{
    bytes::text,
    registers::{Content, Mark, Registers},
    ruleset::{RuleAction, RuleScope},
    xtables,
};
use crate::kernel::netfilter::attributes;

/// The attribute `NFTA_LIST_ELEM`, and in it `NFTA_EXPR_NAME` and `NFTA_EXPR_DATA`.
const ELEMENT: u16 = 1;
const NAME: u16 = 1;
const DATA: u16 = 2;

/// The attributes `NFTA_DATA_VALUE` and `NFTA_DATA_VERDICT`, and in the latter
/// `NFTA_VERDICT_CHAIN`.
const VALUE: u16 = 1;
const VERDICT: u16 = 2;
const VERDICT_CHAIN: u16 = 2;

/// The keys `NFT_CT_STATE` and `NFT_CT_MARK` of `enum nft_ct_keys`.
const CT_STATE: u32 = 0;
const CT_MARK: u32 = 3;

/// The flag `NFTA_FIB_F_MARK` of `enum nft_fib_flags`: the mark is part of the lookup
/// key.
const FIB_MARK: u32 = 1 << 2;

/// The keys `NFT_META_PRIORITY`, `NFT_META_MARK` and `NFT_META_L4PROTO` of `enum
/// nft_meta_keys`.
const PRIORITY: u32 = 2;
const MARK: u32 = 3;
const TRANSPORT_PROTOCOL: u32 = 16;

/// The bases `NFT_PAYLOAD_NETWORK_HEADER` and `…_TRANSPORT_HEADER`, with offset and
/// length of IPv4's protocol, and of the destination port.
const PROTOCOL_FIELD: [u32; 3] = [1, 9, 1];
const PORT_FIELD: [u32; 3] = [2, 2, 2];

/// The object type `NFT_OBJECT_CT_HELPER`.
pub(super) const CT_HELPER: u32 = 3;

/// The register of the verdict: `NFT_REG_VERDICT`.
const TO_VERDICT: u32 = 0;

/// An expression that compares registers, or makes a value of them in a way that isn't
/// followed, with the attributes that name these registers.
struct Opaque {
    name: &'static str,
    /// A key, which may have several fields.
    key: Option<u16>,
    /// The register of the new value.
    to: Option<u16>,
}

/// The attributes are `NFTA_LOOKUP_SREG` and `_DREG`, `NFTA_DYNSET_SREG_KEY`,
/// `NFTA_HASH_SREG` and `_DREG`, `NFTA_EXTHDR_DREG`, `NFTA_FIB_DREG`, `NFTA_RT_DREG`.
#[rustfmt::skip]
const OPAQUE: [Opaque; 7] = [
    Opaque { name: "lookup", key: Some(2), to: Some(3) },
    Opaque { name: "dynset", key: Some(4), to: None },
    Opaque { name: "hash", key: Some(1), to: Some(2) },
    Opaque { name: "exthdr", key: None, to: Some(1) },
    Opaque { name: "fib", key: None, to: Some(1) },
    Opaque { name: "rt", key: None, to: Some(1) },
    Opaque { name: "counter", key: None, to: None },
];

/// Returns the scope and the actions of a rule with these expressions; `gives_helpers`
/// tells whether a map of its table holds helpers.
///
/// # Errors
/// An error if the expressions are damaged.
pub(super) fn actions(
    expressions: &[u8],
    gives_helpers: impl Fn(&[u8]) -> bool,
) -> io::Result<(RuleScope, Vec<RuleAction>)> {
    let mut rule = Interpreter::default();
    let mut needs_connection = false;
    for element in attributes(expressions) {
        let (kind, element) = element?;
        if plain(kind) != ELEMENT {
            continue;
        }
        let name = find(element, NAME)?.map(text).unwrap_or_default();
        let data = find(element, DATA)?.unwrap_or_default();
        let before = rule.actions.len();
        match name.as_str() {
            "meta" => rule.meta(data)?,
            "payload" => rule.payload(data)?,
            "bitwise" => rule.bitwise(data)?,
            "byteorder" => rule.byteorder(data)?,
            "cmp" => rule.compare(data)?,
            // NFTA_RANGE_SREG.
            "range" => rule.read(number(data, 1)?),
            "ct" => needs_connection |= rule.connection(data)?,
            "immediate" => rule.immediate(data)?,
            "objref" => rule.object(data, &gives_helpers)?,
            "notrack" => rule.actions.push(RuleAction::SetsUntracked),
            "nat" | "masq" | "redir" => rule.actions.push(RuleAction::Translates),
            // NFTA_TARGET_NAME, _REV, _INFO; NFTA_MATCH_NAME, _INFO.
            "target" | "match" => {
                let of = find(data, 1)?.map(text).unwrap_or_default();
                let info = find(data, 3)?.unwrap_or_default();
                if name == "match" {
                    xtables::match_of(&of, info, &mut rule.scope, &mut rule.actions);
                } else {
                    let revision = number(data, 2)?.unwrap_or_default();
                    xtables::target(&of, revision, info, &mut rule.actions);
                }
            }
            name => rule.other(name, data)?,
        }
        if needs_connection {
            rule.actions[before..].iter_mut().for_each(with_connection);
        }
    }
    Ok((rule.scope, rule.actions))
}

/// A rule as far as its expressions have been interpreted.
#[derive(Default)]
struct Interpreter {
    registers: Registers,
    scope: RuleScope,
    actions: Vec<RuleAction>,
}

impl Interpreter {
    /// Interprets a `meta` expression: `NFTA_META_DREG`, `_KEY`, `_SREG`.
    fn meta(&mut self, data: &[u8]) -> io::Result<()> {
        let key = number(data, 2)?;
        if let Some(to) = number(data, 1)? {
            let content = match key {
                Some(MARK) => Some(Content::Mark(Mark::WHOLE)),
                Some(TRANSPORT_PROTOCOL) => Some(Content::Protocol),
                _ => None,
            };
            self.registers.load(to, content);
        }
        let from = number(data, 3)?;
        match key {
            _ if from.is_none() => {}
            // A value that isn't made of the mark replaces all of it.
            Some(MARK) => {
                let bits = self.registers.mark(from).map_or(u32::MAX, Mark::changed);
                self.actions.push(RuleAction::WritesMark(bits));
            }
            Some(PRIORITY) => self.actions.push(RuleAction::WritesPriority),
            _ => {}
        }
        Ok(())
    }

    /// Interprets a `payload` expression: `NFTA_PAYLOAD_DREG`, `_BASE`, `_OFFSET`,
    /// `_LEN`.
    fn payload(&mut self, data: &[u8]) -> io::Result<()> {
        let mut field = [0; 3];
        for (value, kind) in field.iter_mut().zip(2..) {
            *value = number(data, kind)?.unwrap_or(u32::MAX);
        }
        let content = match field {
            PROTOCOL_FIELD => Some(Content::Protocol),
            PORT_FIELD => Some(Content::Port),
            _ => None,
        };
        if let Some(to) = number(data, 1)? {
            self.registers.load(to, content);
        }
        Ok(())
    }

    /// Interprets a `cmp` expression: `NFTA_CMP_SREG`, `_OP`, where 0 is
    /// `NFT_CMP_EQ`, `_DATA`.
    fn compare(&mut self, data: &[u8]) -> io::Result<()> {
        let from = number(data, 1)?;
        self.read(from);
        if number(data, 2)? != Some(0) {
            return Ok(());
        }
        let with = find(find(data, 3)?.unwrap_or_default(), VALUE)?;
        match (self.registers.content(from), with) {
            (Some(Content::Protocol), Some([protocol])) => self.scope.protocol = Some(*protocol),
            (Some(Content::Port), Some([high, low])) => {
                self.scope.port = Some(u16::from_be_bytes([*high, *low]));
            }
            _ => {}
        }
        Ok(())
    }

    /// Interprets a `ct` expression: `NFTA_CT_DREG`, `_KEY`, `_SREG`. Returns whether
    /// the rule goes on only with a packet that has a connection, as it does after it
    /// has asked for anything but the state (`nft_ct_get_eval`,
    /// `net/netfilter/nft_ct.c`).
    fn connection(&mut self, data: &[u8]) -> io::Result<bool> {
        let key = number(data, 2)?;
        let first = self.actions.len();
        self.read(number(data, 4)?);
        // Other keys, like the zone, are for the connection that is to be made.
        if key == Some(CT_MARK) {
            self.actions[first..].iter_mut().for_each(with_connection);
        }
        let Some(to) = number(data, 1)? else {
            return Ok(false);
        };
        self.registers.load(to, None);
        Ok(key != Some(CT_STATE))
    }

    /// Interprets a `bitwise` expression: `NFTA_BITWISE_SREG`, `_DREG`, `_MASK`,
    /// `_XOR`, `_OP`, where 0 is `NFT_BITWISE_MASK_XOR`, and `_SREG2`, for an operation
    /// on two registers.
    fn bitwise(&mut self, data: &[u8]) -> io::Result<()> {
        let one = self.registers.mark(number(data, 1)?);
        let other = self.registers.mark(number(data, 8)?);
        let (mask, flip) = (word(find(data, 4)?)?, word(find(data, 5)?)?);
        let is_plain = number(data, 6)?.unwrap_or_default() == 0;
        let made = match (one, other, mask.zip(flip)) {
            (Some(one), None, Some((mask, flip))) if is_plain => Some(one.masked(mask, flip)),
            (Some(one), None, _) | (None, Some(one), _) => Some(one.in_another_form()),
            (Some(one), Some(other), _) => Some(Mark {
                kept: one.kept | other.kept,
                flipped: None,
            }),
            (None, None, _) => None,
        };
        if let Some(to) = number(data, 2)? {
            self.registers.replace(to, made.map(Content::Mark));
        }
        Ok(())
    }

    /// Interprets a `byteorder` expression, which precedes a comparison by size:
    /// `NFTA_BYTEORDER_SREG`, `_DREG`.
    fn byteorder(&mut self, data: &[u8]) -> io::Result<()> {
        let mark = self.registers.mark(number(data, 1)?);
        if let Some(to) = number(data, 2)? {
            let swapped = mark.map(Mark::in_another_form);
            self.registers.load(to, swapped.map(Content::Mark));
        }
        Ok(())
    }

    /// Interprets an `immediate` expression: `NFTA_IMMEDIATE_DREG`, `_DATA`.
    fn immediate(&mut self, data: &[u8]) -> io::Result<()> {
        if let Some(to) = number(data, 1)? {
            self.registers.load(to, None);
        }
        let value = find(data, 2)?.unwrap_or_default();
        let verdict = find(value, VERDICT)?.unwrap_or_default();
        let chain = find(verdict, VERDICT_CHAIN)?.map(text);
        self.actions.extend(chain.map(RuleAction::Jumps));
        Ok(())
    }

    /// Interprets an `objref` expression: `NFTA_OBJREF_IMM_TYPE` and `_IMM_NAME`, or
    /// `_SET_NAME`.
    fn object(&mut self, data: &[u8], gives_helpers: impl Fn(&[u8]) -> bool) -> io::Result<()> {
        if number(data, 1)? == Some(CT_HELPER) {
            let helper = find(data, 2)?.map(text);
            self.actions.push(RuleAction::GivesHelper(helper));
        } else if find(data, 4)?.is_some_and(gives_helpers) {
            self.actions.push(RuleAction::GivesHelper(None));
        }
        Ok(())
    }

    /// Interprets any other expression.
    fn other(&mut self, name: &str, data: &[u8]) -> io::Result<()> {
        let Some(opaque) = OPAQUE.iter().find(|opaque| opaque.name == name) else {
            self.registers.blur();
            return Ok(());
        };
        // NFTA_FIB_FLAGS.
        if name == "fib" && number(data, 3)?.unwrap_or_default() & FIB_MARK != 0 {
            self.actions.push(RuleAction::ReadsMark(u32::MAX));
        }
        if let Some(key) = opaque.key {
            let marks = self.registers.marks_from(number(data, key)?);
            let read = marks.map(|mark| RuleAction::ReadsMark(mark.kept));
            self.actions.extend(read);
        }
        match opaque.to.map(|to| number(data, to)).transpose()?.flatten() {
            Some(TO_VERDICT) => self.actions.push(RuleAction::JumpsByMap),
            Some(to) => self.registers.load(to, None),
            None => {}
        }
        Ok(())
    }

    /// Records that the value of one register is used.
    fn read(&mut self, from: Option<u32>) {
        let mark = self.registers.mark(from);
        let read = mark.map(|mark| RuleAction::ReadsMark(mark.kept));
        self.actions.extend(read);
    }
}

/// Limits an action to packets that have a connection.
fn with_connection(action: &mut RuleAction) {
    if matches!(
        action,
        RuleAction::ReadsMark(_) | RuleAction::WritesMark(_) | RuleAction::WritesPriority
    ) {
        *action = RuleAction::WithConnection(Box::new(action.clone()));
    }
}

/// Returns a register's value: four bytes, in this machine's byte order.
fn word(data: Option<&[u8]>) -> io::Result<Option<u32>> {
    let Some(data) = data else { return Ok(None) };
    let value = find(data, VALUE)?;
    let value = value.and_then(|value| value.try_into().ok());
    Ok(value.map(u32::from_ne_bytes))
}

/// Returns the number in an attribute, which is big-endian there.
pub(super) fn number(data: &[u8], wanted: u16) -> io::Result<Option<u32>> {
    let value = find(data, wanted)?.and_then(|value| value.try_into().ok());
    Ok(value.map(u32::from_be_bytes))
}

/// Returns the value of the first attribute of this type.
fn find(data: &[u8], wanted: u16) -> io::Result<Option<&[u8]>> {
    for attribute in attributes(data) {
        let (kind, value) = attribute?;
        if plain(kind) == wanted {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

const fn plain(kind: u16) -> u16 {
    kind & !netlink_packet_core::NLA_F_NESTED
}
