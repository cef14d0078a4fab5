//! `cargo xtask setup`.

use std::process::ExitCode;

use anyhow::Result;

use crate::paths::Paths;
use crate::{lab, say, toolchain};

/// Does both parts even if one fails, so that one run tells all that is missing.
pub(crate) fn run() -> Result<ExitCode> {
    let paths = Paths::find()?;
    let parts = [lab::ensure(), toolchain::ensure(&paths).map(drop)];
    let mut code = ExitCode::SUCCESS;
    for error in parts.into_iter().filter_map(Result::err) {
        say::error(&format!("{error:#}"));
        code = ExitCode::FAILURE;
    }
    Ok(code)
}
