//! Whether a linker reads what a compiler emits. Version numbers only hint at it
//! (a bpf-linker doesn't tell its LLVM's), so a tiny program is built for real,
//! which takes a tenth of a second.

use std::fs;
use std::path::Path;

use crate::paths::BPF_TARGET;
use crate::process;

use super::Toolchain;
use super::compiler::Compiler;
use super::linker::first_error;

/// The least that is a program: not even `core`, which takes half a minute.
const PROGRAM: &str = r#"
#![feature(lang_items, no_core)]
#![allow(internal_features)]
#![no_core]

#[lang = "pointee_sized"]
pub trait PointeeSized {}
#[lang = "meta_sized"]
pub trait MetaSized: PointeeSized {}
#[lang = "sized"]
pub trait Sized: MetaSized {}

#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub extern "C" fn probe() -> i32 {
    0
}
"#;

/// Builds the program with this pair, and tells in one line why it can't.
pub(super) fn link(compiler: &Compiler, linker: &Path) -> Result<(), String> {
    let toolchain = Toolchain {
        compiler: compiler.clone(),
        linker: linker.to_owned(),
    };
    let directory =
        tempfile::tempdir().map_err(|error| format!("no scratch directory: {error}"))?;
    let source = directory.path().join("probe.rs");
    let object = directory.path().join("probe.o");
    fs::write(&source, PROGRAM).map_err(|error| format!("{}: {error}", source.display()))?;

    let mut rustc = toolchain.tool("rustc");
    rustc
        .args([
            "--edition",
            "2024",
            "--crate-type",
            "cdylib",
            "--target",
            BPF_TARGET,
        ])
        .args(["-Copt-level=3", "-Cpanic=abort"])
        .args(toolchain.flags())
        .arg("-o")
        .arg(&object)
        .arg(&source);
    let output =
        process::output("trying a bpf-linker", &mut rustc).map_err(|error| format!("{error:#}"))?;
    if output.status.success() && object.is_file() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(linkers_own_words(&said)
        .unwrap_or(first_error(&said))
        .trim()
        .to_owned())
}

/// rustc quotes what the linker said in a note.
fn linkers_own_words(report: &str) -> Option<&str> {
    report
        .lines()
        .map(|line| line.trim_start_matches([' ', '=', '|']))
        .map(|line| line.strip_prefix("note: ").unwrap_or(line).trim())
        .find(|line| line.starts_with("ERROR") || line.contains("while loading shared libraries"))
}
