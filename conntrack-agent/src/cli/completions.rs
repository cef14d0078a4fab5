//! The `completions` command: prints the completion script of a shell.

use clap::CommandFactory as _;
use clap_complete::generate;

use super::Cli;

/// The shells that are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Returns the completion script for a shell.
pub(super) fn script(shell: Shell) -> Vec<u8> {
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    // Into memory, because `generate` panics if it can't write.
    generate(shell, &mut Cli::command(), "conntrack-agent", &mut script);
    script
}
