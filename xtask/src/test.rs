//! `cargo xtask test`.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::build::{self, Built};
use crate::busy::Busy;
use crate::leftovers::Snapshot;
use crate::parts::Parts;
use crate::paths::Paths;
use crate::profile::Profile;
use crate::{kernel, privilege, process, say, setup};

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
    /// Only what is too long for the plain command: the soak, the comparison with
    /// iptables at length, the lab with XDP in front and beside busy loops, and its core
    /// suite under Linux 6.1; by the agent as it is installed
    #[arg(long, conflicts_with_all = ["filter", "package", "attach", "kernel", "soak", "parity", "harness"])]
    long: bool,
    /// Beside so many threads that keep a processor busy each
    #[arg(long, value_name = "N", default_value_t = 0)]
    busy: usize,
    /// So many times, whether they fail or not
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    times: u16,
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
    privilege::require_root("test")?;
    let paths = Paths::find()?;
    let mut parts = Parts::default();
    let (lab, toolchain) = setup::for_lab(&paths, &mut parts)?;
    if let Some(release) = args.kernel {
        let filter = args.filter.as_deref();
        return parts.run(UNDER_QEMU.0, UNDER_QEMU.1, || {
            kernel::run(&paths, &toolchain, release, filter)
        });
    }

    let runs = runs(args);
    let profile = profile(args);
    let usual = match profile {
        Profile::Dev => "6 minutes at first, 3 after the demo, then seconds",
        Profile::Release => "15 minutes at first, then seconds",
    };
    let built = parts.run("building the agent and the tests", usual, || {
        let built = build::all(&paths, &toolchain, profile, build::Args::default(), &[])?;
        for run in &runs {
            let mut cargo = cargo_test(&paths, &built, profile, &run.selection);
            cargo.arg("--no-run");
            process::run("building the tests", &mut cargo)?;
        }
        anyhow::Ok(built)
    })?;

    let before = Snapshot::take()?;
    let mut code = ExitCode::SUCCESS;
    for time in 0..args.times {
        for run in &runs {
            let mut cargo = cargo_test(&paths, &built, profile, &run.selection);
            lab.restrict_tests(&mut cargo)?;
            cargo.envs(run.variable).args(&run.arguments);
            let name = match args.times {
                1 => run.name.to_owned(),
                times => format!("{}, {} of {times}", run.name, time + 1),
            };
            let busy = Busy::start(run.busy);
            let status = parts.run(&name, run.usual, || {
                process::status("the tests", &mut cargo)
            });
            drop(busy);
            let status = status?;
            if !status.success() {
                code = process::exit_code(status);
            }
        }
    }
    if args.long {
        let suite = parts.run(UNDER_QEMU.0, UNDER_QEMU.1, || {
            kernel::run(&paths, &toolchain, kernel::Release::Stable, None)
        })?;
        if suite != ExitCode::SUCCESS {
            code = suite;
        }
    }

    let leftovers = before.leftovers()?;
    for leftover in &leftovers {
        say::error(&format!("the tests left behind: {leftover}"));
    }
    if !leftovers.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    Ok(code)
}

/// The part that runs under another kernel, and what it takes.
const UNDER_QEMU: (&str, &str) = (
    "the core suite under another kernel",
    "30 minutes, emulated",
);

/// One call of `cargo test`.
#[derive(Debug, Default, PartialEq)]
struct Run<'a> {
    name: &'static str,
    /// What it takes.
    usual: &'static str,
    /// What the tests are told by an environment variable.
    variable: Option<(&'static str, &'static str)>,
    /// Which test programs.
    selection: Vec<&'a str>,
    /// Which of their tests, and how they are run.
    arguments: Vec<&'a str>,
    /// Beside how many busy threads.
    busy: usize,
}

fn cargo_test(paths: &Paths, built: &Built, profile: Profile, selection: &[&str]) -> Command {
    let mut cargo = process::host_cargo(&paths.root);
    // --no-fail-fast: one failing test program doesn't hide what the others find.
    cargo
        .args(["test", "--locked", "--no-fail-fast", "--target-dir"])
        .arg(&paths.target);
    if profile == Profile::Release {
        cargo.arg("--release");
    }
    built.tell(&mut cargo);
    // Most of a lab test is waiting for a timeout or a server: more threads than
    // cores make the whole suite three times as fast.
    if std::env::var_os(TEST_THREADS).is_none() {
        cargo.env(TEST_THREADS, "8");
    }
    cargo.args(selection);
    cargo
}

/// Packets are compared by the million, and what is long is for the agent as it is
/// installed.
const fn profile(args: &Args) -> Profile {
    if args.parity || args.long {
        Profile::Release
    } else {
        Profile::Dev
    }
}

fn runs(args: &Args) -> Vec<Run<'_>> {
    if args.long {
        return long();
    }
    let mut runs = vec![asked_for(args)];
    // What the agent does by itself on this kernel is tested: the other way too.
    if args.attach.is_none() && in_lab(args) {
        runs.push(Run {
            name: "the lab once more, by tc filters",
            usual: "6 minutes",
            variable: Some(by(Way::Clsact)),
            selection: LAB_ALONE.to_vec(),
            arguments: filter(args),
            busy: args.busy,
        });
    }
    runs
}

/// What the user wants to be run, as one call.
fn asked_for(args: &Args) -> Run<'_> {
    let is_unsaid = std::env::var_os(PARITY_PACKETS).is_none();
    let (name, usual) = match args {
        Args { soak: true, .. } => ("the soak", "9 minutes"),
        Args { parity: true, .. } => PARITY,
        _ if args.filter.is_none() && args.package.is_empty() => ("the tests", "10 minutes"),
        _ => (
            "the tests that were named",
            "less than all, which are 10 minutes",
        ),
    };
    Run {
        name,
        usual,
        variable: match args.attach {
            Some(way) => Some(by(way)),
            None => (args.parity && is_unsaid).then_some(AT_LENGTH),
        },
        selection: selection(args),
        arguments: filter(args),
        busy: args.busy,
    }
}

const PARITY: (&str, &str) = ("the comparison with iptables, at length", "40 minutes");
const AT_LENGTH: (&str, &str) = (PARITY_PACKETS, "1000000");

/// What `--long` runs on this kernel.
fn long() -> Vec<Run<'static>> {
    let lab = |name, variable, arguments: &[&'static str], busy| Run {
        name,
        usual: "10 minutes",
        variable: Some(variable),
        selection: LAB_ALONE.to_vec(),
        arguments: arguments.to_vec(),
        busy,
    };
    vec![
        lab("the lab with XDP in front", by(Way::Xdp), &BY_XDP, 0),
        lab("the lab beside four busy loops", by(Way::Tcx), &[], 4),
        lab("the same by tc filters", by(Way::Clsact), &[], 4),
        Run {
            name: "the soak",
            usual: "9 minutes",
            selection: vec!["--package", LAB, "--test", "soak"],
            arguments: SOAK.to_vec(),
            ..Run::default()
        },
        Run {
            name: PARITY.0,
            usual: PARITY.1,
            variable: Some(AT_LENGTH),
            selection: vec!["--package", LAB, "--test", "parity"],
            arguments: ONE_BY_ONE.to_vec(),
            ..Run::default()
        },
    ]
}

/// The lab without other test programs.
const LAB_ALONE: [&str; 4] = ["--package", LAB, "--test", "lab"];

/// Elsewhere it is ignored, and cargo says so.
const SOAK: [&str; 3] = ["--", "--ignored", "--nocapture"];

/// One after the other: each has a processor for either router.
const ONE_BY_ONE: [&str; 3] = ["--", "--test-threads=1", "--nocapture"];

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
        selected.extend(LAB_ALONE);
    } else if args.parity {
        selected.extend(["--package", LAB, "--test", "parity"]);
    } else if args.attach.is_some() {
        selected.extend(["--package", LAB, "--test", "lab", "--test", "contract"]);
    } else if args.package.is_empty() {
        selected.push("--workspace");
    }
    for package in &args.package {
        selected.extend(["--package", package]);
    }
    selected
}

/// Which of their tests, and how they are run.
fn filter(args: &Args) -> Vec<&str> {
    let mut filter: Vec<_> = args.filter.as_deref().into_iter().collect();
    if args.soak {
        filter.extend(SOAK);
    } else if args.parity {
        filter.extend(ONE_BY_ONE);
    } else if let (Some(Way::Xdp), None, []) = (args.attach, &args.filter, &args.harness[..]) {
        filter.extend(BY_XDP);
    } else if !args.harness.is_empty() {
        filter.push("--");
    }
    filter.extend(args.harness.iter().map(String::as_str));
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
            let Run {
                selection,
                arguments,
                ..
            } = asked_for(&parsed.args);
            let all = [selection, arguments].concat();
            assert_eq!(all.join(" "), expected, "{line}");
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
            "--package conntrack-tests --test parity ipv6 -- --test-threads=1 --nocapture",
        );
    }
}
