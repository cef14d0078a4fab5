//! The programs that the lab runs in its namespaces.

mod table;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::paths::Paths;
use crate::{apt, privilege, programs, say};
use table::{PROGRAMS, PYTHON};

/// The programs of this machine that tests, demo and benchmarks may run: a folder of
/// links to those in the table, and nothing else, which is their whole PATH.
pub(crate) struct Lab {
    folder: PathBuf,
}

impl Lab {
    /// Installs what is missing, and links what is there.
    pub(crate) fn ensure(paths: &Paths) -> Result<Self> {
        install_missing()?;
        let folder = paths.target.join("lab-path");
        link_all(&folder).with_context(|| format!("linking programs in {}", folder.display()))?;
        Ok(Self { folder })
    }

    /// Has a command, and all that it starts, find these programs alone.
    pub(crate) fn restrict(&self, command: &mut Command) {
        command.env("PATH", &self.folder);
    }

    /// Has cargo start test programs with this PATH. cargo itself keeps the user's,
    /// on which it looks for compilers and linkers.
    pub(crate) fn restrict_tests(&self, cargo: &mut Command) -> Result<()> {
        let env = programs::find("env").context("env")?;
        let runner = format!(
            "target.'cfg(all())'.runner = [{:?}, {:?}]",
            env.display().to_string(),
            format!("PATH={}", self.folder.display())
        );
        cargo.args(["--config", &runner]);
        Ok(())
    }
}

/// Links each program of the table by its name. What an earlier table had goes; what is
/// right stays, as another run's tests may be using it.
fn link_all(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !PROGRAMS.iter().any(|it| *it.name == *entry.file_name()) {
            fs::remove_file(entry.path())?;
        }
    }
    for program in PROGRAMS {
        let file = locate(program.name).with_context(|| format!("{} is gone", program.name))?;
        let link = folder.join(program.name);
        if fs::read_link(&link).is_ok_and(|leads_to| leads_to == file) {
            continue;
        }
        let unfinished = tempfile::Builder::new().make_in(folder, |path| symlink(&file, path))?;
        unfinished.persist(&link)?;
    }
    Ok(())
}

/// What has to be done about the lab's programs.
#[derive(Debug, PartialEq)]
enum Plan {
    Nothing,
    Install(Vec<&'static str>),
    Refuse(String),
}

/// The programs of the table that a guest has too, by name.
pub(crate) fn in_guest() -> impl Iterator<Item = &'static str> {
    let shared = PROGRAMS.iter().filter(|program| program.in_guest);
    shared.map(|program| program.name)
}

/// Installs what is missing, or says in one message what somebody has to do.
fn install_missing() -> Result<()> {
    let has = |program: &str| locate(program).is_some();
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

/// Where a program of the table is on this machine.
fn locate(name: &str) -> Option<PathBuf> {
    if name != PYTHON {
        return programs::find(name);
    }
    // The distribution's comes first: another one may lack modules.
    let candidates = [
        Some(PathBuf::from("/usr/bin/python3")),
        programs::find(PYTHON),
    ];
    let mut candidates = candidates.into_iter().flatten();
    candidates.find(|python| has_venv(python))
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
    let missing = || PROGRAMS.iter().filter(|program| !has(program.name));
    let packages: BTreeSet<_> = missing().map(|program| program.package).collect();
    let packages = Vec::from_iter(packages);
    if packages.is_empty() {
        return Plan::Nothing;
    }
    if apt && root {
        return Plan::Install(packages);
    }
    let programs: Vec<_> = missing().map(|program| program.name).collect();
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
            plan(lacks(&[PYTHON]), ROOT, APT),
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

    #[test]
    fn the_folder_has_the_tables_programs_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("lab-path");
        let has_all = PROGRAMS
            .iter()
            .all(|program| locate(program.name).is_some());
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("removed-from-the-table"), "").unwrap();

        // Where the lab's programs were never installed it says which one is not there.
        assert_eq!(link_all(&folder).is_ok(), has_all);

        let entries = fs::read_dir(&folder).unwrap();
        for entry in entries {
            let name = entry.unwrap().file_name();
            assert!(
                PROGRAMS.iter().any(|program| *program.name == *name),
                "{name:?}"
            );
        }
    }
}
