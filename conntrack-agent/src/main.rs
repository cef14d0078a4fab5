//! The `conntrack-agent` program.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use conntrack_agent::{cli, kernel::Edition};

fn main() -> ExitCode {
    cli::main(&Edition::built_in())
}
