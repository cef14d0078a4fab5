//! The BPF toolchain: a compiler that has the source of `core`, and a bpf-linker
//! whose LLVM reads what that compiler emits.
//!
//! Facts are gathered ([`compiler`], [`linker`]), [`decide`] says what they come
//! to, and `ensure` does that and looks again, until the toolchain is there or
//! nothing is left to try.

mod compiler;
mod decide;
mod linker;
mod probe;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::paths::Paths;
use crate::{apt, privilege, process, say};
use compiler::{Compiler, Source};
use decide::{Attempts, Decision, Facts};

/// A compiler and a linker that were seen to work together.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Toolchain {
    compiler: Compiler,
    linker: PathBuf,
}

impl Toolchain {
    /// The toolchain's cargo.
    pub(crate) fn cargo(&self) -> Command {
        self.tool("cargo")
    }

    /// The toolchain's clippy, if it has one.
    pub(crate) fn clippy(&self) -> Option<Command> {
        self.compiler.has("cargo-clippy").then(|| {
            let mut clippy = self.tool("cargo-clippy");
            clippy
                .env("CARGO", self.compiler.tool("cargo"))
                .arg("clippy");
            clippy
        })
    }

    /// The Debian package that has the clippy it lacks.
    pub(crate) fn clippy_package(&self) -> Option<&'static str> {
        let lacks_it = !self.compiler.has("cargo-clippy");
        (lacks_it && self.compiler.source == Source::Debian).then_some("rust-web-clippy")
    }

    fn tool(&self, name: &str) -> Command {
        let mut command = process::bpf_tool(&self.compiler.tool(name));
        command.env("RUSTC", self.compiler.tool("rustc"));
        // Building `core` is an unstable feature.
        command.env("RUSTC_BOOTSTRAP", "1");
        command.env("CARGO_ENCODED_RUSTFLAGS", self.flags().join("\x1f"));
        command
    }

    /// No BTF: the kernel would keep 10 KiB of it beside each router's program,
    /// which is more than the program itself.
    fn flags(&self) -> [String; 2] {
        [
            format!("-Clinker={}", self.linker.display()),
            // Jumps and arithmetic on 32 bits, since Linux 5.1.
            "-Ctarget-cpu=v3".to_owned(),
        ]
    }
}

/// Finds a BPF toolchain, or makes one.
pub(crate) fn ensure(paths: &Paths) -> Result<Toolchain> {
    let mut attempts = Attempts::default();
    loop {
        let (compilers, rejected) = compiler::find();
        let facts = Facts {
            compilers,
            rejected,
            linkers: linker::find(paths),
            llvm: linker::has_llvm(),
            root: privilege::is_root(),
            apt: apt::is_available(),
            attempts: attempts.clone(),
        };
        match decide::decide(&facts, probe::link) {
            Decision::Ready(toolchain) => {
                for why in &facts.rejected {
                    say::note(&format!("toolchain: not used: {why}"));
                }
                let (compiler, linker) = (&toolchain.compiler, toolchain.linker.display());
                say::note(&format!("toolchain: {compiler} with {linker}"));
                return Ok(toolchain);
            }
            Decision::MakeLinker => attempts.linker = Some(outcome(linker::make(paths))),
            Decision::Install(packages) => {
                say::note(&format!("toolchain: installing {}", packages.join(", ")));
                attempts.packages = Some(outcome(apt::install(&packages)));
            }
            Decision::Stuck(message) => bail!(message),
        }
    }
}

/// A failure is one more fact: the decision that comes of it names it beside the
/// other ones.
fn outcome(result: Result<()>) -> Result<(), String> {
    result.map_err(|error| format!("{error:#}"))
}
