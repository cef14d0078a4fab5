//! Reads legacy iptables' raw tables from the output of `iptables-save`.
//!
//! The tables' own interface gives binary structs of every existing match and
//! target, so the program reads them, as nft does for nftables. It is run only
//! where the kernel says that there is such a table, because asking for one creates
//! it.
//!
//! Only the raw tables are read. With the mark as the carrier (-160), packets pass
//! no others before the binding. With the priority as the carrier, they pass
//! mangle's too (-150); but the targets that write a priority, CLASSIFY and SET,
//! are not for prerouting (`classify_tg_reg`, `net/netfilter/xt_CLASSIFY.c`;
//! `set_target_v3_checkentry`, `net/netfilter/xt_set.c`). And CT, which gives
//! helpers, is only for raw tables (`xt_ct_tg_reg`, `net/netfilter/xt_CT.c`).

use std::{
    fs, io,
    process::{Command, Stdio},
};

use super::{
    Error,
    nft::{LIMIT, converse},
    ruleset::{Chain, ForeignRule, Hook, RuleAction, Ruleset, TableName},
};

/// The file that lists a family's tables in the calling thread's namespace, one a
/// line (`xt_table_seq_ops`, `net/netfilter/x_tables.c`).
pub(super) const IPV4_TABLES: &str = "/proc/thread-self/net/ip_tables_names";
const IPV6_TABLES: &str = "/proc/thread-self/net/ip6_tables_names";

/// For each family, the file that lists its tables, the name of its tables here,
/// and the program that can read them. No other program will do: only some versions
/// of `iptables-save` without such a suffix say whether they are the nft variant.
const FAMILIES: [(&str, &str, &str); 2] = [
    (IPV4_TABLES, "iptables-legacy", "iptables-legacy-save"),
    (IPV6_TABLES, "ip6tables-legacy", "ip6tables-legacy-save"),
];

const RAW: &str = "raw";

/// The priority of a raw table's PREROUTING chain: `NF_IP_PRI_RAW`,
/// `include/uapi/linux/netfilter_ipv4.h`.
const RAW_PRIORITY: i32 = -300;

/// Returns whether the calling thread's namespace has this table; `tables` is the
/// file that lists the family's tables.
///
/// # Errors
/// An error if the list can't be read.
pub(super) fn has_table(tables: &str, wanted: &str) -> io::Result<bool> {
    match fs::read_to_string(tables) {
        Ok(tables) => Ok(tables.lines().any(|table| table == wanted)),
        // The kernel lacks it, or it has not been used yet.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Reads the raw tables of the calling thread's network namespace; `place` is its
/// name, for errors.
///
/// # Errors
/// [`Error::Legacy`] if a table can't be read.
pub(super) fn ruleset(place: &str) -> Result<Ruleset, Error> {
    let mut found = Ruleset::default();
    for (names, family, program) in FAMILIES {
        let table = TableName {
            family,
            name: RAW.into(),
        };
        let failed = |why: String| Error::Legacy {
            place: place.to_owned(),
            table: table.to_string(),
            why,
        };
        let is_there = has_table(names, RAW);
        if is_there.map_err(|error| failed(format!("{names}: {error}")))? {
            let text = save(program).map_err(failed)?;
            found = found.and(read(&table, &text));
        }
    }
    Ok(found)
}

/// Returns the table as this program prints it.
fn save(program: &str) -> Result<String, String> {
    let child = Command::new(program)
        .args(["-t", RAW])
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(format!("there is no {program}"));
        }
        Err(error) => return Err(format!("{program}: {error}")),
    };
    let output = converse(&mut child, "", LIMIT).map_err(|error| format!("{program}: {error}"));
    let Some(output) = output? else {
        return Err(format!("{program} did not end within {LIMIT:?}"));
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().next().unwrap_or_default();
        return Err(format!("{program}: {}: {said}", output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Reads the chains and rules from the text that `iptables-save` prints for one
/// table.
fn read(table: &TableName, text: &str) -> Ruleset {
    let mut found = Ruleset::default();
    for line in text.lines() {
        if let Some(chain) = line.strip_prefix(':') {
            let mut words = chain.split(' ');
            let (name, policy) = (words.next().unwrap_or_default(), words.next());
            found.chains.push(Chain {
                table: table.clone(),
                name: name.to_owned(),
                hook: match (name, policy) {
                    (_, Some("-") | None) => None,
                    ("PREROUTING", _) => Some(Hook::Prerouting(RAW_PRIORITY)),
                    _ => Some(Hook::Elsewhere),
                },
            });
        } else if line.starts_with("-A ") {
            let words = words(line);
            let deeds = deeds(&words);
            if let (Some(chain), false) = (words.get(1), deeds.is_empty()) {
                found.rules.push(ForeignRule {
                    table: table.clone(),
                    chain: chain.clone(),
                    deeds,
                });
            }
        }
    }
    found
}

/// Returns the actions of a rule from its words (`mark_tg_save`,
/// `connmark_tg_save_v2`, `mark_mt_save` and `ct_save_v1` in iptables'
/// extensions/).
fn deeds(words: &[String]) -> Vec<RuleAction> {
    let mut deeds = Vec::new();
    let (mut matching, mut target) = ("", "");
    let mut rest = words.iter().map(String::as_str);
    let mut masks = None;
    while let Some(word) = rest.next() {
        match word {
            "-m" => matching = rest.next().unwrap_or_default(),
            "-j" | "-g" => {
                target = rest.next().unwrap_or_default();
                // No target has the name of a chain.
                deeds.push(RuleAction::Jumps(target.to_owned()));
            }
            "--helper" if target == "CT" => {
                deeds.push(RuleAction::GivesHelper(rest.next().map(str::to_owned)));
            }
            "--mark" if matching == "mark" && target.is_empty() => {
                let mask = rest.next().and_then(masked).map(|[_, mask]| mask);
                deeds.push(RuleAction::ReadsMark(mask.unwrap_or(u32::MAX)));
            }
            "--set-xmark" if target == "MARK" => {
                let masked = rest.next().and_then(masked);
                let bits = masked.map_or(u32::MAX, |[mark, mask]| mark | mask);
                deeds.push(RuleAction::WritesMark(bits));
            }
            "--restore-mark" if target == "CONNMARK" => masks = Some([u32::MAX; 2]),
            "--nfmask" | "--ctmask" => {
                let mask = rest.next().and_then(number);
                if let (Some(masks), Some(mask)) = (&mut masks, mask) {
                    masks[usize::from(word == "--ctmask")] = mask;
                }
            }
            "--left-shift-mark" | "--right-shift-mark" => {
                if let Some(masks) = &mut masks {
                    *masks = [u32::MAX; 2];
                }
            }
            _ => {}
        }
    }
    if let Some([here, there]) = masks {
        let write = RuleAction::WritesMark(here | there);
        deeds.push(RuleAction::WithConnection(Box::new(write)));
    }
    deeds
}

/// Parses `0x1/0xff`, or a number alone, which stands for all bits.
fn masked(text: &str) -> Option<[u32; 2]> {
    match text.split_once('/') {
        Some((value, mask)) => Some([number(value)?, number(mask)?]),
        None => Some([number(text)?, u32::MAX]),
    }
}

fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Splits a line into words: quoted where they have spaces, with backslashes in
/// front of characters that would end them (`xtables_save_string`, libxtables).
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let mut is_quoted = false;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            ' ' if !is_quoted => words.extend(word.take()),
            '"' => {
                is_quoted = !is_quoted;
                word.get_or_insert_default();
            }
            '\\' if is_quoted => word.get_or_insert_default().extend(characters.next()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> TableName {
        TableName {
            family: "iptables-legacy",
            name: RAW.into(),
        }
    }

    #[track_caller]
    fn check(rule: &str, expected: &[RuleAction]) {
        let found = read(&table(), &format!("-A PREROUTING {rule}\n"));
        let jumps = |action: &RuleAction| !matches!(action, RuleAction::Jumps(_));
        let deeds = found.rules.into_iter().flat_map(|rule| rule.deeds);
        assert_eq!(deeds.filter(jumps).collect::<Vec<_>>(), expected, "{rule}");
    }

    #[test]
    fn rules_do_what_their_words_say() {
        check(
            "-p tcp -m tcp --dport 21 -j CT --helper ftp",
            &[RuleAction::GivesHelper(Some("ftp".into()))],
        );
        check("-j CT --notrack", &[]);
        check(
            "-m comment --comment \"x -j CT --helper \\\"ftp\" -j ACCEPT",
            &[],
        );
        check(
            "-j MARK --set-xmark 0x1000000/0xff000000",
            &[RuleAction::WritesMark(0xff00_0000)],
        );
        check("-j MARK --set-xmark 0x1/0x0", &[RuleAction::WritesMark(1)]);
        check(
            "-j MARK --set-xmark what",
            &[RuleAction::WritesMark(u32::MAX)],
        );
        check(
            "-j CONNMARK --restore-mark --nfmask 0xff --ctmask 0xf00",
            &[RuleAction::WithConnection(Box::new(
                RuleAction::WritesMark(0xfff),
            ))],
        );
        check("-j CONNMARK --save-mark --nfmask 0xff --ctmask 0xff", &[]);
        check(
            "-m mark --mark 0x1/0xffff -j ACCEPT",
            &[RuleAction::ReadsMark(0xffff)],
        );
        check(
            "-m mark ! --mark 0x1 -j ACCEPT",
            &[RuleAction::ReadsMark(u32::MAX)],
        );
        check("-m connmark --mark 0x1 -j ACCEPT", &[]);
    }

    #[test]
    fn a_table_is_there_if_it_is_listed() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("names");
        let has = || has_table(list.to_str().unwrap(), RAW);
        assert!(!has().unwrap(), "nobody has used it yet");
        for (names, expected) in [("nat\nraw\n", true), ("nat\nrawer\n", false), ("", false)] {
            fs::write(&list, names).unwrap();
            assert_eq!(has().unwrap(), expected, "{names}");
        }
    }

    #[test]
    fn chains_are_where_they_are_hooked_in() {
        let text = "*raw\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:own - [0:0]\n\
                    -A PREROUTING -j own\n-A own -j CT --helper tftp\nCOMMIT\n";
        let found = read(&table(), text);
        let entrances: Vec<_> = found.chains.iter().map(|chain| chain.hook).collect();
        let prerouting = Some(Hook::Prerouting(-300));
        assert_eq!(entrances, [prerouting, Some(Hook::Elsewhere), None]);
        let met = found.met_from(|hook| Some(hook) == prerouting);
        let chains: Vec<_> = met.map(|rule| rule.chain.as_str()).collect();
        assert_eq!(chains, ["PREROUTING", "own"]);
    }

    #[test]
    fn words_are_those_that_iptables_would_read() {
        for (line, expected) in [
            ("", &[][..]),
            ("a  b ", &["a", "b"]),
            (r#"a "b c" d"#, &["a", "b c", "d"]),
            (r#""a\"b\\" """#, &["a\"b\\", ""]),
            (r#"a "b"#, &["a", "b"]),
        ] {
            assert_eq!(words(line), expected, "{line}");
        }
    }
}
