//! Limits that are near.

use std::{
    fs::File,
    io::{self, Read as _},
};

use super::{
    Finding,
    roots::Roots,
    routers::{InForce, Router},
};
use crate::engine::Limits;

const CHECK: &str = "limits";

/// In hundredths: from here on it is time to do something, and from here on it is
/// about to happen.
const NEAR: u64 = 80;
const THERE: u64 = 95;

/// The most that is read of a namespace's expectations, in bytes; one takes about
/// two hundred.
const LONGEST_LIST: u64 = 64 << 20;

/// What helps against those of the configuration.
const CONFIGURED: &str = "raise it in the configuration's [limits]";

/// How many routers have rules.
pub(super) fn of_routers(limits: Limits, with_rules: usize) -> Finding {
    let used = Ok((number(with_rules), number(limits.routers)));
    judge("limits.routers", used, CONFIGURED)
}

/// How many rules a router has; those that others shadow aren't in the kernel, and
/// not counted.
pub(super) fn of_rules(limits: Limits, router: &Router) -> Option<Finding> {
    let InForce::Rules { count, .. } = router.in_force else {
        return None;
    };
    let used = Ok((number(count), number(limits.rules_per_router)));
    let finding = judge("limits.rules_per_router", used, CONFIGURED);
    Some(finding.at(format!("router {}", router.id)))
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Those of connection tracking, which count for each namespace by itself: what is
/// above them is dropped (`__nf_conntrack_alloc`, `nf_ct_expect_related_report`).
pub(super) fn of_the_kernel(roots: &Roots, router: &Router) -> Vec<Finding> {
    let mut findings = Vec::new();
    for netns in &router.namespaces {
        let read = || Ok((connections(roots), expectations(roots)));
        let found = match super::within(netns, read) {
            Ok((connections, expectations)) => vec![
                judge(
                    "nf_conntrack_max",
                    connections,
                    "raise net.netfilter.nf_conntrack_max on the host",
                ),
                judge(
                    "nf_conntrack_expect_max",
                    expectations,
                    "raise net.netfilter.nf_conntrack_expect_max on the host",
                ),
            ],
            Err(error) => vec![Finding::unknown(CHECK, error.to_string())],
        };
        findings.extend(found.into_iter().map(|finding| finding.at(netns.name())));
    }
    findings
}

fn connections(roots: &Roots) -> io::Result<(u64, u64)> {
    Ok((
        roots.number("net/netfilter/nf_conntrack_count")?,
        roots.number("net/netfilter/nf_conntrack_max")?,
    ))
}

/// One is a line (`exp_seq_show`, `net/netfilter/nf_conntrack_expect.c`).
fn expectations(roots: &Roots) -> io::Result<(u64, u64)> {
    let most = roots.number("net/netfilter/nf_conntrack_expect_max")?;
    let list = File::open(roots.proc.join("thread-self/net/nf_conntrack_expect"))?;
    let mut bytes = Vec::new();
    list.take(LONGEST_LIST).read_to_end(&mut bytes)?;
    let lines = String::from_utf8_lossy(&bytes).lines().count();
    Ok((number(lines), most))
}

/// How much of a limit is used up.
fn judge(limit: &str, used: io::Result<(u64, u64)>, remedy: &str) -> Finding {
    let (count, most) = match used {
        Ok(used) => used,
        Err(error) => return Finding::unknown(CHECK, format!("{limit}: {error}")),
    };
    if most == 0 {
        return Finding::ok(CHECK, format!("{limit} is 0: there is none"));
    }
    let what = || format!("{count} of {most} ({limit})");
    match count.saturating_mul(100) / most {
        THERE.. => Finding::wrong(CHECK, what(), remedy),
        NEAR.. => Finding::warn(CHECK, what(), remedy),
        // The same words for all, so that one line will do for them.
        _ => Finding::ok(CHECK, format!("less than {NEAR} % of {most} ({limit})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{Verdict, roots::testing::with};

    #[test]
    fn a_limit_is_judged_by_what_is_left_of_it() {
        for (count, most, expected) in [
            (0, 100, Verdict::Ok),
            (79, 100, Verdict::Ok),
            (80, 100, Verdict::Warn),
            (94, 100, Verdict::Warn),
            (95, 100, Verdict::Wrong),
            (1000, 100, Verdict::Wrong),
            (1, 1, Verdict::Wrong),
            (5, 0, Verdict::Ok),
        ] {
            let finding = judge("x", Ok((count, most)), "more");
            assert_eq!(finding.result, expected, "{finding:?}");
            assert_eq!(finding.remedy.is_some(), expected != Verdict::Ok);
        }
    }

    #[test]
    fn what_the_kernel_counts_is_read() {
        let count = |text| ("proc/sys/net/netfilter/nf_conntrack_count", text);
        let most = ("proc/sys/net/netfilter/nf_conntrack_max", "262144\n");
        let judge = |files: &[(&str, &str)]| {
            let (roots, _folder) = with(files);
            judge("nf_conntrack_max", connections(&roots), "more").result
        };
        assert_eq!(judge(&[count("17\n"), most]), Verdict::Ok);
        assert_eq!(judge(&[count("220000\n"), most]), Verdict::Warn);
        assert_eq!(judge(&[count("262143\n"), most]), Verdict::Wrong);
        assert_eq!(judge(&[most]), Verdict::Unknown);
        assert_eq!(judge(&[]), Verdict::Unknown);
    }

    #[test]
    fn expectations_are_counted_by_their_lines() {
        let list = (
            "proc/thread-self/net/nf_conntrack_expect",
            "300 l3proto = 2 …\n299 …\n",
        );
        let most = |text| ("proc/sys/net/netfilter/nf_conntrack_expect_max", text);
        let used = |files: &[(&str, &str)]| {
            let (roots, _folder) = with(files);
            expectations(&roots).ok()
        };
        assert_eq!(used(&[list, most("4096")]), Some((2, 4096)));
        assert_eq!(used(&[most("4096")]), None);
        assert_eq!(used(&[list]), None);
    }
}
