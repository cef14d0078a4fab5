//! Interprets the expressions of nftables rules as far as they set marks, priority or
//! helpers.
//!
//! Attributes: `include/uapi/linux/netfilter/nf_tables.h` and, for the targets and
//! matches of iptables that a rule can contain, `nf_tables_compat.h`, `xt_mark.h`,
//! `xt_connmark.h` and `xt_CT.h`. An expression that is not known here is taken to do
//! none of this, and to change any register: a register that held the mark may still
//! hold it when it is read, and counts as any value when it is written to the mark.

use std::{collections::BTreeMap, io};

use super::message::attributes;
use crate::kernel::ruleset::RuleAction;

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

/// The keys `NFT_META_PRIORITY` and `NFT_META_MARK` of `enum nft_meta_keys`.
const PRIORITY: u32 = 2;
const MARK: u32 = 3;

/// The object type `NFT_OBJECT_CT_HELPER`.
pub(super) const CT_HELPER: u32 = 3;

/// The mode `XT_CONNMARK_RESTORE`.
const RESTORE: u8 = 2;

/// The content of a register that is made of the mark.
#[derive(Clone, Copy)]
struct Mark {
    /// The bits of the mark that it is made of.
    kept: u32,
    /// The bits that are flipped: the value is `mark & kept ^ flipped`. `None` where
    /// it is something else made of these bits, like the same in another byte order.
    flipped: Option<u32>,
}

const WHOLE: Mark = Mark {
    kept: u32::MAX,
    flipped: Some(0),
};

impl Mark {
    /// Returns the bits of the mark that change where this value is written to the
    /// mark.
    fn changed(self) -> u32 {
        self.flipped
            .map_or(u32::MAX, |flipped| !self.kept | flipped)
    }
}

/// The registers that hold the packet's mark.
type Registers = BTreeMap<u32, Mark>;

/// Returns the actions of a rule with these expressions; `gives_helpers` tells
/// whether a map of its table holds helpers.
///
/// # Errors
/// An error if the expressions are damaged.
pub(super) fn deeds(
    expressions: &[u8],
    gives_helpers: impl Fn(&[u8]) -> bool,
) -> io::Result<Vec<RuleAction>> {
    let mut deeds = Vec::new();
    let mut registers = Registers::new();
    let mut needs_connection = false;
    for element in attributes(expressions) {
        let (kind, element) = element?;
        if plain(kind) != ELEMENT {
            continue;
        }
        let name = find(element, NAME)?.map(text).unwrap_or_default();
        let data = find(element, DATA)?.unwrap_or_default();
        let before = deeds.len();
        match name.as_str() {
            "meta" => meta(data, &mut registers, &mut deeds)?,
            "bitwise" => bitwise(data, &mut registers)?,
            "byteorder" => byteorder(data, &mut registers)?,
            "ct" => needs_connection |= connection(data, &mut registers, &mut deeds)?,
            // NFTA_CMP_SREG, NFTA_RANGE_SREG.
            "cmp" | "range" => read(&registers, number(data, 1)?, &mut deeds),
            "lookup" => {
                // NFTA_LOOKUP_SREG and _DREG, where 0 is the verdict.
                read_key(&registers, number(data, 2)?, &mut deeds);
                match number(data, 3)? {
                    Some(0) => deeds.push(RuleAction::JumpsByMap),
                    Some(to) => overwrite(&mut registers, to),
                    None => {}
                }
            }
            // NFTA_DYNSET_SREG_KEY.
            "dynset" => read_key(&registers, number(data, 4)?, &mut deeds),
            "hash" => {
                // NFTA_HASH_SREG and _DREG.
                read_key(&registers, number(data, 1)?, &mut deeds);
                if let Some(to) = number(data, 2)? {
                    overwrite(&mut registers, to);
                }
            }
            // NFTA_PAYLOAD_DREG, NFTA_EXTHDR_DREG, NFTA_FIB_DREG, NFTA_RT_DREG.
            "payload" | "exthdr" | "fib" | "rt" => {
                // NFTA_FIB_FLAGS.
                if name == "fib" && number(data, 3)?.unwrap_or_default() & FIB_MARK != 0 {
                    deeds.push(RuleAction::ReadsMark(u32::MAX));
                }
                if let Some(to) = number(data, 1)? {
                    overwrite(&mut registers, to);
                }
            }
            "immediate" => {
                // NFTA_IMMEDIATE_DREG, _DATA.
                if let Some(to) = number(data, 1)? {
                    overwrite(&mut registers, to);
                }
                let value = find(data, 2)?.unwrap_or_default();
                let verdict = find(value, VERDICT)?.unwrap_or_default();
                if let Some(chain) = find(verdict, VERDICT_CHAIN)? {
                    deeds.push(RuleAction::Jumps(text(chain)));
                }
            }
            "objref" => objref(data, &gives_helpers, &mut deeds)?,
            "target" => target(data, &mut deeds)?,
            "match" => matching(data, &mut deeds)?,
            "counter" => {}
            _ => registers.values_mut().for_each(|mark| mark.flipped = None),
        }
        if needs_connection {
            deeds[before..].iter_mut().for_each(with_connection);
        }
    }
    Ok(deeds)
}

/// Interprets a `meta` expression: `NFTA_META_DREG`, `_KEY`, `_SREG`.
fn meta(data: &[u8], registers: &mut Registers, deeds: &mut Vec<RuleAction>) -> io::Result<()> {
    let key = number(data, 2)?;
    if let Some(to) = number(data, 1)? {
        overwrite(registers, to);
        if key == Some(MARK) {
            registers.insert(normal(to), WHOLE);
        }
    }
    if let Some(from) = number(data, 3)? {
        match key {
            Some(MARK) => {
                let value = registers.get(&normal(from));
                // A value that isn't made of the mark replaces all of it.
                let bits = value.map_or(u32::MAX, |mark| mark.changed());
                deeds.push(RuleAction::WritesMark(bits));
            }
            Some(PRIORITY) => deeds.push(RuleAction::WritesPriority),
            _ => {}
        }
    }
    Ok(())
}

/// Interprets a `ct` expression: `NFTA_CT_DREG`, `_KEY`, `_SREG`. Returns whether the
/// rule goes on only with a packet that has a connection, as it does after it has
/// asked for anything but the state (`nft_ct_get_eval`, `net/netfilter/nft_ct.c`).
fn connection(
    data: &[u8],
    registers: &mut Registers,
    deeds: &mut Vec<RuleAction>,
) -> io::Result<bool> {
    let key = number(data, 2)?;
    if let Some(from) = number(data, 4)? {
        let first = deeds.len();
        read(registers, Some(from), deeds);
        // Other keys, like the zone, are for the connection that is to be made.
        if key == Some(CT_MARK) {
            deeds[first..].iter_mut().for_each(with_connection);
        }
    }
    let Some(to) = number(data, 1)? else {
        return Ok(false);
    };
    overwrite(registers, to);
    Ok(key != Some(CT_STATE))
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

/// Interprets a `bitwise` expression: `NFTA_BITWISE_SREG`, `_DREG`, `_MASK`, `_XOR`,
/// `_OP`, where 0 is `NFT_BITWISE_MASK_XOR`, and `_SREG2`, for an operation on two
/// registers.
fn bitwise(data: &[u8], registers: &mut Registers) -> io::Result<()> {
    let of = |register: Option<u32>| registers.get(&normal(register?)).copied();
    let from = [of(number(data, 1)?), of(number(data, 8)?)];
    let Some(to) = number(data, 2)? else {
        return Ok(());
    };
    let (mask, flip) = (word(find(data, 4)?)?, word(find(data, 5)?)?);
    let is_plain = number(data, 6)?.unwrap_or_default() == 0;
    registers.remove(&normal(to));
    let made = match (from, mask.zip(flip)) {
        ([None, None], _) => return Ok(()),
        (
            [
                Some(Mark {
                    kept,
                    flipped: Some(flipped),
                }),
                None,
            ],
            Some((mask, flip)),
        ) if is_plain => Mark {
            kept: kept & mask,
            flipped: Some(flipped & mask ^ flip),
        },
        (from, _) => Mark {
            kept: from.iter().flatten().fold(0, |all, mark| all | mark.kept),
            flipped: None,
        },
    };
    registers.insert(normal(to), made);
    Ok(())
}

/// Interprets a `byteorder` expression, which precedes a comparison by size:
/// `NFTA_BYTEORDER_SREG`, `_DREG`.
fn byteorder(data: &[u8], registers: &mut Registers) -> io::Result<()> {
    let from = number(data, 1)?.and_then(|from| registers.get(&normal(from)).copied());
    if let Some(to) = number(data, 2)? {
        overwrite(registers, to);
        if let Some(Mark { kept, .. }) = from {
            let flipped = None;
            registers.insert(normal(to), Mark { kept, flipped });
        }
    }
    Ok(())
}

/// Removes what a register held when a value of any length is written to it: 16 bytes
/// at most (`NFT_REG_SIZE`).
fn overwrite(registers: &mut Registers, to: u32) {
    let first = normal(to);
    registers.retain(|register, _| !(first..first.saturating_add(4)).contains(register));
}

fn read(registers: &Registers, from: Option<u32>, deeds: &mut Vec<RuleAction>) {
    if let Some(mark) = from.and_then(|from| registers.get(&normal(from))) {
        deeds.push(RuleAction::ReadsMark(mark.kept));
    }
}

/// Records the read of a key, which may have several fields, one behind the other.
fn read_key(registers: &Registers, from: Option<u32>, deeds: &mut Vec<RuleAction>) {
    let from = from.map_or(u32::MAX, normal);
    let marks = registers.range(from..).map(|(_, mark)| mark.kept);
    deeds.extend(marks.map(RuleAction::ReadsMark));
}

/// Interprets an `objref` expression: `NFTA_OBJREF_IMM_TYPE` and `_IMM_NAME`, or
/// `_SET_NAME`.
fn objref(
    data: &[u8],
    gives_helpers: impl Fn(&[u8]) -> bool,
    deeds: &mut Vec<RuleAction>,
) -> io::Result<()> {
    if number(data, 1)? == Some(CT_HELPER) {
        deeds.push(RuleAction::GivesHelper(find(data, 2)?.map(text)));
    } else if let Some(set) = find(data, 4)?
        && gives_helpers(set)
    {
        deeds.push(RuleAction::GivesHelper(None));
    }
    Ok(())
}

/// Interprets a `target` expression: `NFTA_TARGET_NAME`, `_REV`, `_INFO`.
fn target(data: &[u8], deeds: &mut Vec<RuleAction>) -> io::Result<()> {
    let name = find(data, 1)?.map(text).unwrap_or_default();
    let revision = number(data, 2)?.unwrap_or_default();
    let info = find(data, 3)?.unwrap_or_default();
    match name.as_str() {
        // struct xt_ct_target_info: u16 flags, u16 zone, u32 ct_events, u32
        // exp_events, char helper[16].
        "CT" => {
            let helper = info.get(12..28).map(text).unwrap_or_default();
            if !helper.is_empty() {
                deeds.push(RuleAction::GivesHelper(Some(helper)));
            }
        }
        // struct xt_mark_tginfo2: u32 mark, u32 mask; the new mark is `mark & ~mask ^
        // mark` (`mark_tg`, net/netfilter/xt_mark.c).
        "MARK" => {
            let bits = words(info).map_or(u32::MAX, |[mark, mask]| mark | mask);
            deeds.push(RuleAction::WritesMark(bits));
        }
        // struct xt_connmark_tginfo1 (`connmark_tg`, net/netfilter/xt_connmark.c): u32
        // ctmark, u32 ctmask, u32 nfmask, u8 mode; in revision 2 two bytes of a
        // shift before the mode. A packet without a connection stays as it is.
        "CONNMARK" => {
            let (mode, shift) = match revision {
                1 => (info.get(12), Some(&0)),
                _ => (info.get(14), info.get(13)),
            };
            if mode.is_none_or(|mode| *mode == RESTORE) {
                let bits = words(info).filter(|_| shift == Some(&0));
                let bits = bits.map_or(u32::MAX, |[_, from, to]| from | to);
                deeds.push(RuleAction::WithConnection(Box::new(
                    RuleAction::WritesMark(bits),
                )));
            }
        }
        _ => {}
    }
    Ok(())
}

/// Interprets a `match` expression: `NFTA_MATCH_NAME`, `_INFO`. struct
/// `xt_mark_mtinfo1`: u32 mark, u32 mask.
fn matching(data: &[u8], deeds: &mut Vec<RuleAction>) -> io::Result<()> {
    if find(data, 1)?.map(text).as_deref() == Some("mark") {
        let info = find(data, 3)?.unwrap_or_default();
        let bits = words(info).map_or(u32::MAX, |[_, mask]| mask);
        deeds.push(RuleAction::ReadsMark(bits));
    }
    Ok(())
}

/// Returns the first words of a struct, in this machine's byte order.
fn words<const N: usize>(info: &[u8]) -> Option<[u32; N]> {
    let (words, _) = info.as_chunks();
    let words: [[u8; 4]; N] = words.get(..N)?.try_into().ok()?;
    Some(words.map(u32::from_ne_bytes))
}

/// Returns the number of a register's first four bytes: 1 to 4 are names of four such
/// registers each (`nft_parse_register`, `net/netfilter/nf_tables_api.c`).
const fn normal(register: u32) -> u32 {
    match register {
        1..=4 => 8 + (register - 1) * 4,
        _ => register,
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
pub(super) fn find(data: &[u8], wanted: u16) -> io::Result<Option<&[u8]>> {
    for attribute in attributes(data) {
        let (kind, value) = attribute?;
        if plain(kind) == wanted {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

/// Returns a name, which ends at its first NUL, if it has one.
pub(super) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0);
    let name = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}

const fn plain(kind: u16) -> u16 {
    kind & !netlink_packet_core::NLA_F_NESTED
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An attribute.
    fn nla(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn be(kind: u16, number: u32) -> Vec<u8> {
        nla(kind, &number.to_be_bytes())
    }

    fn value(kind: u16, word: u32) -> Vec<u8> {
        nla(kind, &nla(VALUE, &word.to_ne_bytes()))
    }

    fn expression(name: &str, data: &[Vec<u8>]) -> Vec<u8> {
        let name = nla(NAME, format!("{name}\0").as_bytes());
        nla(ELEMENT, &[name, nla(DATA, &data.concat())].concat())
    }

    fn load_mark() -> Vec<u8> {
        expression("meta", &[be(2, MARK), be(1, 1)])
    }

    fn set_mark() -> Vec<u8> {
        expression("meta", &[be(2, MARK), be(3, 1)])
    }

    fn masked(mask: u32, flip: u32) -> Vec<u8> {
        expression(
            "bitwise",
            &[be(1, 1), be(2, 1), value(4, mask), value(5, flip)],
        )
    }

    fn xt(kind: &str, name: &str, revision: u32, info: &[u8]) -> Vec<u8> {
        let name = nla(1, format!("{name}\0").as_bytes());
        expression(kind, &[name, be(2, revision), nla(3, info)])
    }

    #[track_caller]
    fn check(expressions: &[Vec<u8>], expected: &[RuleAction]) {
        let bytes = expressions.concat();
        let found = deeds(&bytes, |set| set == b"helpers\0").unwrap();
        assert_eq!(found, expected);
        for end in 0..bytes.len() {
            // Whatever is left of it, it does not panic.
            let _ = deeds(&bytes[..end], |_| true);
        }
    }

    #[test]
    fn a_mark_is_written_in_the_bits_that_can_change() {
        let immediate = expression("immediate", &[be(1, 1), value(2, 5)]);
        check(
            &[immediate, set_mark()],
            &[RuleAction::WritesMark(u32::MAX)],
        );
        check(
            &[load_mark(), masked(0xffff_ff00, 0x0000_0012), set_mark()],
            &[RuleAction::WritesMark(0xff)],
        );
        check(
            &[load_mark(), masked(u32::MAX, 0x0100_0000), set_mark()],
            &[RuleAction::WritesMark(0x0100_0000)],
        );
        check(
            &[
                load_mark(),
                masked(0xffff_fff0, 0),
                masked(0xffff_ff0f, 1),
                set_mark(),
            ],
            &[RuleAction::WritesMark(0xff)],
        );
        // What is in between may have changed the register.
        let length = || expression("meta", &[be(2, 0), be(1, 1)]);
        check(
            &[load_mark(), length(), set_mark()],
            &[RuleAction::WritesMark(u32::MAX)],
        );
        let unknown = expression("nonesuch", &[be(1, 1)]);
        check(
            &[load_mark(), unknown, set_mark()],
            &[RuleAction::WritesMark(u32::MAX)],
        );
    }

    /// As `meta mark 1-5` and `meta mark < 0x100` are: numbers are compared by size
    /// with their highest byte first.
    #[test]
    fn a_mark_in_another_form_is_still_read_and_counts_as_anything_when_written() {
        let swapped = || expression("byteorder", &[be(1, 1), be(2, 1), be(3, 1)]);
        for reader in ["cmp", "range"] {
            let compare = || expression(reader, &[be(1, 1)]);
            check(
                &[load_mark(), swapped(), compare()],
                &[RuleAction::ReadsMark(u32::MAX)],
            );
            check(
                &[load_mark(), masked(0xff, 0), swapped(), compare()],
                &[RuleAction::ReadsMark(0xff)],
            );
        }
        let by_map = expression("lookup", &[nla(1, b"m\0"), be(2, 1), be(3, 0)]);
        check(
            &[load_mark(), swapped(), by_map],
            &[RuleAction::ReadsMark(u32::MAX), RuleAction::JumpsByMap],
        );
        check(
            &[load_mark(), swapped(), set_mark()],
            &[RuleAction::WritesMark(u32::MAX)],
        );
        // A shift, behind a mask.
        let shifted = || expression("bitwise", &[be(1, 1), be(2, 1), be(6, 1)]);
        let compare = expression("cmp", &[be(1, 1)]);
        check(
            &[load_mark(), masked(0xff, 0), shifted(), compare],
            &[RuleAction::ReadsMark(0xff)],
        );
        check(
            &[load_mark(), shifted(), masked(0xff, 0), set_mark()],
            &[RuleAction::WritesMark(u32::MAX)],
        );
        // With another register, whichever of the two has it.
        let compare = || expression("cmp", &[be(1, 3)]);
        for [one, other] in [[1, 2], [2, 1]] {
            let both = expression("bitwise", &[be(1, one), be(8, other), be(2, 3), be(6, 3)]);
            check(
                &[load_mark(), both, compare()],
                &[RuleAction::ReadsMark(u32::MAX)],
            );
        }
        // What nobody knows may have left it where it was.
        let unknown = expression("nonesuch", &[]);
        check(
            &[load_mark(), unknown, expression("cmp", &[be(1, 1)])],
            &[RuleAction::ReadsMark(u32::MAX)],
        );
    }

    #[test]
    fn a_mark_is_read_by_whatever_takes_it() {
        let read = [RuleAction::ReadsMark(u32::MAX)];
        // `fib saddr . mark . iif oif`, and without the mark.
        let route = |flags| expression("fib", &[be(1, 1), be(2, 1), be(3, flags)]);
        check(&[route(0b1101)], &read);
        check(&[route(0b1001)], &[]);
        check(&[load_mark(), expression("hash", &[be(1, 1)])], &read);
        check(&[load_mark(), expression("dynset", &[be(4, 1)])], &read);
        let zone = expression("ct", &[be(2, 17), be(4, 1)]);
        check(&[load_mark(), zone], &read);
    }

    #[test]
    fn what_takes_a_connection_is_told_so() {
        let with = |action| [RuleAction::WithConnection(Box::new(action))];
        let load = |key| expression("ct", &[be(2, key), be(1, 1)]);
        let immediate = || expression("immediate", &[be(1, 1), value(2, 5)]);
        let written = || RuleAction::WritesMark(u32::MAX);
        check(&[load(CT_MARK), set_mark()], &with(written()));
        // The rule ends for a packet without one.
        check(&[load(CT_MARK), immediate(), set_mark()], &with(written()));
        check(&[load(CT_STATE), immediate(), set_mark()], &[written()]);
        let save = expression("ct", &[be(2, CT_MARK), be(4, 1)]);
        check(
            &[load_mark(), save.clone()],
            &with(RuleAction::ReadsMark(u32::MAX)),
        );
        // But not by this, which then does nothing.
        let [saved] = with(RuleAction::ReadsMark(u32::MAX));
        check(
            &[load_mark(), save, immediate(), set_mark()],
            &[saved, written()],
        );
    }

    #[test]
    fn a_mark_is_read_in_the_bits_that_are_compared() {
        let compare = || expression("cmp", &[be(1, 1), value(3, 1)]);
        check(
            &[load_mark(), compare()],
            &[RuleAction::ReadsMark(u32::MAX)],
        );
        check(
            &[load_mark(), masked(0xff, 0), compare()],
            &[RuleAction::ReadsMark(0xff)],
        );
        check(
            &[expression("meta", &[be(2, 16), be(1, 1)]), compare()],
            &[],
        );
        // As a part of a key.
        let address = expression("payload", &[be(1, 1), be(2, 1)]);
        let mark = expression("meta", &[be(2, MARK), be(1, 9)]);
        let lookup = || expression("lookup", &[nla(1, b"s\0"), be(2, 1)]);
        let read = [RuleAction::ReadsMark(u32::MAX)];
        // The address first, which may be of 16 bytes.
        check(&[address.clone(), mark.clone(), lookup()], &read);
        check(&[mark, address, lookup()], &[]);
        // By the long name of the same register.
        let compare = expression("cmp", &[be(1, 8), value(3, 1)]);
        check(&[load_mark(), compare], &[RuleAction::ReadsMark(u32::MAX)]);
    }

    #[test]
    fn helpers_and_priorities_and_jumps_are_seen() {
        let by_name = expression("objref", &[be(1, CT_HELPER), nla(2, b"ftp-x\0")]);
        check(&[by_name], &[RuleAction::GivesHelper(Some("ftp-x".into()))]);
        let by_map = |name: &[u8]| expression("objref", &[be(3, 1), nla(4, name)]);
        check(&[by_map(b"helpers\0")], &[RuleAction::GivesHelper(None)]);
        check(&[by_map(b"quotas\0")], &[]);
        check(&[expression("objref", &[be(1, 1), nla(2, b"c\0")])], &[]);
        let priority = expression("meta", &[be(2, PRIORITY), be(3, 1)]);
        check(&[priority], &[RuleAction::WritesPriority]);
        let verdict = [
            be(1, (-3_i32).cast_unsigned()),
            nla(VERDICT_CHAIN, b"there\0"),
        ]
        .concat();
        let jump = expression("immediate", &[be(1, 0), nla(2, &nla(VERDICT, &verdict))]);
        check(&[jump], &[RuleAction::Jumps("there".into())]);
        let by_map = expression("lookup", &[nla(1, b"m\0"), be(2, 1), be(3, 0)]);
        check(
            &[load_mark(), by_map],
            &[RuleAction::ReadsMark(u32::MAX), RuleAction::JumpsByMap],
        );
    }

    #[test]
    fn targets_and_matches_of_iptables_are_understood() {
        let numbers = |words: &[u32]| -> Vec<u8> {
            words.iter().flat_map(|word| word.to_ne_bytes()).collect()
        };
        let mut info = vec![0; 12];
        info.extend(b"ftp\0\0\0\0\0\0\0\0\0\0\0\0\0");
        check(
            &[xt("target", "CT", 2, &info)],
            &[RuleAction::GivesHelper(Some("ftp".into()))],
        );
        // Without a helper, for its zone.
        check(&[xt("target", "CT", 2, &[0; 64])], &[]);
        check(
            &[xt("target", "MARK", 2, &numbers(&[0x100, 0xff]))],
            &[RuleAction::WritesMark(0x1ff)],
        );
        let connmark = |revision, masks: [u32; 2], rest: &[u8]| {
            let mut info = numbers(&[0, masks[0], masks[1]]);
            info.extend(rest);
            xt("target", "CONNMARK", revision, &info)
        };
        let with = |bits| RuleAction::WithConnection(Box::new(RuleAction::WritesMark(bits)));
        let bits = with(0xff0f);
        check(
            &[connmark(1, [0xf, 0xff00], &[2])],
            std::slice::from_ref(&bits),
        );
        check(&[connmark(2, [0xf, 0xff00], &[0, 0, 2])], &[bits]);
        check(&[connmark(2, [0xf, 0xff00], &[0, 1, 2])], &[with(u32::MAX)]);
        check(&[connmark(2, [0xf, 0xff00], &[0, 0, 1])], &[]);
        check(
            &[xt("match", "mark", 1, &numbers(&[1, 0xf0, 0]))],
            &[RuleAction::ReadsMark(0xf0)],
        );
        check(&[xt("match", "tcp", 0, &[0; 16])], &[]);
    }
}
