//! Checks what the agent needs of the machine: kernel, JIT, capabilities, bpffs.

use std::{fs, io};

use super::{Finding, sys_paths::SysPaths};
use crate::{
    config::{Attach, Config},
    input::sentence,
    kernel::{Error, Hooks, MissingCapability, is_bpffs},
};

/// The oldest kernel that the agent is tested on.
const OLDEST: (u32, u32) = (6, 1);

/// Checks the version of the kernel.
pub(super) fn kernel(paths: &SysPaths) -> Finding {
    const CHECK: &str = "kernel";
    let release = match paths.sysctl("kernel/osrelease") {
        Ok(release) => release,
        Err(error) => {
            return Finding::unknown(CHECK, format!("its version can't be read: {error}"));
        }
    };
    match version(&release) {
        None => Finding::unknown(CHECK, format!("Linux {release}")),
        Some(version) if version < OLDEST => Finding::warn(
            CHECK,
            format!("Linux {release} is older than any that the agent is tested on"),
            "take 6.1 or newer",
        ),
        Some(_) => Finding::ok(CHECK, format!("Linux {release}")),
    }
}

/// Parses the version out of a release: `6.18` of `6.18.44-cloud`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Checks whether eBPF programs are compiled: with 0 they are interpreted, at many times
/// the cost; with 1 and 2 they are compiled (Documentation/admin-guide/sysctl/net.rst).
pub(super) fn compiler(paths: &SysPaths) -> Finding {
    const CHECK: &str = "bpf-jit";
    match paths.number("net/core/bpf_jit_enable") {
        Ok(0) => Finding::warn(
            CHECK,
            "eBPF programs are interpreted, which makes each packet dearer",
            "sysctl -w net.core.bpf_jit_enable=1",
        ),
        Ok(_) => Finding::ok(CHECK, "eBPF programs are compiled"),
        // The file is missing where the kernel has no compiler at all. Where the compiler
        // is always on, the file exists and allows only 1 (CONFIG_BPF_JIT_ALWAYS_ON).
        Err(error) => Finding::unknown(CHECK, format!("net.core.bpf_jit_enable: {error}")),
    }
}

/// Checks the agent's capabilities, by those of the process that runs `doctor`.
pub(super) fn capabilities(missing: io::Result<Vec<MissingCapability>>) -> Vec<Finding> {
    const CHECK: &str = "capabilities";
    match missing {
        Err(error) => vec![Finding::unknown(CHECK, error.to_string())],
        Ok(missing) if missing.is_empty() => {
            vec![Finding::ok(CHECK, "all that the agent needs are there")]
        }
        Ok(missing) => {
            let wrong = |MissingCapability { name, needed_for }| {
                // The kernel would take CAP_SYS_ADMIN for CAP_BPF (`bpf_capable`,
                // include/linux/capability.h); the agent wants both.
                let what = format!(
                    "{name} is missing, without which the agent doesn't start: it is to {needed_for}"
                );
                Finding::wrong(CHECK, what, "run this, and the agent, as root with it")
            };
            missing.into_iter().map(wrong).collect()
        }
    }
}

/// Checks the bpffs in which the agent pins.
pub(super) fn bpffs(config: &Config) -> Finding {
    let root = config.bpffs_root();
    let place = root.display().to_string();
    let finding = if is_bpffs(root) {
        Finding::ok(BPFFS, "a bpffs is mounted")
    } else {
        unmounted(
            fs::read_dir(root).map(|mut entries| entries.next().is_none()),
            &place,
        )
    };
    finding.at(place)
}

const BPFFS: &str = "bpffs";

/// Returns the finding where no bpffs is mounted, by whether the folder for it is empty.
fn unmounted(is_empty: io::Result<bool>, place: &str) -> Finding {
    const MOVE: &str = "move bpffs_dir in the configuration, and start the agent";
    // With the agent's own mount options: without them, any user may create files there.
    let mount = format!("mount -t bpf -o nosuid,nodev,noexec,mode=0700 bpf {place}");
    match is_empty {
        Ok(true) => Finding::warn(BPFFS, "no bpffs is mounted; the agent mounts one", mount),
        // The agent creates the folder.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Finding::warn(
            BPFFS,
            "there is no such folder; the agent makes it and mounts a bpffs",
            format!("mkdir -p {place} && {mount}"),
        ),
        Ok(false) => Finding::wrong(
            BPFFS,
            "no bpffs is mounted, and the agent mounts none over what is there",
            format!("{mount}, or {MOVE}"),
        ),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Finding::unknown(BPFFS, error.to_string())
        }
        // A file that is not a folder can't be mounted on by anybody.
        Err(error) => Finding::wrong(
            BPFFS,
            format!("no bpffs is mounted, and none can be: {error}"),
            MOVE,
        ),
    }
}

/// Checks how programs can be attached to interfaces.
pub(super) fn attach(wanted: Attach, hooks: Result<&Hooks, &Error>, may_ask: bool) -> Finding {
    const CHECK: &str = "attach";
    match (wanted, hooks.map(Hooks::has_tcx)) {
        (_, Err(error)) if may_ask => {
            let remedy = match error {
                Error::Namespace { .. } => super::NO_NAMESPACE,
                _ => "have the kernel's configuration say CONFIG_BPF_SYSCALL",
            };
            Finding::wrong(CHECK, sentence(error), remedy)
        }
        (_, Err(error)) => Finding::unknown(CHECK, sentence(error)),
        (Attach::Tcx, Ok(false)) => {
            let remedy = "attach = \"auto\" in the configuration, and start the agent";
            Finding::wrong(CHECK, sentence(&Error::NoTcx), remedy)
        }
        (Attach::Auto | Attach::Tcx, Ok(true)) => Finding::ok(CHECK, "by tcx links"),
        (Attach::Auto, Ok(false)) => {
            Finding::ok(CHECK, "by tc filters: this kernel has no tcx, as of 6.6")
        }
        (Attach::Clsact, Ok(_)) => Finding::ok(CHECK, "by tc filters, as configured"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{Verdict, sys_paths::testing::with};

    #[test]
    fn a_kernel_is_judged_by_its_version() {
        for (release, expected) in [
            ("6.18.44-fc\n", Verdict::Ok),
            ("6.1.0-37-cloud-amd64\n", Verdict::Ok),
            ("7.0\n", Verdict::Ok),
            ("6.0.19\n", Verdict::Warn),
            ("5.15.0\n", Verdict::Warn),
            ("next\n", Verdict::Unknown),
        ] {
            let (paths, _folder) = with(&[("proc/sys/kernel/osrelease", release)]);
            assert_eq!(kernel(&paths).result, expected, "{release}");
        }
        let (paths, _folder) = with(&[]);
        assert_eq!(kernel(&paths).result, Verdict::Unknown);
    }

    #[test]
    fn an_interpreted_program_is_warned_of() {
        let jit = |text| {
            let (paths, _folder) = with(&[("proc/sys/net/core/bpf_jit_enable", text)]);
            compiler(&paths).result
        };
        assert_eq!(jit("0\n"), Verdict::Warn);
        assert_eq!(jit("1\n"), Verdict::Ok);
        assert_eq!(jit("2\n"), Verdict::Ok);
        assert_eq!(jit("x\n"), Verdict::Unknown);
        let (paths, _folder) = with(&[]);
        assert_eq!(compiler(&paths).result, Verdict::Unknown);
    }

    #[test]
    fn each_capability_that_is_missing_is_named() {
        let result = |missing| {
            let findings = capabilities(missing).into_iter();
            findings.map(|finding| finding.result).collect::<Vec<_>>()
        };
        let one = |name| MissingCapability {
            name,
            needed_for: "do it",
        };
        assert_eq!(result(Ok(vec![])), [Verdict::Ok]);
        let two = Ok(vec![one("CAP_BPF"), one("CAP_NET_ADMIN")]);
        assert_eq!(result(two), [Verdict::Wrong; 2]);
        let error = Err(io::ErrorKind::PermissionDenied.into());
        assert_eq!(result(error), [Verdict::Unknown]);
    }

    #[test]
    fn what_can_be_mounted_over_is_no_fault() {
        let failed = |kind: io::ErrorKind| Err(kind.into());
        for (is_empty, expected, can_be) in [
            (Ok(true), Verdict::Warn, true),
            (failed(io::ErrorKind::NotFound), Verdict::Warn, true),
            (Ok(false), Verdict::Wrong, true),
            (failed(io::ErrorKind::NotADirectory), Verdict::Wrong, false),
        ] {
            let finding = unmounted(is_empty, "/x");
            assert_eq!(finding.result, expected, "{finding:?}");
            let remedy = finding.remedy.unwrap();
            let mount = "mount -t bpf -o nosuid,nodev,noexec,mode=0700 bpf /x";
            assert_eq!(remedy.contains(mount), can_be, "{remedy}");
        }
        let forbidden = unmounted(failed(io::ErrorKind::PermissionDenied), "/x");
        assert_eq!(forbidden.result, Verdict::Unknown);
    }

    #[test]
    fn what_is_refused_to_somebody_without_privileges_is_unknown() {
        let error = Error::NoTcx;
        let result = |may_ask| attach(Attach::Auto, Err(&error), may_ask).result;
        assert_eq!(result(true), Verdict::Wrong);
        assert_eq!(result(false), Verdict::Unknown);
    }

    #[test]
    fn where_no_namespace_can_be_made_the_remedy_is_about_that() {
        let error = Error::Namespace {
            name: "(scratch)".into(),
            what: "cannot be made",
            source: io::ErrorKind::StorageFull.into(),
        };
        let finding = attach(Attach::Auto, Err(&error), true);
        assert_eq!(finding.remedy.unwrap(), super::super::NO_NAMESPACE);
    }
}
