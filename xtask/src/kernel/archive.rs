//! Where Debian's packages come from.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::answer;
use crate::{apt, process, say};

/// The release that the kernels are of.
const CODENAME: &str = "bookworm";

/// Debian's keys for its archives, where every Debian and Ubuntu has them.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// An apt: the machine's own, or one with the backports in addition.
pub(super) struct Archive {
    /// The private configuration.
    configuration: Option<PathBuf>,
}

impl Archive {
    /// The machine's own apt.
    pub(super) const fn of_the_machine() -> Self {
        Self {
            configuration: None,
        }
    }

    /// Debian 12 with its backports, from where this machine has Debian 12 from.
    /// All that apt notes about it is in `folder`: the machine's own configuration
    /// stays as it is.
    pub(super) fn backports(folder: &Path) -> Result<Self> {
        let mut sources = sources(&targets()?);
        if sources.is_empty() {
            apt::update()?;
            sources = self::sources(&targets()?);
        }
        if sources.is_empty() {
            bail!("this machine's apt has no Debian 12, whose kernels are wanted");
        }
        for name in ["lists/partial", "cache/archives/partial", "parts"] {
            let path = folder.join(name);
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        let list = folder.join("sources.list");
        let configuration = folder.join("apt.conf");
        let write = |file: &Path, text: &str| {
            fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
        };
        write(&list, &sources)?;
        write(&configuration, &settings(folder)?)?;
        let archive = Self {
            configuration: Some(configuration),
        };
        say::note("asking Debian 12's backports for their packages");
        let mut update = archive.apt_get()?;
        process::run("apt-get update with the backports", update.arg("update"))?;
        Ok(archive)
    }

    /// Installs a package, in its backport's version if it has one.
    pub(super) fn install(&self, package: &str) -> Result<()> {
        let mut install = self.apt_get()?;
        install.args(["install", "-y", "--no-install-recommends", "--no-remove"]);
        if self.configuration.is_some() {
            install.arg(format!("--target-release={CODENAME}-backports"));
        }
        install.arg(package);
        process::run(&format!("installing {package}"), &mut install)
    }

    /// The kernel's own package, which the package that always names the newest
    /// depends on.
    pub(super) fn kernel_package(&self, meta_package: &str) -> Result<String> {
        let mut depends = Command::new("apt-cache");
        depends
            .args(["depends", "--important", meta_package])
            .env("LC_ALL", "C");
        if self.configuration.is_some() {
            depends.arg(format!("--target-release={CODENAME}-backports"));
        }
        self.configure(&mut depends);
        let listing = answer("asking apt for the kernel", &mut depends)?;
        kernel_in(&listing)
            .map(str::to_owned)
            .with_context(|| format!("apt doesn't say which kernel {meta_package} has"))
    }

    /// Fetches a package's file into a folder that has none yet.
    pub(super) fn download(&self, package: &str, into: &Path) -> Result<PathBuf> {
        let mut download = self.apt_get()?;
        // The folder is root's: apt's own user couldn't write into it.
        download
            .args(["-o", "APT::Sandbox::User=root", "download", package])
            .current_dir(into);
        process::run(&format!("downloading {package}"), &mut download)?;
        let mut files = fs::read_dir(into)?.filter_map(|entry| Some(entry.ok()?.path()));
        files
            .find(|file| file.extension().is_some_and(|found| found == "deb"))
            .with_context(|| format!("apt-get downloaded no file for {package}"))
    }

    fn apt_get(&self) -> Result<Command> {
        let mut command = apt::apt_get()?;
        self.configure(&mut command);
        Ok(command)
    }

    fn configure(&self, command: &mut Command) {
        if let Some(configuration) = &self.configuration {
            command.env("APT_CONFIG", configuration);
        }
    }
}

/// The package lists that this machine's apt has: an address, a release and a
/// component a line.
fn targets() -> Result<String> {
    let mut targets = Command::new("apt-get");
    targets
        .args(["indextargets", "--format"])
        .arg("$(REPO_URI) $(CODENAME) $(COMPONENT)")
        .arg("Created-By: Packages");
    answer("asking apt for its sources", &mut targets)
}

/// Sources of Debian 12 with its backports beside it; none if there is no Debian 12.
fn sources(targets: &str) -> String {
    let mut text = String::new();
    for line in targets.lines() {
        let [address, release, "main"] = line.split(' ').collect::<Vec<_>>()[..] else {
            continue;
        };
        let add = |release: &str| format!("deb [signed-by={KEYS}] {address} {release} main\n");
        let lines = match release.strip_prefix(CODENAME) {
            Some("") => add(release) + &add(&format!("{CODENAME}-backports")),
            Some("-updates" | "-security") => add(release),
            _ => continue,
        };
        // A machine may have several architectures' lists of one release.
        if !text.contains(&lines) {
            text += &lines;
        }
    }
    // Updates alone are no release.
    if text.contains("-backports ") {
        text
    } else {
        String::new()
    }
}

fn settings(folder: &Path) -> Result<String> {
    let folder = folder.to_str().context("the cache's path is no text")?;
    // apt's configuration has no way to write a quote inside a value.
    if folder.contains('"') {
        bail!("{folder}: apt takes no path with a quote in it");
    }
    Ok(format!(
        "Dir::Etc::SourceList \"{folder}/sources.list\";
Dir::Etc::SourceParts \"{folder}/parts\";
Dir::State::Lists \"{folder}/lists\";
Dir::Cache \"{folder}/cache\";
"
    ))
}

/// `apt-cache depends` says `Depends: ` before each package that it names.
fn kernel_in(listing: &str) -> Option<&str> {
    let mut names = listing
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "));
    names.find(|name| name.starts_with("linux-image-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backports_come_from_where_the_release_does() {
        let targets = "http://a.example/ubuntu/ noble main\n\
                       http://d.example/debian/ bookworm main\n\
                       http://d.example/debian/ bookworm main\n\
                       http://d.example/debian/ bookworm contrib\n\
                       http://d.example/security/ bookworm-security main\n\
                       http://d.example/debian/ bookworm-proposed-updates main\n\n";
        let line = |rest: &str| format!("deb [signed-by={KEYS}] http://d.example/{rest} main\n");

        assert_eq!(
            sources(targets),
            line("debian/ bookworm")
                + &line("debian/ bookworm-backports")
                + &line("security/ bookworm-security")
        );
    }

    #[test]
    fn without_debian_12_there_are_no_sources() {
        for targets in [
            "",
            "http://a.example/debian/ trixie main\n",
            "http://a.example/security/ bookworm-security main\n",
        ] {
            assert_eq!(sources(targets), "", "{targets}");
        }
    }

    #[test]
    fn the_newest_kernel_is_what_the_meta_package_depends_on() {
        let listing = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n";
        assert_eq!(kernel_in(listing), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(kernel_in("linux-image-cloud-amd64\n"), None);
        assert_eq!(kernel_in("a\n  Depends: linux-base\n"), None);
    }

    #[test]
    fn paths_that_apt_cannot_take_are_refused() {
        assert!(
            settings(Path::new("/c/apt"))
                .unwrap()
                .contains("\"/c/apt/lists\"")
        );
        assert!(settings(Path::new("/a\"b")).is_err());
    }
}
