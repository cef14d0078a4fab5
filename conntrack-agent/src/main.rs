//! The `conntrack-agent` program.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    conntrack_agent::cli::main()
}
