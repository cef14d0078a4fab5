//! The agent of another release: the whole agent, with another edition than the
//! one that it was built with. The agent itself has no such switch.

use std::{env, fs, process::ExitCode};

use conntrack_agent::{cli, kernel::Build};
use conntrack_tests::release::{ABI, OBJECT};

fn main() -> ExitCode {
    match build() {
        Ok(build) => cli::main(&build),
        Err(what) => {
            eprintln!("another_release: {what}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<Build, String> {
    let abi = env::var(ABI).map_err(|error| format!("{ABI}: {error}"))?;
    let abi = abi.parse().map_err(|error| format!("{ABI}: {error}"))?;
    let path = env::var_os(OBJECT).ok_or_else(|| format!("{OBJECT} is not set"))?;
    let object = fs::read(path).map_err(|error| format!("{OBJECT}: {error}"))?;
    Ok(Build::new(abi, object))
}
