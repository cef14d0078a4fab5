//! `cargo xtask build`: the eBPF object, then the agent with the object in it.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::paths::{BPF_TARGET, Paths};
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
    let built = all(&Paths::find()?, args)?;
    say::note(&format!("built {}", built.agent.display()));
    Ok(ExitCode::SUCCESS)
}

/// Builds one of the lab's programs, beside the agent that it is to run.
pub(crate) fn lab_program(paths: &Paths, built: &Built, name: &str) -> Result<()> {
    let mut cargo = process::host_cargo(&paths.root);
    cargo
        .args(["build", "--release", "--locked"])
        .args(["--package", "conntrack-tests", "--bin", name])
        .arg("--target-dir")
        .arg(&paths.target);
    built.tell(&mut cargo);
    process::run(&format!("building {name}"), &mut cargo)
}

/// Builds the object and the agent.
pub(crate) fn all(paths: &Paths, args: Args) -> Result<Built> {
    let toolchain = toolchain::ensure(paths)?;
    let object = object(paths, &toolchain, args)?;
    let mut cargo = process::host_cargo(&paths.root);
    cargo
        .args([
            "build",
            "--release",
            "--locked",
            "--package",
            "conntrack-agent",
        ])
        .arg("--target-dir")
        .arg(&paths.target)
        .env(OBJECT_VARIABLE, &object);
    if args.ebpf_log {
        cargo.args(["--features", "ebpf-log"]);
    }
    process::run("building the agent", &mut cargo)?;
    Ok(Built {
        object,
        agent: paths.release("conntrack-agent"),
    })
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
