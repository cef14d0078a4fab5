//! Which tests are the core suite, and how the guest runs them.

use std::fmt::Write as _;

use super::Release;

/// The test programs that the suite is made of.
pub(super) const PROGRAMS: [&str; 3] = ["program", "handover", "lab"];

/// One test program with some of its tests.
struct Part {
    program: &'static str,
    /// How agents attach (`conntrack_tests::attach`).
    attach: &'static str,
    /// Beginnings or parts of tests' names; none for all.
    tests: &'static [&'static str],
    /// Tests that are left out.
    without: &'static [&'static str],
}

/// Real sessions, of which each has a twin without the rule: FTP active and
/// passive, routed, through SNAT and DNAT, IPv4 and IPv6; TFTP; SIP.
const SESSIONS: &[&str] = &["ftp::", "tftp::", "sip::", "itself::"];

/// What becomes of the datapath: agents that end, are killed and come again,
/// namespaces and interfaces that appear, move and go, XDP, events, cleanup; and what
/// is said of a kernel without tcx.
const DATAPATH: &[&str] = &[
    "lifecycle::",
    "ending::",
    "adoption::",
    "attach::",
    "discovery::",
    "xdp::",
    "opened::",
    "repair::",
    "routers::",
    "marks::",
    "doctor::kernel::tcx_or_none",
];

/// These are about tcx beside or before tc filters.
const WITH_TCX: &[&str] = &[
    "attach::another_way_at_the_next_start_leaves_no_gap",
    "attach::filters_whose_pins_are_lost_are_taken_over_or_cleaned_up",
    "attach::a_pin_that_somebody_removed_is_there_again",
    "attach::only_the_interfaces_that_match_are_classified",
    "discovery::foreign_programs_before_and_after_ours_stay_where_they_are",
];

/// What is slow by emulation: one compares times of day to the second, the other's
/// twenty routers have to be served within the lab's patience.
const TOO_SLOW: &[&str] = &[
    "discovery::a_clock_that_is_set_back_an_hour_changes_nothing",
    "discovery::with_few_descriptors_the_full_pass_repairs_what_nobody_watches",
];

const fn parts(release: Release) -> [Part; 4] {
    let (attach, without): (_, &[&str]) = match release {
        Release::Stable => ("clsact", WITH_TCX),
        Release::Backports => ("tcx", &[]),
    };
    [
        Part {
            program: "program",
            attach,
            tests: &[],
            without: &[],
        },
        Part {
            program: "handover",
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
            without,
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
        // Who asks for them by name gets them.
        let too_slow = if filter.is_none() { TOO_SLOW } else { &[] };
        for test in part.without.iter().chain(too_slow) {
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
        assert!(script.contains("--skip' 'attach::another_way"), "{script}");
        let newer = self::script(Release::Backports, None);
        assert!(newer.contains("=tcx /tests/lab"), "{newer}");
        assert!(!newer.contains("attach::another_way"), "{newer}");
    }

    #[test]
    fn a_filter_is_one_word_for_the_shell() {
        let script = script(Release::Backports, Some("a'b c"));
        assert!(
            script.contains("/tests/program 'a'\\''b c' || failed=1"),
            "{script}"
        );
        assert!(!script.contains("ftp::"), "{script}");
        assert!(!script.contains("--skip"), "{script}");
    }
}
