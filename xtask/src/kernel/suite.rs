//! Which tests are the core suite, and how the guest runs them.

use std::fmt::Write as _;

use super::Release;

/// The test programs that the suite is made of.
pub(super) const PROGRAMS: [&str; 3] = ["load", "program", "lab"];

/// One test program with some of its tests.
struct Part {
    program: &'static str,
    /// How agents attach (`conntrack_tests::attach`).
    attach: &'static str,
    /// Beginnings or parts of tests' names; none for all.
    tests: &'static [&'static str],
    /// Tests that are left out, with the reason beside them.
    without: &'static [&'static str],
}

/// Real sessions, of which each has a twin without the rule: FTP active and
/// passive, routed, through SNAT and DNAT, IPv4 and IPv6; TFTP; SIP.
const SESSIONS: &[&str] = &["ftp::", "tftp::", "sip::", "itself::"];

/// What becomes of the datapath: agents that end, are killed and come again,
/// namespaces and interfaces that appear, move and go, cleanup.
const DATAPATH: &[&str] = &[
    "lifecycle::",
    "ending::",
    "adoption::",
    "attach::",
    "discovery::",
    "repair::",
    "routers::",
    "marks::",
];

const fn parts(release: Release) -> [Part; 4] {
    let attach = match release {
        Release::Stable => "clsact",
        Release::Backports => "tcx",
    };
    [
        Part {
            program: "load",
            attach,
            tests: &[],
            without: &[],
        },
        Part {
            program: "program",
            attach,
            tests: &[],
            without: &[],
        },
        // What the agent takes by itself.
        Part {
            program: "lab",
            attach: "auto",
            tests: SESSIONS,
            without: &[],
        },
        Part {
            program: "lab",
            attach,
            tests: DATAPATH,
            without: &[],
        },
    ]
}

/// The script that runs the suite, or those of its tests whose name contains
/// `filter`, one program after the other. It ends with 0 if all have passed.
pub(super) fn script(release: Release, filter: Option<&str>) -> String {
    let mut text = String::from("failed=0\n");
    for part in parts(release) {
        let Part {
            program, attach, ..
        } = part;
        let mut line = format!("CONNTRACK_TEST_ATTACH={attach} /tests/{program}");
        match filter {
            Some(filter) => append(&mut line, &[filter]),
            None => append(&mut line, part.tests),
        }
        for test in part.without {
            append(&mut line, &["--skip", test]);
        }
        writeln!(text, "echo 'guest: {program} ({attach})'").unwrap_or_default();
        writeln!(text, "{line} || failed=1").unwrap_or_default();
    }
    text + "exit $failed\n"
}

fn append(line: &mut String, arguments: &[&str]) {
    for argument in arguments {
        // Quoted for the shell: a filter may be anything.
        let quoted = argument.replace('\'', "'\\''");
        write!(line, " '{quoted}'").unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_kernel_has_no_tcx() {
        let script = script(Release::Stable, None);
        assert!(
            script.contains("=clsact /tests/lab 'lifecycle::'"),
            "{script}"
        );
        assert!(!script.contains("=tcx"), "{script}");
        assert!(self::script(Release::Backports, None).contains("=tcx /tests/lab"));
    }

    #[test]
    fn a_filter_is_one_word_for_the_shell() {
        let script = script(Release::Backports, Some("a'b c"));
        assert!(
            script.contains("/tests/load 'a'\\''b c' || failed=1"),
            "{script}"
        );
        assert!(!script.contains("ftp::"), "{script}");
    }
}
