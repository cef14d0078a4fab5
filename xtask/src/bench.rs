//! `cargo xtask bench`: how fast it is, measured in a lab.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::paths::Paths;
use crate::{build, lab, privilege, process};

/// What to measure.
#[derive(clap::Subcommand)]
pub(crate) enum Bench {
    /// How long a change of the rules takes, our way and Neutron's
    ///
    /// With 1 to 50,000 rules on one router; prints a table, and writes all of
    /// it to a file. A time that misses its target does not fail the command.
    Control(Control),
    /// How long a change through the socket takes, among few rules and many
    ///
    /// With a running agent, beside Neutron's way in the same run.
    Api {
        /// Where the results go, in place of bench/api.json in the repository
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
}

/// How to measure changes.
#[derive(clap::Args)]
pub(crate) struct Control {
    /// Where the results go, in place of bench/control.json in the repository
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Leave out larger numbers of rules
    #[arg(long, value_name = "RULES")]
    up_to: Option<usize>,
}

pub(crate) fn run(bench: &Bench) -> Result<ExitCode> {
    privilege::require_root("bench")?;
    let paths = Paths::find()?;
    lab::ensure()?;
    let built = build::all(&paths, build::Args::default())?;

    // One program has both: it is what they have in common that takes the code.
    build::lab_program(&paths, &built, "bench_control")?;
    let mut command = Command::new(paths.release("bench_control"));
    // In the repository, whose commit is part of the results.
    command.current_dir(&paths.root);
    let (json, default) = match bench {
        Bench::Control(control) => (&control.json, "bench/control.json"),
        Bench::Api { json } => {
            command.arg("--api");
            (json, "bench/api.json")
        }
    };
    let results = match json {
        Some(path) => std::path::absolute(path)?,
        None => paths.root.join(default),
    };
    command.arg("--json").arg(results);
    if let Bench::Control(Control {
        up_to: Some(most), ..
    }) = bench
    {
        command.arg("--up-to").arg(most.to_string());
    }
    process::status("the benchmark", &mut command).map(process::exit_code)
}
