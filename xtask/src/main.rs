//! `cargo xtask`: everything that building and testing conntrack-agent takes
//! beyond what cargo does by itself.
#![forbid(unsafe_code)]

mod apt;
mod bench;
mod build;
mod busy;
mod check;
mod demo;
mod fuzz;
mod kernel;
mod lab;
mod layers;
mod leftovers;
mod manifests;
mod names;
mod parts;
mod paths;
mod policy_rc_d;
mod privilege;
mod process;
mod profile;
mod programs;
mod say;
mod setup;
mod sizes;
mod test;
mod toolchain;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Builds, tests and shows conntrack-agent.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
#[command(after_help = "Start with `cargo xtask setup`, as root; the other commands run it too.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Find or make a BPF toolchain, and install the programs that the lab uses
    ///
    /// Looks for a rustup nightly with rust-src, then for Debian's rustc-web, and
    /// for a bpf-linker that links what that compiler emits. What is missing is
    /// installed with apt-get (as root), and bpf-linker is built into
    /// ~/.cache/conntrack-agent. Does nothing where nothing is missing.
    Setup,
    /// Build the eBPF object, and the agent with the object inside it
    ///
    /// Leaves one file to install, target/install/conntrack-agent, with its symbols
    /// beside it.
    Build(build::Args),
    /// Show the agent at work in a lab of network namespaces (needs root)
    Demo,
    /// Run all tests, and check that they leave nothing behind (needs root)
    Test(test::Args),
    /// Measure, in a lab of network namespaces (needs root)
    Bench {
        /// One of them; all, one after the other, if none is named
        #[command(subcommand)]
        bench: Option<bench::Bench>,
    },
    /// Compare the parser with a second one, on inputs that a fuzzer looks for
    ///
    /// Starts from fuzz/corpus; what it finds stays in the target directory.
    /// Installs cargo-fuzz where it is missing.
    Fuzz(fuzz::Args),
    /// Formatting, lints on the host and on the BPF target, documentation, manifests, layers, names, sizes
    Check,
    /// Check which part of the code imports which, and nothing else
    Layers(layers::Args),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        // Display, not Debug: a failed step's reason is the chain of causes, and
        // a backtrace through xtask would only bury it.
        Err(error) => {
            say::error(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Setup => setup::run(),
        Command::Build(args) => build::run(args),
        Command::Demo => demo::run(),
        Command::Test(args) => test::run(&args),
        Command::Bench { bench: Some(bench) } => bench::run(&bench),
        Command::Bench { bench: None } => bench::all(),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Check => check::run(),
        Command::Layers(args) => layers::run(&args),
    }
}
