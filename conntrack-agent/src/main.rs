//! The `conntrack-agent` program.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use conntrack_agent::{cli, kernel::Build};

fn main() -> ExitCode {
    cli::main(&Build::built_in())
}
