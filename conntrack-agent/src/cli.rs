//! The command line.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Parser, Subcommand};

use crate::{
    cleanup::cleanup,
    config::{Config, ConfigError, DEFAULT_PATH},
    daemon::{self, Rebuild, RunError},
    input::sentence,
    telemetry,
};

/// Gives routers' traffic its conntrack helpers by eBPF.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent in the foreground.
    ///
    /// SIGHUP reads the rules file again. SIGTERM ends the agent and leaves the
    /// datapath working.
    Run {
        #[command(flatten)]
        config: ConfigFile,
        /// The routers and their helper rules (TOML).
        #[arg(long, value_name = "FILE")]
        rules: Option<PathBuf>,
        /// Make a store that was lost again, from what is pinned or from the rules file.
        #[arg(long, value_enum, value_name = "FROM")]
        rebuild: Option<Rebuild>,
    },
    /// Say whether the configuration is good.
    CheckConfig {
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Remove everything that the agent ever put into the kernel.
    Cleanup {
        #[command(flatten)]
        config: ConfigFile,
    },
}

#[derive(Debug, clap::Args)]
struct ConfigFile {
    /// The configuration (TOML); by default /etc/conntrack-agent/agent.toml if there is one.
    #[arg(long = "config", value_name = "FILE")]
    path: Option<PathBuf>,
}

impl ConfigFile {
    fn load(&self) -> Result<Config, ConfigError> {
        Config::load(self.path.as_deref())
    }
}

/// What the caller's shell is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Failure = 1,
    /// `EX_CONFIG` of sysexits.h.
    Configuration = 78,
}

/// A failure, and the exit code that goes with it.
struct Failed(Status, anyhow::Error);

impl From<ConfigError> for Failed {
    fn from(error: ConfigError) -> Self {
        Self(Status::Configuration, error.into())
    }
}

impl From<RunError> for Failed {
    fn from(error: RunError) -> Self {
        let status = match error {
            RunError::Rules(_) | RunError::Refused(_) => Status::Configuration,
            _ => Status::Failure,
        };
        Self(status, error.into())
    }
}

impl From<anyhow::Error> for Failed {
    fn from(error: anyhow::Error) -> Self {
        Self(Status::Failure, error)
    }
}

/// Does what the command line says; data goes to stdout, everything else to
/// stderr.
#[must_use]
pub fn main() -> ExitCode {
    match execute(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed(status, error)) => {
            // Where stderr is closed too there is nobody to tell.
            let _ = writeln!(
                io::stderr(),
                "conntrack-agent: {}",
                sentence(error.as_ref())
            );
            ExitCode::from(status as u8)
        }
    }
}

fn execute(command: Command) -> Result<(), Failed> {
    match command {
        Command::Run {
            config,
            rules,
            rebuild,
        } => {
            let config = config.load()?;
            telemetry::init(&config.log);
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .map_err(anyhow::Error::from)?;
            runtime.block_on(daemon::run(&config, rules.as_deref(), rebuild))?;
        }
        Command::CheckConfig { config } => {
            let file = config.path.as_deref().unwrap_or(DEFAULT_PATH.as_ref());
            let there = config.path.is_some() || file.exists();
            config.load()?;
            if there {
                print(format_args!("configuration {} is good", file.display()))?;
            } else {
                print(format_args!(
                    "there is no {}; the defaults are good",
                    file.display()
                ))?;
            }
        }
        Command::Cleanup { config } => {
            let config = config.load()?;
            telemetry::init(&config.log);
            let removed = cleanup(&config).map_err(anyhow::Error::from)?;
            print(format_args!("{removed}"))?;
        }
    }
    Ok(())
}

/// A line of the command's output.
fn print(line: std::fmt::Arguments<'_>) -> Result<(), Failed> {
    writeln!(io::stdout(), "{line}").map_err(|error| {
        anyhow::Error::from(error)
            .context("stdout cannot be written")
            .into()
    })
}
