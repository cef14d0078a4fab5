//! Tables as iptables makes them, in the kernel's layout, and damaged ones.

use super::*;

/// A match or a target: its size, its name, its revision and its data.
fn part(name: &str, revision: u8, data: &[u8]) -> Vec<u8> {
    let data_size = data.len().next_multiple_of(8);
    let mut bytes = u16::try_from(PART + data_size)
        .unwrap()
        .to_ne_bytes()
        .to_vec();
    bytes.extend(name.bytes());
    bytes.resize(PART - 1, 0);
    bytes.push(revision);
    bytes.extend(data);
    bytes.resize(PART + data_size, 0);
    bytes
}

fn entry(layout: EntryLayout, protocol: u16, matches: &[Vec<u8>], target: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; layout.size];
    bytes.extend(matches.concat());
    let to_target = u16::try_from(bytes.len()).unwrap();
    bytes.extend(target);
    let to_next = u16::try_from(bytes.len()).unwrap();
    bytes[layout.protocol..][..2].copy_from_slice(&protocol.to_ne_bytes());
    bytes[layout.offsets..][..2].copy_from_slice(&to_target.to_ne_bytes());
    bytes[layout.offsets + 2..][..2].copy_from_slice(&to_next.to_ne_bytes());
    bytes
}

fn verdict(verdict: i32) -> Vec<u8> {
    part(STANDARD, 0, &verdict.to_ne_bytes())
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// A struct `xt_tcp` or `xt_udp`, whose last byte is the inversions.
fn ports(name: &str, to: [u16; 2], inverted: u8) -> Vec<u8> {
    let mut data: Vec<u8> = [0, u16::MAX, to[0], to[1]]
        .into_iter()
        .flat_map(u16::to_ne_bytes)
        .collect();
    data.resize(if name == "tcp" { 11 } else { 8 }, 0);
    data.push(inverted);
    part(name, 0, &data)
}

fn assignment(flags: u16, helper: &str) -> Vec<u8> {
    let mut data = flags.to_ne_bytes().to_vec();
    data.resize(12, 0);
    data.extend(helper.bytes());
    data.resize(64, 0);
    part("CT", 2, &data)
}

fn table() -> TableName {
    TableName {
        family: "iptables-legacy",
        name: "raw".into(),
    }
}

const RAW: Hook = Hook::Prerouting(-300);

/// Decodes a table of PREROUTING with these entries in front of its policy, of OUTPUT
/// and of a chain "own" with these entries.
fn decode(layout: EntryLayout, rules: &[Vec<u8>], own: &[Vec<u8>]) -> Ruleset {
    let policy = || entry(layout, 0, &[], &verdict(-2));
    let begin = |name: &str| {
        let mut name = name.as_bytes().to_vec();
        name.resize(30, 0);
        entry(layout, 0, &[], &part(ERROR, 0, &name))
    };
    let prerouting = [rules.concat(), policy()].concat();
    let output = u32::try_from(prerouting.len()).unwrap();
    let own = [begin("own"), own.concat(), policy()].concat();
    let entries = [prerouting, policy(), own, begin(ERROR)].concat();
    let info = TableInfo {
        valid_hooks: 0b1001,
        hook_entries: [0, u32::MAX, u32::MAX, output, u32::MAX],
        size: u32::try_from(entries.len()).unwrap(),
    };
    for end in 0..entries.len() {
        // Whatever is left of it, it does not panic.
        drop(info.decode(layout, &table(), RAW, &entries[..end]));
    }
    info.decode(layout, &table(), RAW, &entries).unwrap()
}

#[test]
fn rules_do_what_their_parts_say() {
    use RuleAction::{GivesHelper, ReadsMark, SetsUntracked, Translates, WritesMark};
    let restore = |bits| RuleAction::WithConnection(Box::new(WritesMark(bits)));
    let mut restored = words(&[0, 0xf00, 0xff]);
    restored.extend([0, 0, 2]);
    let mut saved = words(&[0, 0xff, 0xff]);
    saved.extend([0, 0, 1]);
    let mark = |mark, mask| part("mark", 1, &words(&[mark, mask, 0]));
    let accept = || verdict(-2);
    for (row, matches, target, expected) in [
        (
            "a helper",
            vec![],
            assignment(0, "ftp"),
            vec![GivesHelper(Some("ftp".into()))],
        ),
        (
            "no tracking",
            vec![],
            assignment(1, ""),
            vec![SetsUntracked],
        ),
        ("a zone", vec![], assignment(0, ""), vec![]),
        (
            "NOTRACK",
            vec![],
            part("NOTRACK", 0, &[]),
            vec![SetsUntracked],
        ),
        (
            "a comment",
            vec![part("comment", 0, b"x -j CT --helper \"ftp")],
            accept(),
            vec![],
        ),
        (
            "a mark in a mask",
            vec![],
            part("MARK", 2, &words(&[0x0100_0000, 0xff00_0000])),
            vec![WritesMark(0xff00_0000)],
        ),
        (
            "a mark that is flipped",
            vec![],
            part("MARK", 2, &words(&[1, 0])),
            vec![WritesMark(1)],
        ),
        (
            "a mark of no form",
            vec![],
            part("MARK", 2, &[]),
            vec![WritesMark(u32::MAX)],
        ),
        (
            "a restored mark",
            vec![],
            part("CONNMARK", 2, &restored),
            vec![restore(0xfff)],
        ),
        ("a saved mark", vec![], part("CONNMARK", 2, &saved), vec![]),
        (
            "a mark in a mask is compared",
            vec![mark(1, 0xffff)],
            accept(),
            vec![ReadsMark(0xffff)],
        ),
        (
            "a mark is compared",
            vec![mark(1, u32::MAX)],
            accept(),
            vec![ReadsMark(u32::MAX)],
        ),
        (
            "a connection's mark is compared",
            vec![part("connmark", 1, &words(&[1, u32::MAX, 0]))],
            accept(),
            vec![],
        ),
        (
            "a class",
            vec![],
            part("CLASSIFY", 0, &words(&[1])),
            vec![RuleAction::WritesPriority],
        ),
        ("DNAT", vec![], part("DNAT", 2, &[0; 40]), vec![Translates]),
        (
            "REDIRECT",
            vec![],
            part("REDIRECT", 0, &[0; 20]),
            vec![Translates],
        ),
    ] {
        for layout in [IPV4, IPV6] {
            let found = decode(layout, &[entry(layout, 0, &matches, &target)], &[]);
            let actions = found.rules.into_iter().flat_map(|rule| rule.actions);
            assert_eq!(actions.collect::<Vec<_>>(), expected, "{row}");
        }
    }
}

#[test]
fn a_scope_is_told_where_it_is_plain() {
    for (row, protocol, inversions, matches, expected) in [
        ("all", 0, 0, vec![], (None, None)),
        ("a protocol", 17, 0, vec![], (Some(17), None)),
        (
            "all but a protocol",
            17,
            OTHER_PROTOCOLS,
            vec![],
            (None, None),
        ),
        (
            "a port of TCP",
            6,
            0,
            vec![ports("tcp", [21, 21], 0)],
            (Some(6), Some(21)),
        ),
        (
            "a port of UDP",
            17,
            0,
            vec![ports("udp", [69, 69], 1)],
            (Some(17), Some(69)),
        ),
        (
            "several",
            6,
            0,
            vec![ports("tcp", [21, 22], 0)],
            (Some(6), None),
        ),
        (
            "all but one",
            17,
            0,
            vec![ports("udp", [69, 69], 2)],
            (Some(17), None),
        ),
    ] {
        for layout in [IPV4, IPV6] {
            let mut rule = entry(layout, protocol, &matches, &assignment(0, "ftp"));
            rule[layout.inversions] = inversions;
            let scope = decode(layout, &[rule], &[]).rules[0].scope;
            assert_eq!((scope.protocol, scope.port), expected, "{row}");
        }
    }
}

#[test]
fn chains_are_where_they_are_hooked_in() {
    for layout in [IPV4, IPV6] {
        let helper = || entry(layout, 0, &[], &assignment(0, "tftp"));
        let size = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap();
        let policy = size(&entry(layout, 0, &[], &verdict(-2)));
        let begin = size(&entry(layout, 0, &[], &part(ERROR, 0, &[0; 30])));
        // Behind a rule without a target, which goes to the next.
        let to_own = i32::try_from(4 * policy + begin).unwrap();
        let next = i32::try_from(policy).unwrap();
        let rules = [next, to_own].map(|to| entry(layout, 0, &[], &verdict(to)));
        let found = decode(layout, &rules, &[helper(), helper()]);
        let hooks: Vec<_> = found.chains.iter().map(|chain| chain.hook).collect();
        assert_eq!(hooks, [Some(RAW), Some(Hook::Elsewhere), None]);
        let met = found.met_from(|hook| hook == RAW);
        let met: Vec<_> = met.map(|rule| (rule.chain.as_str(), rule.handle)).collect();
        assert_eq!(met, [("PREROUTING", 2), ("own", 1), ("own", 2)]);
    }
}

#[test]
fn the_description_of_a_table_is_read() {
    let mut info = vec![0; INFO_SIZE];
    info[..3].copy_from_slice(b"raw");
    info[32..36].copy_from_slice(&0b1001_u32.to_ne_bytes());
    info[48..52].copy_from_slice(&152_u32.to_ne_bytes());
    info[80..84].copy_from_slice(&480_u32.to_ne_bytes());
    let read = TableInfo::read(&info).unwrap();
    assert_eq!(read.valid_hooks, 0b1001);
    assert_eq!(read.hook_entries, [0, 0, 0, 152, 0]);
    assert_eq!(read.size, 480);
    assert!(TableInfo::read(&info[..83]).is_err());
}
