//! The programs that the lab runs in its namespaces.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::{apt, privilege, programs, say};

/// A Python that can make virtual environments, which is more than a program:
/// Debian has `venv` in a package of its own, and leaves `ensurepip` out of the
/// interpreter's.
const VENV: &str = "python3 with venv";

/// What knows the form of metrics.
const PROMTOOL: &str = "promtool";

/// A terminal for what is to have one.
const TMUX: &str = "tmux";

/// Each program, and the Debian package that has it.
const PROGRAMS: [(&str, &str); 17] = [
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("vsftpd", "vsftpd"),
    ("in.tftpd", "tftpd-hpa"),
    ("tftp", "tftp-hpa"),
    ("sipp", "sip-tester"),
    ("capsh", "libcap2-bin"),
    ("setpriv", "util-linux"),
    ("nsenter", "util-linux"),
    ("curl", "curl"),
    ("bpftool", "bpftool"),
    ("faketime", "faketime"),
    (PROMTOOL, "prometheus"),
    (TMUX, "tmux"),
    (VENV, "python3-venv"),
];

/// What has to be done about the lab's programs.
#[derive(Debug, PartialEq)]
enum Plan {
    Nothing,
    Install(Vec<&'static str>),
    Refuse(String),
}

/// The programs that the lab runs in a guest, by name: no more than its core suite
/// needs, as a guest has all of them in memory.
pub(crate) fn programs() -> impl Iterator<Item = &'static str> {
    let names = PROGRAMS.iter().map(|&(program, _)| program);
    names.filter(|&program| ![VENV, PROMTOOL, TMUX].contains(&program))
}

/// Installs what is missing, or says in one message what somebody has to do.
pub(crate) fn ensure() -> Result<()> {
    let has = |program: &str| match program {
        VENV => has_venv(Path::new("/usr/bin/python3")) || has_venv(Path::new("python3")),
        program => programs::find(program).is_some(),
    };
    match plan(has, privilege::is_root(), apt::is_available()) {
        Plan::Nothing => say::note("lab: all programs found"),
        Plan::Install(packages) => {
            say::note(&format!("lab: installing {}", packages.join(", ")));
            apt::install(&packages)?;
        }
        Plan::Refuse(message) => bail!(message),
    }
    Ok(())
}

/// Whether this interpreter is there and makes virtual environments with pip.
fn has_venv(python: &Path) -> bool {
    let mut ask = Command::new(python);
    ask.args(["-c", "import ensurepip, venv"]);
    ask.stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    ask.status().is_ok_and(|status| status.success())
}

fn plan(has: impl Fn(&str) -> bool, root: bool, apt: bool) -> Plan {
    let missing = || PROGRAMS.iter().filter(|(program, _)| !has(program));
    let mut packages: Vec<_> = missing().map(|&(_, package)| package).collect();
    packages.dedup();
    if packages.is_empty() {
        return Plan::Nothing;
    }
    if apt && root {
        return Plan::Install(packages);
    }
    let programs: Vec<_> = missing().map(|&(program, _)| program).collect();
    let programs = programs.join(", ");
    Plan::Refuse(if apt {
        format!(
            "the lab lacks {programs}, and only root can install programs; run\n  {}",
            apt::command_line(&packages)
        )
    } else {
        format!(
            "the lab lacks {programs}, and this machine has no apt-get; install them with its \
             own package manager (Debian calls the packages {})",
            packages.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const ROOT: bool = true;
    const APT: bool = true;

    fn lacks(missing: &'static [&str]) -> impl Fn(&str) -> bool {
        |program| !missing.contains(&program)
    }

    #[test]
    fn a_complete_machine_needs_neither_root_nor_apt() {
        assert_eq!(plan(lacks(&[]), !ROOT, !APT), Plan::Nothing);
    }

    #[test]
    fn root_installs_each_missing_package_once() {
        assert_eq!(
            plan(lacks(&["nft", "setpriv", "nsenter"]), ROOT, APT),
            Plan::Install(vec!["nftables", "util-linux"])
        );
    }

    #[test]
    fn a_python_without_venv_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let python = |name: &str, code: u8| {
            let file = folder.path().join(name);
            fs::write(&file, format!("#!/bin/sh\nexit {code}\n")).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
            file
        };

        assert!(has_venv(&python("whole", 0)));
        assert!(!has_venv(&python("bare", 1)), "an ImportError");
        assert!(!has_venv(&folder.path().join("none")));
        assert_eq!(
            plan(lacks(&[VENV]), ROOT, APT),
            Plan::Install(vec!["python3-venv"])
        );
    }

    #[test]
    fn others_are_told_the_command() {
        let Plan::Refuse(message) = plan(lacks(&["sipp"]), !ROOT, APT) else {
            panic!("only root can install");
        };
        assert!(message.ends_with("apt-get install -y --no-install-recommends sip-tester"));
    }

    #[test]
    fn without_apt_the_missing_programs_are_named() {
        let Plan::Refuse(message) = plan(lacks(&["in.tftpd", "tftp"]), ROOT, !APT) else {
            panic!("there is nothing to install with");
        };
        assert!(message.starts_with("the lab lacks in.tftpd, tftp, "));
    }
}
