//! Rules as nft and iptables-nft make them, in the kernel's encoding.

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
    let (_, found) = actions(&bytes, |set| set == b"helpers\0").unwrap();
    assert_eq!(found, expected);
    for end in 0..bytes.len() {
        // Whatever is left of it, it does not panic.
        let _ = actions(&bytes[..end], |_| true);
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
    let numbers =
        |words: &[u32]| -> Vec<u8> { words.iter().flat_map(|word| word.to_ne_bytes()).collect() };
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

#[test]
fn what_translates_or_keeps_from_a_connection_is_seen() {
    for (row, expression, expected) in [
        (
            "nat",
            expression("nat", &[be(1, 1), be(2, 2), be(3, 1)]),
            RuleAction::Translates,
        ),
        ("masq", expression("masq", &[]), RuleAction::Translates),
        (
            "redir",
            expression("redir", &[be(1, 1)]),
            RuleAction::Translates,
        ),
        (
            "notrack",
            expression("notrack", &[]),
            RuleAction::SetsUntracked,
        ),
        (
            "iptables' DNAT",
            xt("target", "DNAT", 2, &[0; 40]),
            RuleAction::Translates,
        ),
        (
            "iptables' CT --notrack",
            xt("target", "CT", 2, &[1, 0, 0, 0]),
            RuleAction::SetsUntracked,
        ),
        (
            "iptables' CLASSIFY",
            xt("target", "CLASSIFY", 0, &[0; 4]),
            RuleAction::WritesPriority,
        ),
    ] {
        let (_, found) = actions(&expression, |_| false).unwrap();
        assert_eq!(found, [expected], "{row}");
    }
}

#[test]
fn a_scope_is_told_where_it_is_plain() {
    let load = |key| expression("meta", &[be(2, key), be(1, 1)]);
    let field = |base, offset, length| {
        expression(
            "payload",
            &[be(1, 1), be(2, base), be(3, offset), be(4, length)],
        )
    };
    let compare = |operation, bytes: &[u8]| {
        let data = nla(3, &nla(VALUE, bytes));
        expression("cmp", &[be(1, 1), be(2, operation), data])
    };
    let protocol = || [load(TRANSPORT_PROTOCOL), compare(0, &[6])].concat();
    let port = |operation| [field(2, 2, 2), compare(operation, &[0, 21])].concat();
    let unknown = expression("nonesuch", &[]);
    let tcp = xt("match", "tcp", 0, &[0, 0, 0, 0, 21, 0, 21, 0, 0, 0, 0, 0]);
    for (row, expressions, expected) in [
        ("all", vec![], (None, None)),
        (
            "tcp dport 21",
            vec![protocol(), port(0)],
            (Some(6), Some(21)),
        ),
        (
            "tcp dport != 21",
            vec![protocol(), port(1)],
            (Some(6), None),
        ),
        ("th dport 21", vec![port(0)], (None, Some(21))),
        (
            "th sport 21",
            vec![field(2, 0, 2), compare(0, &[0, 21])],
            (None, None),
        ),
        (
            "ip protocol 17",
            vec![field(1, 9, 1), compare(0, &[17])],
            (Some(17), None),
        ),
        (
            "meta mark 6",
            vec![load_mark(), compare(0, &[6])],
            (None, None),
        ),
        (
            "by another value",
            vec![field(2, 2, 2), unknown, compare(0, &[0, 21])],
            (None, None),
        ),
        ("iptables' tcp", vec![tcp], (Some(6), Some(21))),
    ] {
        let (scope, _) = actions(&expressions.concat(), |_| false).unwrap();
        assert_eq!((scope.protocol, scope.port), expected, "{row}");
    }
}
