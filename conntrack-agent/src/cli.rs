//! The command line.

mod apply;
mod completions;
mod doctor;
mod events;
mod exit;
mod helper;
mod output;
mod router;
mod show;
mod status;
mod table;
mod terminal;
mod top;
mod values;

#[cfg(test)]
mod tests;

use std::{
    ffi::OsString,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Parser, Subcommand, ValueHint};

use self::{
    apply::Apply,
    completions::Shell,
    events::FollowEvents,
    exit::{Failed, Status},
    helper::HelperCommand,
    output::{Output, OutputFormat},
    router::RouterCommand,
    terminal::{Terminal, printable},
    top::Top,
};
use crate::{
    agent::Rebuild,
    cleanup::cleanup,
    client::{Client, DEFAULT_SOCKET},
    config::{Config, ConfigError, DEFAULT_PATH},
    daemon,
    doctor::examine,
    input::sentence,
    kernel::Build,
    telemetry,
};

/// Gives routers' traffic its conntrack helpers by eBPF.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
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
        config: ConfigArgs,
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
        config: ConfigArgs,
    },
    /// Remove everything that the agent ever put into the kernel.
    Cleanup {
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Create, list, show, set and delete helper rules.
    #[command(subcommand)]
    Helper(HelperCommand),
    /// List, show and clear routers.
    #[command(subcommand)]
    Router(RouterCommand),
    /// Make the rules that the API owns exactly those of a file.
    Apply(Apply),
    /// Say how the daemon is.
    Status,
    /// Print what happens: new helper connections, changes, repairs, failures.
    Events(FollowEvents),
    /// Show routers by their traffic, live: rules, connections with helpers, repairs.
    Top(Top),
    /// Ask the kernel and the configuration, and say what is wrong and what would help.
    ///
    /// Changes nothing, and needs no agent that runs. Exits 1 if anything is wrong.
    Doctor {
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Print what a shell needs to complete command lines.
    Completions {
        /// The shell.
        #[arg(value_enum)]
        shell: Shell,
    },
}

/// The daemon's socket, and the form of the output.
#[derive(Debug, clap::Args)]
struct Global {
    /// The daemon's socket.
    #[arg(long, global = true, display_order = 100, value_name = "PATH", default_value = DEFAULT_SOCKET, value_hint = ValueHint::FilePath)]
    socket: PathBuf,
    /// The form of the data.
    #[arg(short, long, global = true, display_order = 100, value_enum, value_name = "FORMAT", default_value_t = OutputFormat::Table)]
    output: OutputFormat,
}

#[derive(Debug, clap::Args)]
struct ConfigArgs {
    /// The configuration (TOML); by default /etc/conntrack-agent/agent.toml if there is one.
    #[arg(long = "config", value_name = "FILE")]
    path: Option<PathBuf>,
}

impl ConfigArgs {
    fn load(&self) -> Result<Config, ConfigError> {
        Config::load(self.path.as_deref())
    }
}

/// Runs the command line's command, with the agent of this edition; data goes to stdout,
/// everything else to stderr.
#[must_use]
pub fn main(build: &Build) -> ExitCode {
    let status = run(
        build,
        std::env::args_os(),
        &mut io::stdout(),
        Terminal::of_stdout(),
        &mut io::stderr(),
    );
    ExitCode::from(status as u8)
}

/// Does the work of [`main`], with arguments and streams of the caller.
fn run(
    build: &Build,
    arguments: impl IntoIterator<Item = OsString>,
    stdout: &mut dyn Write,
    terminal: Option<Terminal>,
    stderr: &mut dyn Write,
) -> Status {
    let mut output = Output::new(stdout, terminal);
    let done = match Cli::try_parse_from(arguments) {
        Ok(cli) => execute(build, cli, &mut output, stderr),
        // Help and version were asked for, so they are data.
        Err(error) if !error.use_stderr() => output.text(&error.render().to_string()),
        Err(error) => {
            // If stderr is closed too, the error can't be reported.
            let _ = write!(stderr, "{}", error.render());
            return Status::Usage;
        }
    };
    match done {
        Ok(()) => Status::Success,
        Err(Failed(status, error)) => {
            let sentence = sentence(error.as_ref());
            // A list of faults keeps its lines; control characters in them are escaped.
            let lines: Vec<_> = sentence.split('\n').map(printable).collect();
            let _ = writeln!(stderr, "conntrack-agent: {}", lines.join("\n"));
            status
        }
    }
}

fn execute(
    build: &Build,
    cli: Cli,
    output: &mut Output<'_>,
    stderr: &mut dyn Write,
) -> Result<(), Failed> {
    let socket = cli.global.socket;
    output.format = cli.global.output;
    match cli.command {
        Command::Run {
            config,
            rules,
            rebuild,
        } => {
            let config = config.load()?;
            telemetry::init(&config.log);
            daemon::run(build, &config, rules.as_deref(), rebuild)?;
        }
        Command::CheckConfig { config } => {
            let file = config.path.as_deref().unwrap_or(DEFAULT_PATH.as_ref());
            let there = config.path.is_some() || file.exists();
            config.load()?;
            let file = file.display();
            output.line(if there {
                format!("configuration {file} is good")
            } else {
                format!("there is no {file}; the defaults are good")
            })?;
        }
        Command::Cleanup { config } => {
            let config = config.load()?;
            telemetry::init(&config.log);
            let removed = cleanup(&config).map_err(anyhow::Error::from)?;
            output.line(removed)?;
        }
        Command::Helper(command) => {
            command.check()?;
            command.execute(&Client::new(&socket)?, output)?;
        }
        Command::Router(command) => command.execute(&Client::new(&socket)?, output)?,
        Command::Apply(apply) => {
            // Before the daemon is asked, which need not see a faulty file.
            let rules = apply.read()?;
            apply.execute(&rules, &Client::new(&socket)?, output)?;
        }
        Command::Status => {
            let status = Client::new(&socket)?.status()?;
            output.resource(&status, |output| output.lines(&status::summary(&status)))?;
        }
        Command::Events(events) => events.execute(&Client::new(&socket)?, output, stderr)?,
        Command::Top(top) => top.execute(&socket, output)?,
        Command::Doctor { config } => doctor::show(output, &examine(&config.load()?))?,
        Command::Completions { shell } => output.bytes(&completions::script(shell))?,
    }
    Ok(())
}
