//! `cargo xtask check`: what can be said about the code without running it. What
//! the kernel's verifier says of the programs is said without running them too.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use crate::paths::Paths;
use crate::toolchain::{self, Toolchain};
use crate::{apt, build, layers, manifests, names, privilege, process, say, sizes};

/// Goes through all steps, whichever fail. That Cargo.lock is up to date is no
/// step of its own: every one of them, and xtask itself, runs with `--locked`.
pub(crate) fn run() -> Result<ExitCode> {
    let paths = Paths::find()?;
    let toolchain = toolchain::ensure(&paths)?;
    let object = build::object(&paths, &toolchain, build::Args::default());
    let results = [
        // First, for the agent's build script includes it.
        report("the eBPF object builds", &object.map(drop)),
        report("rustfmt", &format(&paths)),
        report("clippy on the host", &clippy_host(&paths)),
        report("clippy on the BPF target", &lint_bpf(&paths, &toolchain)),
        report("rustdoc", &document(&paths)),
        report(
            "manifests inherit the workspace's settings",
            &inherit(&paths.root),
        ),
        count("layers", &layers::check(&paths.root)),
        count("names", &shared_names(&paths.root)),
        count("sizes", &sizes::check(&paths.root)),
        verify(&paths),
    ];
    Ok(if results.contains(&false) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// What the programs cost the kernel's verifier, on this kernel.
fn verify(paths: &Paths) -> bool {
    const STEP: &str = "the programs are far from the verifier's limits";
    if !privilege::is_root() {
        println!("left  {STEP}: the kernel lets only root load programs");
        return true;
    }
    let mut cargo = on_the_host(paths, "run");
    cargo.args(["--package", "conntrack-tests", "--bin", "verifier"]);
    report(STEP, &process::run("measuring", &mut cargo))
}

fn report(step: &str, result: &Result<()>) -> bool {
    match result {
        Ok(()) => println!("ok    {step}"),
        Err(error) => println!("FAIL  {step}: {error:#}"),
    }
    result.is_ok()
}

/// A step that has something to say even where all is well.
fn count(step: &str, result: &Result<Vec<String>>) -> bool {
    match result {
        Ok(lines) => println!("ok    {step}: {}", lines.join("\n      ")),
        Err(error) => println!("FAIL  {step}: {error:#}"),
    }
    result.is_ok()
}

fn shared_names(root: &Path) -> Result<Vec<String>> {
    names::check(&layers::sources(root)?)
}

fn format(paths: &Paths) -> Result<()> {
    let mut cargo = process::host_cargo(&paths.root);
    process::run("cargo fmt", cargo.args(["fmt", "--all", "--check"]))
}

fn clippy_host(paths: &Paths) -> Result<()> {
    let mut cargo = on_the_host(paths, "clippy");
    cargo.args(["--workspace", "--all-targets", "--", "-Dwarnings"]);
    process::run("cargo clippy", &mut cargo)
}

fn document(paths: &Paths) -> Result<()> {
    let mut cargo = on_the_host(paths, "doc");
    cargo
        .args(["--workspace", "--no-deps"])
        .env("RUSTDOCFLAGS", "-Dwarnings");
    process::run("cargo doc", &mut cargo)
}

fn on_the_host(paths: &Paths, command: &str) -> Command {
    let mut cargo = process::host_cargo(&paths.root);
    cargo
        .args([command, "--locked", "--target-dir"])
        .arg(&paths.target)
        .env(build::OBJECT_VARIABLE, paths.object());
    cargo
}

/// Clippy has to be of the very compiler that builds `core`, so the host's does
/// not serve.
fn lint_bpf(paths: &Paths, toolchain: &Toolchain) -> Result<()> {
    install_clippy(toolchain)?;
    for features in ["program", "program,log"] {
        let mut cargo = if let Some(mut clippy) = toolchain.clippy() {
            build::for_the_classifier(&mut clippy, paths, features);
            clippy
        } else {
            say::note("the BPF toolchain has no clippy: rustc's own lints have to do there");
            let mut cargo = toolchain.cargo();
            cargo.args(["rustc", "--profile", "check"]);
            build::for_the_classifier(&mut cargo, paths, features);
            cargo
        };
        process::run("linting the classifier", cargo.args(["--", "-Dwarnings"]))?;
    }
    Ok(())
}

fn install_clippy(toolchain: &Toolchain) -> Result<()> {
    if let Some(package) = toolchain.clippy_package()
        && privilege::is_root()
        && apt::is_available()
    {
        say::note(&format!("installing {package}, to lint the classifier"));
        apt::install(&[package])?;
    }
    Ok(())
}

fn inherit(root: &Path) -> Result<()> {
    let faults = manifests::faults(root)?;
    if !faults.is_empty() {
        bail!(faults.join("; "));
    }
    Ok(())
}
