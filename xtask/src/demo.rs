//! `cargo xtask demo`.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::paths::Paths;
use crate::{build, lab, privilege, process};

pub(crate) fn run() -> Result<ExitCode> {
    privilege::require_root("demo")?;
    let paths = Paths::find()?;
    lab::ensure()?;
    let built = build::all(&paths, build::Args::default())?;

    build::lab_program(&paths, &built, "demo")?;

    let mut demo = Command::new(paths.release("demo"));
    built.tell(&mut demo);
    process::status("the demo", &mut demo).map(process::exit_code)
}
