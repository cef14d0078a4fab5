//! Checks parameters of helper modules that admit more connections than were announced.
//!
//! They hold for the whole host, for all namespaces at once. Each may be an operator's
//! choice, so none is more than a warning.

use std::io;

use super::{Finding, sys_paths::SysPaths};
use crate::model::Helper;

const CHECK: &str = "parameters";

/// A module parameter: its module and name, its helpers, the safe value, and what any
/// other value means.
struct Parameter {
    module: &'static str,
    name: &'static str,
    helpers: &'static [&'static str],
    safe: &'static str,
    means: &'static str,
}

/// The checked parameters; each safe value is the kernel's default.
const PARAMETERS: [Parameter; 4] = [
    // `help` in net/netfilter/nf_conntrack_ftp.c.
    Parameter {
        module: "nf_conntrack_ftp",
        name: "loose",
        helpers: &["ftp"],
        safe: "N",
        means: "FTP's data connection may be announced for any address, and not for that of the \
                control connection alone: who talks FTP through the router can open it to others",
    },
    // `process_register_request` in net/netfilter/nf_conntrack_sip.c.
    Parameter {
        module: "nf_conntrack_sip",
        name: "sip_direct_signalling",
        helpers: &["sip"],
        safe: "1",
        means: "SIP calls are let in from any address, and not from the registrar alone",
    },
    // `set_expected_rtp_rtcp`, likewise. sip_external_media counts only where this one is
    // 0, and then fewer connections are expected, not more.
    Parameter {
        module: "nf_conntrack_sip",
        name: "sip_direct_media",
        helpers: &["sip"],
        safe: "1",
        means: "SIP's media streams are let in from any address, and not from the other end \
                of the call's signalling alone",
    },
    // `expect_q931` in net/netfilter/nf_conntrack_h323_main.c.
    Parameter {
        module: "nf_conntrack_h323",
        name: "gkrouted_only",
        helpers: &["Q.931", "RAS"],
        safe: "1",
        means: "H.323 calls are let in from any address, and not from the gatekeeper alone",
    },
];

/// Checks the parameters of the helpers that rules may use.
pub(super) fn check(paths: &SysPaths, allowed: &[Helper]) -> Vec<Finding> {
    let is_used = |parameter: &&Parameter| {
        let mut names = allowed.iter().map(|helper| helper.name());
        names.any(|name| parameter.helpers.contains(&name))
    };
    let used = PARAMETERS.iter().filter(is_used);
    used.map(|parameter| judge(parameter, paths)).collect()
}

fn judge(parameter: &Parameter, paths: &SysPaths) -> Finding {
    let Parameter {
        module,
        name,
        safe,
        means,
        ..
    } = parameter;
    match paths.parameter(module, name) {
        Ok(value) if is_same(&value, safe) => {
            Finding::ok(CHECK, format!("{module}.{name} = {value}"))
        }
        Ok(value) => Finding::warn(
            CHECK,
            format!("{module}.{name} = {value}: {means}"),
            format!(
                "echo {safe} > /sys/module/{module}/parameters/{name}, and take the option out of \
                 modprobe.d and the kernel's command line"
            ),
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Finding::unknown(
            CHECK,
            format!("{module}.{name} shows when the kernel has the module"),
        ),
        Err(error) => Finding::unknown(CHECK, format!("{module}.{name}: {error}")),
    }
}

/// Returns whether two values mean the same: a number counts as true if it isn't 0; a
/// bool shows as Y or N (`param_get_bool`, kernel/params.c).
fn is_same(value: &str, safe: &str) -> bool {
    let is_true = |text: &str| !matches!(text, "0" | "N" | "n");
    is_true(value) == is_true(safe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{Verdict, sys_paths::testing::with};

    const FTP: &str = "sys/module/nf_conntrack_ftp/parameters/loose";
    const SIGNALLING: &str = "sys/module/nf_conntrack_sip/parameters/sip_direct_signalling";
    const MEDIA: &str = "sys/module/nf_conntrack_sip/parameters/sip_direct_media";
    const H323: &str = "sys/module/nf_conntrack_h323/parameters/gkrouted_only";

    fn results(files: &[(&str, &str)], allowed: &[Helper]) -> Vec<Verdict> {
        let (paths, _folder) = with(files);
        let findings = check(&paths, allowed).into_iter();
        findings.map(|finding| finding.result).collect()
    }

    #[test]
    fn what_is_not_the_safe_value_is_warned_of_and_no_more_when_it_is() {
        let all: Vec<_> = Helper::all().collect();
        let good = [
            (FTP, "N\n"),
            (SIGNALLING, "1\n"),
            (MEDIA, "1\n"),
            (H323, "1\n"),
        ];
        assert_eq!(results(&good, &all), [Verdict::Ok; 4]);
        for (at, bad) in ["Y\n", "0\n", "0\n", "0\n"].into_iter().enumerate() {
            let mut files = good;
            files[at].1 = bad;
            let mut expected = [Verdict::Ok; 4];
            expected[at] = Verdict::Warn;
            assert_eq!(results(&files, &all), expected, "{files:?}");
        }
    }

    #[test]
    fn what_is_not_there_is_unknown_and_what_is_not_allowed_is_not_asked() {
        let all: Vec<_> = Helper::all().collect();
        assert_eq!(results(&[], &all), [Verdict::Unknown; 4]);
        let ftp = Helper::named("ftp").unwrap();
        assert_eq!(results(&[(FTP, "N")], &ftp), [Verdict::Ok]);
        let tftp = Helper::named("tftp").unwrap();
        assert_eq!(results(&[(FTP, "Y")], &tftp), []);
    }

    #[test]
    fn the_remedy_says_what_to_write_where() {
        let (paths, _folder) = with(&[(MEDIA, "0\n")]);
        let sip = Helper::named("sip").unwrap();
        let findings = check(&paths, &sip);
        let remedy = findings[1].remedy.as_deref().unwrap();
        let command = "echo 1 > /sys/module/nf_conntrack_sip/parameters/sip_direct_media";
        assert!(remedy.starts_with(command), "{remedy}");
    }
}
