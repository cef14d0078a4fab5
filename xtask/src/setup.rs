//! `cargo xtask setup`.

use std::process::ExitCode;

use anyhow::Result;

use crate::lab::Lab;
use crate::parts::Parts;
use crate::paths::Paths;
use crate::say;
use crate::toolchain::{self, Toolchain};

/// Has what tests, demo and benchmarks need on this machine, as the first part of their
/// commands.
pub(crate) fn for_lab(paths: &Paths, parts: &mut Parts) -> Result<(Lab, Toolchain)> {
    let usual = "3 minutes on a new machine, then seconds";
    parts.run("installing programs and the BPF toolchain", usual, || {
        Ok((Lab::ensure(paths)?, toolchain::ensure(paths)?))
    })
}

/// Does both parts even if one fails, so that one run tells all that is missing.
pub(crate) fn run() -> Result<ExitCode> {
    let paths = Paths::find()?;
    let parts = [
        Lab::ensure(&paths).map(drop),
        toolchain::ensure(&paths).map(drop),
    ];
    let mut code = ExitCode::SUCCESS;
    for error in parts.into_iter().filter_map(Result::err) {
        say::error(&format!("{error:#}"));
        code = ExitCode::FAILURE;
    }
    Ok(code)
}
