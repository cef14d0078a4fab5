//! bpf-linkers: which there are, and how to make our own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::paths::Paths;
use crate::{process, programs, say};

/// The release that was tried.
pub(super) const VERSION: &str = "0.13.0";

/// The LLVM that our own copy is built with. The newest that Debian 12 has, and
/// that of its rustc-web.
pub(super) const LLVM: u32 = 22;

/// The packages that our own copy is built with.
pub(super) const LLVM_PACKAGES: [&str; 2] = ["llvm-22-dev", "libpolly-22-dev"];

const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

/// All bpf-linkers of this machine, our own first.
pub(super) fn find(paths: &Paths) -> Vec<PathBuf> {
    let mut found = vec![install_root(paths).join("bin/bpf-linker")];
    found.extend(programs::find("bpf-linker"));
    found.extend(cargo_home().map(|home| home.join("bin/bpf-linker")));
    found.retain(|file| programs::is_executable(file));
    found.dedup();
    found
}

/// Whether the LLVM is there to build our own copy with.
pub(super) fn has_llvm() -> bool {
    let library = |name: &str| Path::new(LLVM_PREFIX).join("lib").join(name).exists();
    programs::is_executable(&Path::new(LLVM_PREFIX).join("bin/llvm-config"))
        && library("libLLVM-22.so")
        && library("libPolly.a")
}

/// Builds our own copy. In the user's cache, not in the target directory: it takes
/// a minute, and outlives a `cargo clean`.
pub(super) fn make(paths: &Paths) -> Result<()> {
    let root = install_root(paths);
    say::note(&format!(
        "toolchain: building bpf-linker {VERSION} with LLVM {LLVM} into {}; this takes a minute",
        root.display()
    ));
    fs::create_dir_all(&root).with_context(|| format!("cannot make {}", root.display()))?;
    fs::create_dir_all(&paths.target)
        .with_context(|| format!("cannot make {}", paths.target.display()))?;
    let scratch = tempfile::Builder::new()
        .prefix("bpf-linker-")
        .tempdir_in(&paths.target)
        .with_context(|| format!("cannot write in {}", paths.target.display()))?;

    // Into a file: what cargo says is of interest only if it fails.
    let log = paths.target.join("bpf-linker.log");
    let report = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut install = process::host_cargo(&paths.root);
    install
        .args([
            "install",
            "bpf-linker",
            "--version",
            VERSION,
            "--locked",
            "--force",
        ])
        .args(["--no-default-features", "--features", "llvm-22"])
        .arg("--root")
        .arg(&root)
        .arg("--target-dir")
        .arg(scratch.path())
        .env("LLVM_PREFIX", LLVM_PREFIX)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .stdin(Stdio::null())
        .stderr(report);
    let status = process::status("building bpf-linker", &mut install)?;
    if !status.success() {
        let said = fs::read_to_string(&log).unwrap_or_default();
        bail!(
            "building bpf-linker failed ({status}; all of it is in {}): {}",
            log.display(),
            first_error(&said)
        );
    }
    Ok(())
}

/// cargo's first error tells the most; those after it often follow from it.
pub(super) fn first_error(report: &str) -> &str {
    report
        .lines()
        .find(|line| line.starts_with("error"))
        .or_else(|| report.lines().rfind(|line| !line.trim().is_empty()))
        .unwrap_or("it says nothing")
}

fn install_root(paths: &Paths) -> PathBuf {
    paths
        .cache()
        .join(format!("bpf-linker-{VERSION}-llvm{LLVM}"))
}

fn cargo_home() -> Option<PathBuf> {
    std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cargo")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_report_the_first_error_counts() {
        let check = |report, expected| assert_eq!(first_error(report), expected);
        check(
            "  Updating\nerror: no network\nerror: aborted\n",
            "error: no network",
        );
        check("killed\n\n", "killed");
        check("", "it says nothing");
    }
}
