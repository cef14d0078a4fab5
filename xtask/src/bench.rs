//! `cargo xtask bench`: how fast it is, measured in a lab.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::build;
use crate::parts::Parts;
use crate::paths::Paths;
use crate::profile::Profile;
use crate::{privilege, process, setup};

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
    /// How long starts and changes take among many routers, and what they cost
    ///
    /// Each router has 10 rules and 3 interfaces. Prints a table, and writes all
    /// of it to a file. A miss of a target does not fail the command.
    Scale(Scale),
    /// What the eBPF programs take for a packet, over programs that do nothing
    ///
    /// By the kernel's test runs, packet by packet of each kind. Prints a table, and
    /// writes all of it to a file. A miss of a target does not fail the command.
    Program(Program),
    /// What it costs a forwarded packet, beside Neutron's chains and nft maps
    ///
    /// In a router with NAT, with 1 to 5,000 rules, in about four minutes. Prints a
    /// table, writes all of it to a file, and draws docs/bench/ from that. A miss of a
    /// target does not fail the command.
    Datapath(Datapath),
    /// What reading a router's rules of other tools takes, beside the tools' own listings
    ///
    /// With rules like Neutron's, in half a minute. Prints a table, and writes all of it
    /// to a file.
    Rules {
        /// Where the results go, in place of bench/rules.json in the repository
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// What the benchmarks found last: each target, out of their files
    ///
    /// Nothing is measured.
    Summary,
}

/// How to measure forwarded packets.
#[derive(clap::Args, Default)]
pub(crate) struct Datapath {
    /// Where the results go, in place of bench/datapath.json in the repository
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measure so many cycles (60 at the least), instead of for three minutes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(60..))]
    cycles: Option<u32>,
    /// Half a minute in all, for trying out
    #[arg(long, conflicts_with = "cycles")]
    quick: bool,
    /// Measure nothing: draw the charts from the file again
    #[arg(long, conflicts_with_all = ["cycles", "quick"])]
    charts_only: bool,
}

impl Datapath {
    /// What the program is told of it.
    fn option(&self) -> Option<String> {
        match self.cycles {
            Some(cycles) => Some(format!("--cycles={cycles}")),
            None if self.quick => Some("--quick".into()),
            None if self.charts_only => Some("--charts-only".into()),
            None => None,
        }
    }
}

/// How to measure the programs.
#[derive(clap::Args, Default)]
pub(crate) struct Program {
    /// Where the results go, in place of bench/program.json in the repository
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Run another eBPF object's programs beside, and tell the difference
    #[arg(long, value_name = "OBJECT")]
    beside: Option<PathBuf>,
}

/// As many as a large host has.
const ROUTERS: u16 = 1_000;

/// How to measure many routers.
#[derive(clap::Args)]
pub(crate) struct Scale {
    /// Where the results go, in place of bench/scale.json in the repository
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How many routers there are
    #[arg(long, value_name = "N", default_value_t = ROUTERS, value_parser = clap::value_parser!(u16).range(1..))]
    routers: u16,
}

/// How to measure changes.
#[derive(clap::Args, Default)]
pub(crate) struct Control {
    /// Where the results go, in place of bench/control.json in the repository
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Leave out larger numbers of rules
    #[arg(long, value_name = "RULES")]
    up_to: Option<usize>,
}

/// All benchmarks, and what they found.
pub(crate) fn all() -> Result<ExitCode> {
    let each = [
        Bench::Program(Program::default()),
        Bench::Datapath(Datapath::default()),
        Bench::Control(Control::default()),
        Bench::Api { json: None },
        Bench::Rules { json: None },
        Bench::Scale(Scale {
            json: None,
            routers: ROUTERS,
        }),
        Bench::Summary,
    ];
    for bench in &each {
        let code = run(bench)?;
        if code != ExitCode::SUCCESS {
            return Ok(code);
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn run(bench: &Bench) -> Result<ExitCode> {
    privilege::require_root("bench")?;
    let paths = Paths::find()?;
    let mut parts = Parts::default();
    let (lab, toolchain) = setup::for_lab(&paths, &mut parts)?;

    // The first program has two: it is what they have in common that takes the code.
    let (program, options, json, default) = match bench {
        Bench::Summary => ("bench_summary", None, &None, "bench"),
        Bench::Control(Control { json, up_to }) => {
            let up_to = up_to.map(|most| format!("--up-to={most}"));
            ("bench_control", up_to, json, "bench/control.json")
        }
        Bench::Api { json } => {
            let api = Some("--api".to_owned());
            ("bench_control", api, json, "bench/api.json")
        }
        Bench::Rules { json } => ("bench_rules", None, json, "bench/rules.json"),
        Bench::Scale(Scale { json, routers }) => {
            let routers = Some(format!("--routers={routers}"));
            ("bench_scale", routers, json, "bench/scale.json")
        }
        Bench::Program(Program { json, beside }) => {
            let beside = beside.as_deref().map(std::path::absolute).transpose()?;
            let beside = beside.map(|object| format!("--beside={}", object.display()));
            ("bench_program", beside, json, "bench/program.json")
        }
        Bench::Datapath(datapath) => {
            let json = &datapath.json;
            (
                "bench_datapath",
                datapath.option(),
                json,
                "bench/datapath.json",
            )
        }
    };
    let usual = "8 minutes at first, then seconds";
    let built = parts.run("building the agent and the benchmark", usual, || {
        let args = build::Args::default();
        build::all(&paths, &toolchain, Profile::Release, args, &[program])
    })?;
    let mut command = Command::new(paths.program(Profile::Release, program));
    // In the repository, whose commit is part of the results.
    command.current_dir(&paths.root);
    let results = match json {
        Some(path) => std::path::absolute(path)?,
        None => paths.root.join(default),
    };
    if let Some(option) = &options {
        command.args(option.splitn(2, '='));
    }
    if let Bench::Datapath(_) = bench {
        command
            .arg("--charts")
            .arg(charts(&paths, json.as_deref(), &results));
    }
    if let Bench::Summary = bench {
        command.arg(results);
    } else {
        command.arg("--json").arg(results);
    }
    built.tell(&mut command);
    lab.restrict(&mut command);
    let measured = parts.run("the benchmark", "what `--help` says", || {
        process::status("the benchmark", &mut command)
    });
    measured.map(process::exit_code)
}

/// Where charts of these results go: those that the documents show are drawn from the
/// repository's own, others lie beside their file.
fn charts(paths: &Paths, given: Option<&Path>, results: &Path) -> PathBuf {
    match (given, results.parent()) {
        (Some(_), Some(folder)) => folder.to_owned(),
        _ => paths.root.join("docs/bench"),
    }
}
