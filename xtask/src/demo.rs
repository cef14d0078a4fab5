//! `cargo xtask demo`.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::build;
use crate::parts::Parts;
use crate::paths::Paths;
use crate::profile::Profile;
use crate::{privilege, process, setup};

const DEMO: &str = "demo";

pub(crate) fn run() -> Result<ExitCode> {
    privilege::require_root(DEMO)?;
    let paths = Paths::find()?;
    let mut parts = Parts::default();
    let (lab, toolchain) = setup::for_lab(&paths, &mut parts)?;
    let usual = "4 minutes at first, then seconds";
    let built = parts.run("building the agent and the demo", usual, || {
        build::all(
            &paths,
            &toolchain,
            Profile::Dev,
            build::Args::default(),
            &[DEMO],
        )
    })?;

    let mut demo = Command::new(paths.program(Profile::Dev, DEMO));
    built.tell(&mut demo);
    lab.restrict(&mut demo);
    let shown = parts.run("the demo", "10 seconds", || {
        process::status("the demo", &mut demo)
    });
    shown.map(process::exit_code)
}
