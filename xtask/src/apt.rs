//! Installing Debian packages.

use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::policy_rc_d::NoServices;
use crate::{process, programs, say};

/// Packages that bring a system service, and the service.
const SERVICES: [(&str, &str); 3] = [
    ("vsftpd", "vsftpd.service"),
    ("tftpd-hpa", "tftpd-hpa.service"),
    ("prometheus", "prometheus.service"),
];

/// Whether this machine installs its software with apt.
pub(crate) fn is_available() -> bool {
    programs::find("apt-get").is_some()
}

/// What root types to install these packages.
pub(crate) fn command_line(packages: &[&str]) -> String {
    format!(
        "sudo apt-get install -y --no-install-recommends {}",
        packages.join(" ")
    )
}

/// Installs packages; needs root.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let mut updated = false;
    if !unknown(packages)?.is_empty() {
        update()?;
        updated = true;
        let unknown = unknown(packages)?;
        if !unknown.is_empty() {
            bail!(
                "apt knows no package {}, even after `apt-get update`; Debian 12 has them, in \
                 its main and security archives",
                unknown.join(", ")
            );
        }
    }

    let _no_services = NoServices::forbid()?;
    let mut result = install_known(packages);
    if result.is_err() && !updated {
        // Package lists that are too old name files which are gone.
        update()?;
        result = install_known(packages);
    }
    result?;
    keep_services_off(packages)
}

fn install_known(packages: &[&str]) -> Result<()> {
    let mut command = apt_get()?;
    // --no-remove: what a conflict would take away may be in use here.
    command
        .args(["install", "-y", "--no-install-recommends", "--no-remove"])
        .args(packages);
    process::run(&format!("installing {}", packages.join(", ")), &mut command)
}

/// Renews the package lists.
///
/// A source of packages that doesn't answer is often not the one that is needed,
/// so that alone is no failure.
pub(crate) fn update() -> Result<()> {
    say::note("running apt-get update");
    let status = process::status("apt-get update", apt_get()?.arg("update"))?;
    if !status.success() {
        say::note(&format!("apt-get update ended with {status}; going on"));
    }
    Ok(())
}

/// `apt-get` that asks nothing, and reports on stderr.
pub(crate) fn apt_get() -> Result<Command> {
    let mut command = Command::new("apt-get");
    // Its report is not xtask's output.
    let report = std::io::stderr().as_fd().try_clone_to_owned()?;
    command
        .args([
            "-q",
            "-o",
            "DPkg::Lock::Timeout=120",
            "-o",
            "Dpkg::Use-Pty=0",
        ])
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(report);
    Ok(command)
}

fn unknown<'a>(packages: &[&'a str]) -> Result<Vec<&'a str>> {
    let mut policy = Command::new("apt-cache");
    policy.arg("policy").args(packages).env("LC_ALL", "C");
    let output = process::output("asking apt for its packages", &mut policy)?;
    let listing = String::from_utf8(output.stdout).context("apt-cache policy")?;
    Ok(without_candidate(packages, &listing))
}

/// `apt-cache policy` says nothing of a package that it doesn't know, and
/// `Candidate: (none)` of one that it has only heard of.
fn without_candidate<'a>(packages: &[&'a str], policy: &str) -> Vec<&'a str> {
    let has_candidate = |package: &str| {
        policy
            .lines()
            .skip_while(|line| line.strip_suffix(':') != Some(package))
            .skip(1)
            .take_while(|line| line.starts_with(' '))
            .filter_map(|line| line.trim().strip_prefix("Candidate: "))
            .any(|candidate| candidate != "(none)")
    };
    packages
        .iter()
        .copied()
        .filter(|package| !has_candidate(package))
        .collect()
}

/// Installing also enables a service, for the next boot.
fn keep_services_off(installed: &[&str]) -> Result<()> {
    if !Path::new("/run/systemd/system").exists() {
        return Ok(());
    }
    for (package, service) in SERVICES {
        if installed.contains(&package) {
            say::note(&format!(
                "disabling {service}: the lab runs {package} by itself"
            ));
            let mut disable = Command::new("systemctl");
            disable.args(["--quiet", "disable", "--now", service]);
            process::run(&format!("disabling {service}"), &mut disable)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_without_a_candidate_are_unknown() {
        let policy = "nftables:\n  Installed: (none)\n  Candidate: 1.0.6-2\n  Version table:\n\
                      rustc-web:\n  Installed: (none)\n  Candidate: (none)\n  Version table:\n";

        let unknown = without_candidate(&["nftables", "rustc-web", "llvm-22-dev"], policy);

        assert_eq!(unknown, ["rustc-web", "llvm-22-dev"]);
    }
}
