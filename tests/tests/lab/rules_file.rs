//! Rules files that are refused: every fault with its place, nothing changed.

use conntrack_tests::agent::{Config, run_to_exit};
use conntrack_tests::helpers::Protocol;
use conntrack_tests::lab::Lab;
use conntrack_tests::site::{Crossing, Plan, Site};
use conntrack_tests::snapshot::{Snapshot, assert_same};

const CONTROL: [(Protocol, u16); 1] = [(Protocol::Tcp, 2121)];

/// A line of the file, and a word of what is wrong there.
type Fault = (usize, &'static str);

/// The agent must exit 78 and name every fault: its line, and a word of it.
fn check(name: &str, file: &str, faults: &[Fault]) {
    let lab = Lab::new();
    let site = Site::new(&lab, &Plan::new(Crossing::Routed4, &CONTROL));
    let namespaces = [site.router.netns()];
    let file = file.replace("ROUTER", &site.router.id().to_string());
    let before = Snapshot::take(&lab, &namespaces);

    let exit = run_to_exit(&lab, &Config::of(&lab), &file, &[]);
    assert_eq!(exit.code, Some(78), "{name}: {exit:?}");
    for (line, word) in faults {
        let place = format!("line {line},");
        let mut lines = exit.stderr.lines();
        let named = lines.any(|said| said.contains(&place) && said.contains(word));
        assert!(named, "{name}: it names line {line} and {word:?}: {exit:?}");
    }
    let named = exit.stderr.matches(", column ").count();
    assert_eq!(
        named,
        faults.len(),
        "{name}: it names nothing else: {exit:?}"
    );
    assert_same(&before, &Snapshot::take(&lab, &namespaces));
}

macro_rules! rules {
    ($($rule:literal)*) => {
        concat!("[[router]]\nid = \"ROUTER\"\nhelpers = [\n", $($rule, ",\n",)* "]\n")
    };
}

#[test]
fn every_fault_is_named_with_its_place() {
    #[rustfmt::skip]
    let cases: &[(&str, &str, &[Fault])] = &[
        ("malformed UUID", "[[router]]\nid = \"not-a-uuid\"\nhelpers = []\n", &[(2, "not-a-uuid")]),
        ("port 0", rules!(r#"{ protocol = "tcp", port = 0, helper = "ftp" }"#), &[(4, "0")]),
        ("port 65536", rules!(r#"{ protocol = "tcp", port = 65536, helper = "ftp" }"#), &[(4, "65536")]),
        ("a name as port", rules!(r#"{ protocol = "tcp", port = "ftp", helper = "ftp" }"#), &[(4, "port")]),
        ("unknown helper", rules!(r#"{ protocol = "tcp", port = 21, helper = "gopher" }"#), &[(4, "gopher")]),
        ("a helper for another protocol", rules!(r#"{ protocol = "udp", port = 21, helper = "ftp" }"#), &[(4, "udp")]),
        ("unknown protocol", rules!(r#"{ protocol = "sctp", port = 21, helper = "ftp" }"#), &[(4, "sctp")]),
        ("a duplicate", rules!(
            r#"{ protocol = "tcp", port = 21, helper = "ftp" }"#
            r#"{ protocol = "tcp", port = 21, helper = "ftp" }"#
        ), &[(5, "21")]),
        ("unknown key", rules!(r#"{ protocol = "tcp", port = 21, helper = "ftp", ports = 1 }"#), &[(4, "ports")]),
        ("not TOML", "[[router]]\nid = \n", &[(2, "TOML")]),
        ("several at once", rules!(
            r#"{ protocol = "tcp", port = 0, helper = "ftp" }"#
            r#"{ protocol = "tcp", port = 21, helper = "ftp" }"#
            r#"{ protocol = "tcp", port = 21, helper = "gopher" }"#
        ), &[(4, "0"), (6, "gopher")]),
    ];
    for (name, file, faults) in cases {
        check(name, file, faults);
    }
}
