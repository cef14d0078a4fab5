use proptest::prelude::*;

use super::*;
use crate::engine::Limits;

const A: &str = "6ab1c2d3-0a1b-4c2d-8e3f-0123456789ab";
const B: &str = "7ab1c2d3-0a1b-4c2d-8e3f-0123456789ab";

fn anything() -> Policy {
    Policy::new(Limits::default(), Helper::all(), Helper::all())
}

fn without_snmp() -> Policy {
    let present = Helper::all().filter(|helper| helper.name() != "snmp");
    Policy::new(Limits::default(), present, Helper::all())
}

fn one(entry: &str) -> String {
    format!("[[router]]\nid = \"{A}\"\nhelpers = [\n  {entry},\n]\n")
}

#[test]
fn a_good_file_is_its_rules_in_order() {
    let text = format!(
        "[[router]]\nid = \"{A}\"\nhelpers = [ {{ protocol = \"tcp\", port = 21, helper = \"ftp\" }}, \
         {{ protocol = \"udp\", port = 0x45, helper = \"tftp\" }} ]\n\
         [[router]]\nid = \"{B}\"\n[[router.helpers]]\nprotocol = \"udp\"\nport = 1719\nhelper = \"h323\"\n"
    );
    let set = parse(&text, &anything()).unwrap();
    let rules: Vec<_> = set.rules().map(ToString::to_string).collect();
    let expected = [
        "ftp on tcp port 21",
        "tftp on udp port 69",
        "RAS on udp port 1719",
    ];
    assert_eq!(rules, expected);
}

#[test]
fn no_rules_is_a_good_file() {
    for text in ["", "# nothing yet\n", "router = []"] {
        assert_eq!(parse(text, &anything()), Ok(RuleSet::default()), "{text:?}");
    }
    let no_helpers = format!("[[router]]\nid = \"{A}\"\nhelpers = []");
    assert_eq!(parse(&no_helpers, &anything()).unwrap().rules().count(), 0);
}

/// Checks that the text has one fault, at this line and with these parts.
fn check(text: &str, line: usize, parts: &[&str]) {
    let faults = parse(text, &without_snmp()).unwrap_err();
    assert_eq!(
        (faults.len(), faults[0].line),
        (1, line),
        "{text}: {faults:?}"
    );
    for part in parts {
        assert!(
            faults[0].what.contains(part),
            "{text}: {faults:?} lacks {part}"
        );
    }
}

#[test]
fn each_fault_of_a_helper_is_named_with_its_place() {
    // Protocol, port, helper, and what may follow.
    let values: [(_, &[&str]); _] = [
        (r#""tcp" 0 "ftp""#, &["port 0", "1 to 65535"]),
        (r#""tcp" 65536 "ftp""#, &["port 65536", "1 to 65535"]),
        (r#""tcp" -1 "ftp""#, &["port -1"]),
        (r#""tcp" 99999999999999999999 "ftp""#, &["out of range"]),
        (r#""tcp" "ftp" "ftp""#, &["\"ftp\"", "1 to 65535"]),
        (r#""tcp" 21.0 "ftp""#, &["a float"]),
        (r#""sctp" 21 "ftp""#, &["\"sctp\"", "udp"]),
        (r#""tcp" 21 "gopher""#, &["\"gopher\"", "ftp"]),
        (r#""udp" 21 "ftp""#, &["ftp", "it is for tcp"]),
        (r#""udp" 161 "snmp""#, &["this kernel", "snmp"]),
        (r#""tcp" 21"#, &["helper is missing"]),
        (r#""tcp" 21 "ftp" 1"#, &["\"prot\"", "protocol"]),
    ];
    for (values, parts) in values {
        let keys = ["protocol", "port", "helper", "prot"].into_iter();
        let pairs = keys
            .zip(values.split(' '))
            .map(|(key, value)| format!("{key} = {value}"));
        let pairs: Vec<_> = pairs.collect();
        check(&one(&format!("{{ {} }}", pairs.join(", "))), 4, parts);
    }
    check(&one("21"), 4, &["a table is wanted"]);
    let ftp = r#"{ protocol = "tcp", port = 21, helper = "ftp" }"#;
    check(
        &one(&format!("{ftp}, {ftp}")),
        4,
        &["duplicate", "ftp on tcp port 21"],
    );
}

#[test]
fn each_fault_of_a_router_is_named_with_its_place() {
    let no_helpers = format!("[[router]]\nid = \"{A}\"");
    let empty = format!("{no_helpers}\nhelpers = []\n");
    let twice = empty.repeat(2);
    let texts: [(_, _, &[&str]); _] = [
        (
            "[[router]]\nid = \"x\"\nhelpers = []",
            2,
            &["\"x\"", "UUID"],
        ),
        (
            "[[router]]\nid = 7\nhelpers = []",
            2,
            &["a string is wanted"],
        ),
        ("[[router]]\nhelpers = []", 1, &["id is missing"]),
        (&no_helpers, 1, &["helpers is missing"]),
        ("\n[[ruoter]]\n", 2, &["\"ruoter\"", "router"]),
        ("router = 1", 1, &["an integer", "[[router]]"]),
        (&twice, 5, &["already described at line 2"]),
        ("[[router]]\nid = \n", 2, &["not TOML"]),
    ];
    for (text, line, parts) in texts {
        check(text, line, parts);
    }
}

#[test]
fn all_faults_are_named_not_only_the_first() {
    let text = "[[router]]\nid = \"x\"\nhelpers = [\n \
        { protocol = \"tcp\", port = 0, helper = \"gopher\" },\n \
        { protocol = \"carrot\", port = 1, helper = \"ftp\" },\n]\nextra = 1\n";
    let faults = parse(text, &anything()).unwrap_err();
    let lines: Vec<_> = faults.iter().map(|fault| fault.line).collect();
    assert_eq!(lines, [2, 4, 4, 5, 7]);
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC*") {
        let _ = parse(&text, &anything());
    }

    #[test]
    fn no_mutation_of_a_good_file_makes_it_panic(at in 0usize..200, with in "\\PC{0,3}") {
        let mut text: Vec<char> =
            one(r#"{ protocol = "tcp", port = 21, helper = "ftp" }"#).chars().collect();
        let at = at.min(text.len() - 1);
        text.splice(at..=at, with.chars());
        let _ = parse(&text.into_iter().collect::<String>(), &anything());
    }
}
