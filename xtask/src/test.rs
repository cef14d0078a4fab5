//! `cargo xtask test`.

use std::process::{ExitCode, ExitStatus};

use anyhow::Result;

use crate::build::Built;
use crate::leftovers::Snapshot;
use crate::paths::Paths;
use crate::{build, kernel, lab, privilege, process, say};

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
    /// Only the lab and the kernel layer's contract, with agents that attach
    /// their programs in this way
    #[arg(long, value_name = "WAY", conflicts_with_all = ["package", "soak"])]
    attach: Option<Way>,
    /// Only the lab's core suite, under this kernel of Debian's in QEMU
    #[arg(long, value_name = "VERSION", conflicts_with_all = ["package", "soak", "attach", "harness"])]
    kernel: Option<kernel::Release>,
    /// Only the long test: eight minutes of churn beside traffic (`SOAK_SECONDS`
    /// makes it shorter, `SOAK_SEED` repeats one)
    #[arg(long, conflicts_with_all = ["filter", "package"])]
    soak: bool,
    /// Only the comparison with iptables, at length: a million packets for each
    /// family and way (`PARITY_PACKETS` says how many, `PARITY_SEED` repeats one)
    #[arg(long, conflicts_with_all = ["package", "soak", "attach"])]
    parity: bool,
    /// Arguments for the test programs, such as --nocapture
    #[arg(last = true)]
    harness: Vec<String>,
}

/// How agents under test attach their programs.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Way {
    /// By tcx links
    Tcx,
    /// By tc filters, as on kernels before 6.6
    Clsact,
    /// As the agent does by itself, with generic XDP in front of it: transfers
    /// and marks alone
    Xdp,
}

impl Way {
    const fn name(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
            Self::Xdp => "xdp",
        }
    }
}

/// Tells the tests (`conntrack_tests::attach`).
const ATTACH: &str = "CONNTRACK_TEST_ATTACH";

/// What of the lab is run with XDP in front, unless a filter says otherwise.
const BY_XDP: [&str; 5] = ["--", "ftp::", "tftp::", "sip::", "marks::"];

/// Tells the comparison how much to compare (`tests/tests/parity.rs`).
const PARITY_PACKETS: &str = "PARITY_PACKETS";

/// The package with the lab.
const LAB: &str = "conntrack-tests";

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if let Some(release) = args.kernel {
        return kernel::run(release, args.filter.as_deref());
    }
    privilege::require_root("test")?;
    let paths = Paths::find()?;
    lab::ensure()?;
    let built = build::all(&paths, build::Args::default())?;

    let before = Snapshot::take()?;
    let mut status = cargo_test(&paths, &built, tell(args), &selection(args))?;
    // What the agent does by itself on this kernel was tested: the other way too.
    if args.attach.is_none() && in_lab(args) {
        say::note("the lab once more, by tc filters");
        let mut again = vec!["--package", LAB, "--test", "lab"];
        again.extend(filter(args));
        let second = cargo_test(&paths, &built, Some(by(Way::Clsact)), &again)?;
        if status.success() {
            status = second;
        }
    }

    let leftovers = before.leftovers()?;
    for leftover in &leftovers {
        say::error(&format!("the tests left behind: {leftover}"));
    }
    if status.success() && !leftovers.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    Ok(process::exit_code(status))
}

fn cargo_test(
    paths: &Paths,
    built: &Built,
    tell: Option<(&str, &str)>,
    selection: &[&str],
) -> Result<ExitStatus> {
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
    cargo.envs(tell);
    cargo.args(selection);
    process::status("the tests", &mut cargo)
}

/// What the tests are told by an environment variable.
fn tell(args: &Args) -> Option<(&'static str, &'static str)> {
    let is_unsaid = std::env::var_os(PARITY_PACKETS).is_none();
    let long = (args.parity && is_unsaid).then_some((PARITY_PACKETS, "1000000"));
    long.or_else(|| args.attach.map(by))
}

const fn by(way: Way) -> (&'static str, &'static str) {
    (ATTACH, way.name())
}

/// Whether the lab's tests are among those selected.
fn in_lab(args: &Args) -> bool {
    let is_asked_for = args.package.iter().any(|package| package == LAB);
    !args.soak && !args.parity && (args.package.is_empty() || is_asked_for)
}

fn selection(args: &Args) -> Vec<&str> {
    let mut selected = Vec::new();
    if args.soak {
        selected.extend(["--package", LAB, "--test", "soak"]);
    } else if let Some(Way::Xdp) = args.attach {
        selected.extend(["--package", LAB, "--test", "lab"]);
        if args.filter.is_none() && args.harness.is_empty() {
            selected.extend(BY_XDP);
        }
    } else if args.parity {
        selected.extend(["--release", "--package", LAB, "--test", "parity"]);
    } else if args.attach.is_some() {
        selected.extend(["--package", LAB, "--test", "lab", "--test", "contract"]);
    } else if args.package.is_empty() {
        selected.push("--workspace");
    }
    for package in &args.package {
        selected.extend(["--package", package]);
    }
    selected.extend(filter(args));
    selected
}

/// Which of their tests, and how they are run.
fn filter(args: &Args) -> Vec<&str> {
    let mut filter: Vec<_> = args.filter.as_deref().into_iter().collect();
    // Elsewhere it is ignored, and cargo says so.
    let soak = ["--ignored", "--nocapture"];
    // One after the other: each has a processor for either router.
    let parity = ["--test-threads=1", "--nocapture"];
    if args.soak || args.parity || !args.harness.is_empty() {
        filter.push("--");
        filter.extend(soak.iter().filter(|_| args.soak));
        filter.extend(parity.iter().filter(|_| args.parity));
        filter.extend(args.harness.iter().map(String::as_str));
    }
    filter
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
            "--attach clsact ftp",
            "--package conntrack-tests --test lab --test contract ftp",
        );
        check(
            "--attach xdp",
            "--package conntrack-tests --test lab -- ftp:: tftp:: sip:: marks::",
        );
        check(
            "--attach xdp snat",
            "--package conntrack-tests --test lab snat",
        );
        check(
            "--soak",
            "--package conntrack-tests --test soak -- --ignored --nocapture",
        );
        check(
            "--parity ipv6",
            "--release --package conntrack-tests --test parity ipv6 -- --test-threads=1 --nocapture",
        );
    }
}
