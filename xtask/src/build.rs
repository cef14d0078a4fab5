//! `cargo xtask build`: the eBPF object, then the agent with the object in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};

use crate::paths::{BPF_TARGET, Paths};
use crate::profile::Profile;
use crate::toolchain::{self, Toolchain};
use crate::{process, say};

/// How to build.
#[derive(clap::Args, Clone, Copy, Default)]
pub(crate) struct Args {
    /// Have the classifier log each packet's verdict: for debugging in a lab
    #[arg(long)]
    ebpf_log: bool,
}

/// The variable that tells the agent's build script where the object is.
pub(crate) const OBJECT_VARIABLE: &str = "CONNTRACK_EBPF_OBJECT";

/// The variable that tells the lab where the agent is.
pub(crate) const AGENT_VARIABLE: &str = "CONNTRACK_AGENT_BIN";

/// What was built.
pub(crate) struct Built {
    /// The eBPF object.
    pub(crate) object: PathBuf,
    /// The agent's program.
    pub(crate) agent: PathBuf,
}

impl Built {
    /// Tells a command about both.
    pub(crate) fn tell(&self, command: &mut Command) {
        command
            .env(OBJECT_VARIABLE, &self.object)
            .env(AGENT_VARIABLE, &self.agent);
    }
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let paths = Paths::find()?;
    let toolchain = toolchain::ensure(&paths)?;
    let built = all(&paths, &toolchain, Profile::Release, args, &[])?;
    let installable = strip(&paths, &built)?;
    say::note(&format!("built {}", installable.display()));
    Ok(ExitCode::SUCCESS)
}

/// Builds the object, the agent, and these programs of the lab, in one run of cargo.
///
/// All members of the workspace are selected, as by the tests: cargo then gives shared
/// crates the same features in both, and builds them once.
pub(crate) fn all(
    paths: &Paths,
    toolchain: &Toolchain,
    profile: Profile,
    args: Args,
    lab_programs: &[&str],
) -> Result<Built> {
    let object = object(paths, toolchain, args)?;
    let mut cargo = process::host_cargo(&paths.root);
    cargo
        .args(["build", "--workspace", "--locked"])
        .args(["--profile", profile.name(), "--bin", "conntrack-agent"])
        .args(lab_programs.iter().flat_map(|name| ["--bin", name]))
        .arg("--target-dir")
        .arg(&paths.target)
        .env(OBJECT_VARIABLE, &object);
    if args.ebpf_log {
        cargo.args(["--features", "conntrack-agent/ebpf-log"]);
    }
    process::run("building the agent", &mut cargo)?;
    Ok(Built {
        object,
        agent: paths.program(profile, "conntrack-agent"),
    })
}

/// Copies the agent without its symbols, a seventh of its size, to where it is
/// installed from. The symbols lie beside it, where gdb(1) finds them by the copy's
/// `.gnu_debuglink`.
fn strip(paths: &Paths, built: &Built) -> Result<PathBuf> {
    let folder = paths.target.join("install");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let program = folder.join("conntrack-agent");
    let symbols = folder.join("conntrack-agent.debug");
    let objcopy = |arguments: &[&str], from: &Path, to: &Path| {
        let mut objcopy = Command::new("objcopy");
        objcopy.args(arguments).arg(from).arg(to);
        // The link holds the symbols' name and checksum, not their folder.
        objcopy.current_dir(&folder);
        process::run("taking the agent's symbols off", &mut objcopy)
    };
    objcopy(&["--only-keep-debug"], &built.agent, &symbols)?;
    let link = "--add-gnu-debuglink=conntrack-agent.debug";
    objcopy(&["--strip-all", link], &built.agent, &program)?;
    Ok(program)
}

/// Builds the eBPF object alone.
pub(crate) fn object(paths: &Paths, toolchain: &Toolchain, args: Args) -> Result<PathBuf> {
    let features = if args.ebpf_log {
        "program,log"
    } else {
        "program"
    };
    let mut cargo = toolchain.cargo();
    cargo.arg("build");
    for_the_classifier(&mut cargo, paths, features);
    process::run("building the eBPF object", &mut cargo)?;
    Ok(paths.object())
}

/// What every command of the BPF toolchain is told about the classifier.
pub(crate) fn for_the_classifier(cargo: &mut Command, paths: &Paths, features: &str) {
    cargo
        .current_dir(&paths.root)
        .args(["--package", "conntrack-ebpf", "--bin", "classifier"])
        .args(["--features", features, "--release", "--locked"])
        .args(["--target", BPF_TARGET, "-Zbuild-std=core"])
        .arg("--target-dir")
        .arg(paths.bpf_target());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_installed_has_no_symbols_and_works() {
        let target = tempfile::tempdir().unwrap();
        let paths = Paths {
            root: target.path().to_owned(),
            target: target.path().to_owned(),
        };
        // This program stands for the agent.
        let built = Built {
            object: PathBuf::new(),
            agent: std::env::current_exe().unwrap(),
        };

        let installable = strip(&paths, &built).unwrap();

        let size = |file: &Path| fs::metadata(file).unwrap().len();
        assert!(size(&installable) < size(&built.agent) / 2);
        let symbols = installable.with_file_name("conntrack-agent.debug");
        assert!(size(&symbols) > size(&installable));
        let link = fs::read(&installable).unwrap();
        let name = b"conntrack-agent.debug\0";
        assert!(link.windows(name.len()).any(|bytes| bytes == name));
        let listed = Command::new(&installable).arg("--list").output().unwrap();
        assert!(listed.status.success());
    }
}
