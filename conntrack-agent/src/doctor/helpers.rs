//! Checks nft, the helpers that it and the kernel have, and automatic helper assignment.

use std::{collections::BTreeSet, io};

use super::{Finding, routers::LocalRouter, sys_paths::SysPaths};
use crate::{
    input::sentence,
    kernel::{Binding, Error, Netns, Nft},
    model::Helper,
};

/// Checks whether nft is present, and which version.
pub(super) fn nft(nft: &Nft) -> Finding {
    const CHECK: &str = "nft";
    match nft.version() {
        Ok(version) => Finding::ok(CHECK, version),
        Err(error @ Error::NftMissing { .. }) => Finding::wrong(
            CHECK,
            sentence(&error),
            "install the nftables package, or set `nft` in the configuration and restart the agent",
        ),
        Err(error) => Finding::wrong(
            CHECK,
            sentence(&error),
            "see to it that this command works: nft --version",
        ),
    }
}

const HELPERS: &str = "helpers";

/// Checks which of the allowed helpers kernel and nft support.
pub(super) fn present(
    probed: Result<&Binding, &Error>,
    allowed: &[Helper],
    may_ask: bool,
) -> Finding {
    match probed {
        Ok(binding) => among(binding.helpers(), allowed),
        Err(error @ (Error::NftMissing { .. } | Error::NftNotRun { .. })) => {
            Finding::unknown(HELPERS, format!("not without nft: {error}"))
        }
        Err(error) if may_ask => {
            let remedy = format!("the agent doesn't start; {}", remedy(error));
            Finding::wrong(HELPERS, sentence(error), remedy)
        }
        Err(error) => Finding::unknown(HELPERS, sentence(error)),
    }
}

/// Returns the remedy for a failed probe.
fn remedy(error: &Error) -> &'static str {
    match error {
        Error::Namespace { .. } => super::NO_NAMESPACE,
        Error::NftHangs { .. } => "see to it that this command ends: nft -j list ruleset",
        _ => {
            "have a kernel with nftables (NF_TABLES, NFT_CT, NF_CONNTRACK), and an nft with JSON \
             support (`nft -V` tells)"
        }
    }
}

fn among(present: &[Helper], allowed: &[Helper]) -> Finding {
    let list = |helpers: BTreeSet<Helper>| -> String {
        let names = helpers.into_iter().map(|helper| format!("{helper:?}"));
        names.collect::<Vec<_>>().join(", ")
    };
    let is_present = |helper: &Helper| present.contains(helper);
    // A set, as a helper with two names in rules is allowed twice.
    let (there, missing): (BTreeSet<_>, BTreeSet<_>) =
        allowed.iter().copied().partition(is_present);
    if missing.is_empty() {
        Finding::ok(HELPERS, list(there))
    } else {
        Finding::warn(
            HELPERS,
            format!(
                "this kernel lacks {}: rules for them are refused",
                list(missing)
            ),
            "install the kernel's modules nf_conntrack_…, or take them out of allowed_helpers; and \
             restart the agent",
        )
    }
}

/// Checks automatic helper assignment: the kernel gives connections to a helper's usual
/// port that helper without any rule, which lets clients open ports by themselves
/// (Documentation/networking/nf_conntrack-sysctl.rst; gone as of Linux 6.0, and off by
/// default since 4.7).
pub(super) fn automatic(paths: &SysPaths, router: &LocalRouter) -> Vec<Finding> {
    let check = |netns: &Netns| {
        let value = super::within(netns, || paths.number(AUTOMATIC));
        judge_automatic(value).at(netns.name())
    };
    router.namespaces.iter().map(check).collect()
}

const AUTOMATIC: &str = "net/netfilter/nf_conntrack_helper";

fn judge_automatic(value: io::Result<u64>) -> Finding {
    const CHECK: &str = "automatic-helpers";
    match value {
        Ok(0) => Finding::ok(CHECK, "the kernel gives none by itself"),
        Ok(_) => Finding::warn(
            CHECK,
            "the kernel gives helpers to connections that no rule is for",
            "sysctl -w net.netfilter.nf_conntrack_helper=0 in this namespace, and 0 as the \
             option nf_conntrack_helper of the module nf_conntrack",
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Finding::ok(CHECK, "the kernel can give none by itself")
        }
        Err(error) => Finding::unknown(CHECK, format!("{AUTOMATIC}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{Verdict, sys_paths::testing::with};

    #[test]
    fn a_helper_that_the_kernel_lacks_is_named_if_rules_may_use_it() {
        let all: Vec<_> = Helper::all().collect();
        let without_sip: Vec<_> = all
            .iter()
            .filter(|each| each.name() != "sip")
            .copied()
            .collect();
        assert_eq!(among(&all, &all).result, Verdict::Ok);
        let finding = among(&without_sip, &all);
        assert_eq!(finding.result, Verdict::Warn);
        assert!(
            finding.what.contains("lacks sip/udp, sip/tcp:"),
            "{finding:?}"
        );
        assert_eq!(among(&without_sip, &without_sip).result, Verdict::Ok);
    }

    #[test]
    fn what_failed_has_a_remedy_of_its_own() {
        let remedy = |error: &Error| {
            let finding = present(Err(error), &[], true);
            assert_eq!(finding.result, Verdict::Wrong, "{finding:?}");
            let unasked = present(Err(error), &[], false);
            assert_eq!(unasked.result, Verdict::Unknown, "{unasked:?}");
            finding.remedy.unwrap()
        };
        let namespace = Error::Namespace {
            name: "(scratch)".into(),
            what: "cannot be made",
            source: io::ErrorKind::StorageFull.into(),
        };
        assert!(remedy(&namespace).contains("max_net_namespaces"));
        let hangs = Error::NftHangs {
            program: "nft".into(),
            limit: std::time::Duration::from_secs(30),
        };
        assert!(remedy(&hangs).contains("nft -j list ruleset"));
        let refused = Error::Nft {
            place: "(scratch)".into(),
            said: "no".into(),
        };
        assert!(remedy(&refused).contains("JSON"));
        assert!(remedy(&refused).contains("NFT_CT"));
    }

    #[test]
    fn helpers_without_a_rule_are_warned_of() {
        let result = |files: &[(&str, &str)]| {
            let (paths, _folder) = with(files);
            judge_automatic(paths.number(AUTOMATIC)).result
        };
        let file = "proc/sys/net/netfilter/nf_conntrack_helper";
        assert_eq!(result(&[(file, "1\n")]), Verdict::Warn);
        assert_eq!(result(&[(file, "0\n")]), Verdict::Ok);
        assert_eq!(result(&[]), Verdict::Ok);
        assert_eq!(result(&[(file, "?\n")]), Verdict::Unknown);
    }
}
