//! `cargo xtask layers`: which part of the code may know which, and that no files
//! import each other in a circle. It parses the code, and builds nothing.
//!
//! What it doesn't see: methods by their names alone, and what macros make.

mod circles;
mod judge;
mod mentions;
mod picture;
mod resolve;
mod source;
mod table;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::paths::Paths;

use resolve::AllScopes;
pub(crate) use source::{SourceTree, attributes, is_test};

/// What `cargo xtask layers` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Write the table of layers into ARCHITECTURE.md
    #[arg(long)]
    write: bool,
}

/// The crates, and the files of their roots. Code names a library, and never a binary.
const CRATES: [(&str, &str); 4] = [
    ("agent-main", "conntrack-agent/src/main.rs"),
    ("conntrack_agent", "conntrack-agent/src/lib.rs"),
    ("classifier-main", "conntrack-ebpf/src/program/main.rs"),
    ("conntrack_ebpf", "conntrack-ebpf/src/lib.rs"),
];

/// Runs this step of `cargo xtask check` alone, as it takes seconds.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let root = Paths::find()?.root;
    if args.write {
        picture::write(&root, table::TABLE)?;
    }
    println!("{}", check(&root)?.join("\n"));
    Ok(ExitCode::SUCCESS)
}

/// Judges the imports and the picture of them, and says what was found.
pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let scopes = AllScopes::of(&sources(root)?);
    let mut faults = judge::faults(&scopes, table::TABLE);
    let picture = fs::read_to_string(root.join(picture::FILE))?;
    faults.extend(picture::fault(&picture, table::TABLE));
    if !faults.is_empty() {
        bail!(faults.join("\n      "));
    }
    Ok(vec!["0 imports against the table, 0 circles".to_owned()])
}

/// The agent's sources and the classifier's.
pub(crate) fn sources(root: &Path) -> Result<SourceTree> {
    let mut tree = SourceTree::default();
    for (name, file) in CRATES {
        tree.add(name, file, &|file| fs::read_to_string(root.join(file)).ok())?;
    }
    Ok(tree)
}
