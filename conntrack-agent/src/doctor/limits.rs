//! Checks how near conntrack tables, rules and routers are to their limits.

use std::io;

use super::{
    Finding,
    routers::{InForce, LocalRouter},
    sys_paths::SysPaths,
};
use crate::{
    engine::Limits,
    kernel::{Conntrack, Usage},
};

const CHECK: &str = "limits";

/// The usage in hundredths of a limit: from `NEAR` on it is time to act, from `THERE` on
/// the limit is about to be reached.
const NEAR: u64 = 80;
const THERE: u64 = 95;

/// The treatment of what exceeds a limit.
#[derive(Clone, Copy)]
enum Above {
    /// The packet is dropped, and somebody's connection fails.
    Dropped,
    /// The request is refused, and everything that exists goes on working.
    Refused,
}

/// The remedy for limits of the configuration.
const CONFIGURED: &str = "raise it in the configuration's [limits], and restart the agent";

/// Checks the number of routers that have rules. The agent also counts routers whose
/// rules wait for the router to come; only the agent knows those.
pub(super) fn of_routers(limits: Limits, with_rules: usize) -> Finding {
    let limit = "limits.routers, counting those that are here";
    let used = (number(with_rules), number(limits.routers));
    judge(limit, used, Above::Refused, CONFIGURED)
}

/// Checks the number of rules of a router; shadowed rules aren't in the kernel, and not
/// counted.
pub(super) fn of_rules(limits: Limits, router: &LocalRouter) -> Option<Finding> {
    let InForce::Rules { count, .. } = router.in_force else {
        return None;
    };
    let used = (number(count), number(limits.rules_per_router));
    let finding = judge("limits.rules_per_router", used, Above::Refused, CONFIGURED);
    Some(finding.at(format!("router {}", router.id)))
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Checks the limits of connection tracking, which hold for each namespace by itself:
/// what exceeds them is dropped (`__nf_conntrack_alloc`, `nf_ct_expect_related_report`).
pub(super) fn of_the_kernel(paths: &SysPaths, router: &LocalRouter) -> Vec<Finding> {
    let mut findings = Vec::new();
    for netns in &router.namespaces {
        let read = || {
            let fullness = Conntrack::open()?.fullness()?;
            Ok((
                fullness,
                paths.number("net/netfilter/nf_conntrack_expect_max"),
            ))
        };
        let found = match super::within(netns, read) {
            Ok((fullness, most_expected)) => vec![
                connections(fullness.usage),
                expectations(number(fullness.expected), most_expected),
            ],
            Err(error) => vec![Finding::unknown(CHECK, error.to_string())],
        };
        findings.extend(found.into_iter().map(|finding| finding.at(netns.name())));
    }
    findings
}

fn connections(Usage { entries, most }: Usage) -> Finding {
    const LIMIT: &str = "nf_conntrack_max";
    // 0 means no limit (`__nf_conntrack_alloc`).
    if most == 0 {
        return Finding::ok(CHECK, format!("{LIMIT} is 0: there is none"));
    }
    judge(
        LIMIT,
        (entries.into(), most.into()),
        Above::Dropped,
        "raise net.netfilter.nf_conntrack_max on the host",
    )
}

fn expectations(count: u64, most: io::Result<u64>) -> Finding {
    const LIMIT: &str = "nf_conntrack_expect_max";
    const REMEDY: &str = "raise net.netfilter.nf_conntrack_expect_max on the host";
    match most {
        Err(error) => Finding::unknown(CHECK, format!("{LIMIT}: {error}")),
        // For expectations, 0 is a limit like any other (`__nf_ct_expect_check`,
        // net/netfilter/nf_conntrack_expect.c).
        Ok(0) => Finding::wrong(
            CHECK,
            format!("{LIMIT} is 0: no helper can announce a connection"),
            REMEDY,
        ),
        Ok(most) => judge(LIMIT, (count, most), Above::Dropped, REMEDY),
    }
}

/// Judges how much of a limit is used up.
fn judge(limit: &str, (count, most): (u64, u64), above: Above, remedy: &str) -> Finding {
    let what = || format!("{count} of {most} ({limit})");
    // A limit of 0 is always used up.
    let hundredths = count.saturating_mul(100).checked_div(most).unwrap_or(100);
    match (hundredths, above) {
        (THERE.., Above::Dropped) => Finding::wrong(CHECK, what(), remedy),
        (NEAR.., _) => Finding::warn(CHECK, what(), remedy),
        // The text has no count, so that equal findings are printed as one line.
        _ => Finding::ok(CHECK, format!("less than {NEAR} % of {most} ({limit})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_limit_is_judged_by_what_is_left_of_it_and_what_becomes_of_what_is_above() {
        use Verdict::{Ok, Warn, Wrong};
        for (count, most, dropped, refused) in [
            (0, 100, Ok, Ok),
            (79, 100, Ok, Ok),
            (80, 100, Warn, Warn),
            (94, 100, Warn, Warn),
            (95, 100, Wrong, Warn),
            (1000, 100, Wrong, Warn),
            (1, 1, Wrong, Warn),
            (0, 0, Wrong, Warn),
        ] {
            for (above, expected) in [(Above::Dropped, dropped), (Above::Refused, refused)] {
                let finding = judge("x", (count, most), above, "more");
                assert_eq!(finding.result, expected, "{finding:?}");
                assert_eq!(finding.remedy.is_some(), expected != Ok);
            }
        }
    }

    /// `net.netfilter.nf_conntrack_max` alone means by 0 that there is no limit.
    #[test]
    fn no_limit_and_a_limit_of_none_are_different_things() {
        let connections = |entries, most| connections(Usage { entries, most }).result;
        assert_eq!(connections(17, 262_144), Verdict::Ok);
        assert_eq!(connections(220_000, 262_144), Verdict::Warn);
        assert_eq!(connections(262_143, 262_144), Verdict::Wrong);
        assert_eq!(connections(17, 0), Verdict::Ok);
        let expectations = |count, most| expectations(count, most).result;
        assert_eq!(expectations(2, Ok(4096)), Verdict::Ok);
        assert_eq!(expectations(4095, Ok(4096)), Verdict::Wrong);
        assert_eq!(expectations(0, Ok(0)), Verdict::Wrong);
        let unread = Err(io::ErrorKind::NotFound.into());
        assert_eq!(expectations(0, unread), Verdict::Unknown);
    }

    #[test]
    fn routers_are_told_to_be_those_that_are_here() {
        let limits = Limits {
            routers: 1,
            ..Limits::default()
        };
        let finding = of_routers(limits, 1);
        assert_eq!(finding.result, Verdict::Warn);
        assert!(finding.what.contains("that are here"), "{finding:?}");
    }
}
