//! Python's virtual environments, for clients that come from `PyPI`.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::process::{Process, Stream};
use crate::wait;

/// A virtual environment.
#[derive(Debug)]
pub struct Environment {
    programs: PathBuf,
}

impl Environment {
    /// Makes one below this folder, with these packages in it, each pinned: all
    /// that they need has to be in the list.
    #[must_use]
    pub fn install(folder: &Path, requirements: &str) -> Self {
        let list = folder.join("requirements.txt");
        fs::write(&list, requirements).expect("the list of packages");
        let root = folder.join("venv");
        let mut make = Command::new(interpreter());
        make.args(["-m", "venv"]).arg(&root);
        must_end_well(make);
        let programs = root.join("bin");
        let mut install = Command::new(programs.join("python3"));
        install
            .args(["-m", "pip", "install", "--quiet", "--no-input", "--no-deps"])
            .args(["--disable-pip-version-check", "--no-compile"])
            .args(["--only-binary", ":all:", "--requirement"])
            .arg(&list);
        must_end_well(install);
        Self { programs }
    }

    /// A program of it.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        Command::new(self.programs.join(program))
    }
}

/// The distribution's if it can make environments, else the one on PATH, as
/// `cargo xtask setup` looks for them.
fn interpreter() -> &'static OsStr {
    let candidates = ["/usr/bin/python3", "python3"].map(OsStr::new);
    let able = candidates.into_iter().find(|python| {
        Command::new(python)
            .args(["-c", "import ensurepip, venv"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    });
    able.expect("a Python with venv; `cargo xtask setup` installs it")
}

fn must_end_well(command: Command) {
    let shown = format!("{command:?}");
    let mut process = Process::start(None, command);
    let status = process
        .wait(2 * wait::patience())
        .unwrap_or_else(|error| panic!("{shown}: {error}: {:?}", process.lines()));
    assert!(
        status.success(),
        "{shown} is needed for these tests, with a package index: {status}: {}",
        process.text(Stream::Err)
    );
}
