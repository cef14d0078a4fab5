//! `cargo xtask test --kernel`: the lab's core suite under another kernel, booted
//! in QEMU.
//!
//! The guest is one file, an initramfs: Debian's kernel modules, the test programs,
//! the agent, and this machine's own vsftpd, nft, … with the libraries that they
//! load. It sees no disk and no network of the host's, and writes to memory only.

mod archive;
mod contents;
mod guest;
mod image;
mod initramfs;
mod machine;
mod suite;

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use cargo_metadata::{Message, camino::Utf8Path};

use crate::build::{self, Built};
use crate::paths::Paths;
use crate::profile::Profile;
use crate::toolchain::Toolchain;
use crate::{apt, process, programs, say};

use archive::Archive;
use guest::End;

/// A kernel that the lab's core suite can be run under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Release {
    /// Debian 12's own, which has no tcx
    #[value(name = "6.1")]
    Stable,
    /// That of Debian 12's backports
    #[value(name = "6.12")]
    Backports,
}

impl Release {
    const fn name(self) -> &'static str {
        match self {
            Self::Stable => "6.1",
            Self::Backports => "6.12",
        }
    }
}

/// Debian's kernel for virtual machines: the same source and the same netfilter as
/// the plain one, a third of its size.
const META_PACKAGE: &str = "linux-image-cloud-amd64";

/// The emulator, and the package that has it.
const QEMU: (&str, &str) = ("qemu-system-x86_64", "qemu-system-x86");

/// Loads the guest's modules, and lists them for that.
const KMOD: (&str, &str) = ("modprobe", "kmod");

/// Boots the kernel and runs the suite, or those of its tests whose name contains
/// `filter`.
pub(crate) fn run(
    paths: &Paths,
    toolchain: &Toolchain,
    release: Release,
    filter: Option<&str>,
) -> Result<ExitCode> {
    machine::require()?;
    let backports = || Archive::backports(&paths.cache().join("apt-backports"));
    ensure_programs(backports)?;
    let kernel = image::ensure(paths, release, backports)?;
    // Emulation is slow enough without an agent that nobody has optimised.
    let args = build::Args::default();
    let built = build::all(paths, toolchain, Profile::Release, args, &[])?;
    let tests = test_programs(paths, &built)?;

    let folder = paths.target.join(format!("kernel-{}", release.name()));
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    let initramfs = folder.join("initramfs");
    contents::pack(&initramfs, &kernel, &tests, &built, release, filter)?;

    let end = guest::boot(&kernel, &initramfs, &folder);
    // It is made anew each time, and is some hundred megabytes.
    drop(std::fs::remove_file(&initramfs));
    Ok(match end? {
        End::Passed => {
            say::note(&format!("{} passed the core suite", kernel.version));
            ExitCode::SUCCESS
        }
        End::Failed => {
            say::error(&format!("tests failed under {}", kernel.version));
            ExitCode::FAILURE
        }
    })
}

fn ensure_programs(backports: impl Fn() -> Result<Archive>) -> Result<()> {
    if programs::find(KMOD.0).is_none() {
        apt::install(&[KMOD.1])?;
    }
    if programs::find(QEMU.0).is_some() {
        return Ok(());
    }
    // Where something of QEMU's is from the backports already, the rest must be too.
    apt::install(&[QEMU.1]).or_else(|error| {
        say::note(&format!("{error:#}; trying Debian 12's backports"));
        backports()?.install(QEMU.1)
    })
}

/// Builds the test programs of the suite; a name and a file for each.
fn test_programs(paths: &Paths, built: &Built) -> Result<Vec<(&'static str, std::path::PathBuf)>> {
    let mut cargo = process::host_cargo(&paths.root);
    cargo
        .args([
            "test",
            "--no-run",
            "--locked",
            "--message-format=json-render-diagnostics",
        ])
        .args(["--package", "conntrack-tests", "--target-dir"])
        .arg(&paths.target)
        .stderr(std::process::Stdio::inherit());
    for name in suite::PROGRAMS {
        cargo.args(["--test", name]);
    }
    built.tell(&mut cargo);
    let output = process::output("building the tests", &mut cargo)?;
    anyhow::ensure!(
        output.status.success(),
        "building the tests failed: {}",
        output.status
    );
    let messages = Message::parse_stream(&output.stdout[..])
        .collect::<Result<Vec<_>, _>>()
        .context("cargo's messages")?;
    let programs = suite::PROGRAMS.iter().map(|&name| {
        let file = executable(&messages, name)
            .with_context(|| format!("cargo doesn't say where the test program {name} is"))?;
        Ok((name, file.into()))
    });
    programs.collect()
}

/// Where a test program is, by cargo's messages.
fn executable<'a>(messages: &'a [Message], name: &str) -> Option<&'a Utf8Path> {
    messages.iter().find_map(|message| match message {
        Message::CompilerArtifact(artifact)
            if artifact.target.is_test() && artifact.target.name == name =>
        {
            artifact.executable.as_deref()
        }
        _ => None,
    })
}

/// Runs a program for what it prints; anything but success is an error.
fn answer(step: &str, command: &mut Command) -> Result<String> {
    let output = process::output(step, command)?;
    anyhow::ensure!(
        output.status.success(),
        "{step} failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    String::from_utf8(output.stdout).with_context(|| format!("{step}: no text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_program_is_found_by_its_name() {
        let artifact = |kind: &str, name: &str, file: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","package_id":"p","manifest_path":"/m",
                "target":{{"kind":["{kind}"],"crate_types":["{kind}"],"name":"{name}",
                "src_path":"/s","edition":"2024","doc":false,"doctest":false,"test":true}},
                "profile":{{"opt_level":"0","debuginfo":0,"debug_assertions":true,
                "overflow_checks":true,"test":true}},"features":[],"filenames":[],
                "executable":{file},"fresh":true}}"#
            )
            .replace('\n', "")
        };
        let text = [
            artifact("lib", "lab", "null"),
            artifact("test", "lab", "\"/t/debug/deps/lab-1\""),
            artifact("test", "load", r#""/a \"b\"/load-1""#),
            r#"{"reason":"build-finished","success":true}"#.to_owned(),
        ]
        .join("\n");
        let messages = Message::parse_stream(text.as_bytes());
        let messages = messages.collect::<Result<Vec<_>, _>>().unwrap();
        let executable = |name| executable(&messages, name).map(Utf8Path::as_str);

        assert_eq!(executable("lab"), Some("/t/debug/deps/lab-1"));
        assert_eq!(
            executable("load"),
            Some("/a \"b\"/load-1"),
            "a path with quotes"
        );
        assert_eq!(executable("la"), None);
    }
}
