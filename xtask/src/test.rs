//! `cargo xtask test`.

use std::process::ExitCode;

use anyhow::Result;

use crate::leftovers::Snapshot;
use crate::paths::Paths;
use crate::{build, lab, privilege, process, say};

/// How many tests libtest runs at once.
const TEST_THREADS: &str = "RUST_TEST_THREADS";

/// Which tests to run.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only tests whose name contains this
    filter: Option<String>,
    /// Only this package's tests; may be given more than once
    #[arg(long, short, value_name = "NAME")]
    package: Vec<String>,
    /// Only the long test: eight minutes of churn beside traffic (`SOAK_SECONDS`
    /// makes it shorter, `SOAK_SEED` repeats one)
    #[arg(long, conflicts_with_all = ["filter", "package"])]
    soak: bool,
    /// Arguments for the test programs, such as --nocapture
    #[arg(last = true)]
    harness: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    privilege::require_root("test")?;
    let paths = Paths::find()?;
    lab::ensure()?;
    let built = build::all(&paths, build::Args::default())?;

    let before = Snapshot::take()?;
    let mut cargo = process::host_cargo(&paths.root);
    // --no-fail-fast: one failing test program doesn't hide what the others find.
    cargo
        .args(["test", "--locked", "--no-fail-fast", "--target-dir"])
        .arg(&paths.target);
    built.tell(&mut cargo);
    // Most of a lab test is waiting for a timeout or a server: more threads than
    // cores make the whole suite three times as fast.
    if std::env::var_os(TEST_THREADS).is_none() {
        cargo.env(TEST_THREADS, "8");
    }
    cargo.args(selection(args));
    let status = process::status("the tests", &mut cargo)?;

    let leftovers = before.leftovers()?;
    for leftover in &leftovers {
        say::error(&format!("the tests left behind: {leftover}"));
    }
    if status.success() && !leftovers.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    Ok(process::exit_code(status))
}

fn selection(args: &Args) -> Vec<&str> {
    let mut selected = Vec::new();
    if args.soak {
        selected.extend(["--package", "conntrack-tests", "--test", "soak"]);
    } else if args.package.is_empty() {
        selected.push("--workspace");
    }
    for package in &args.package {
        selected.extend(["--package", package]);
    }
    selected.extend(args.filter.as_deref());
    // Elsewhere it is ignored, and cargo says so.
    let soak = ["--ignored", "--nocapture"];
    if args.soak || !args.harness.is_empty() {
        selected.push("--");
        selected.extend(soak.iter().filter(|_| args.soak));
        selected.extend(args.harness.iter().map(String::as_str));
    }
    selected
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn arguments_reach_cargo() {
        let check = |line: &str, expected: &str| {
            let parsed = Line::parse_from(std::iter::once("test").chain(line.split_whitespace()));
            assert_eq!(selection(&parsed.args).join(" "), expected, "{line}");
        };
        check("", "--workspace");
        check("ftp", "--workspace ftp");
        check(
            "-p conntrack-ebpf --package xtask",
            "--package conntrack-ebpf --package xtask",
        );
        check("ftp -- --nocapture", "--workspace ftp -- --nocapture");
        check(
            "--soak",
            "--package conntrack-tests --test soak -- --ignored --nocapture",
        );
    }
}
