//! Every member of the workspace keeps to the workspace's own settings: a lint
//! that one manifest forgets to inherit is off, and nothing says so.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

const INHERITED: [&str; 3] = ["edition", "rust-version", "version"];

/// What is wrong, a line for each.
pub(crate) fn faults(root: &Path) -> Result<Vec<String>> {
    let workspace = read(&root.join("Cargo.toml"))?;
    let mut faults = Vec::new();
    for member in members(&workspace) {
        let manifest = read(&root.join(member).join("Cargo.toml"))?;
        faults.extend(
            faults_of(&manifest)
                .iter()
                .map(|fault| format!("{member}: {fault}")),
        );
    }
    Ok(faults)
}

fn faults_of(manifest: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for key in INHERITED {
        if !says(manifest, "[package]", &format!("{key}.workspace = true")) {
            faults.push(format!("[package] lacks `{key}.workspace = true`"));
        }
    }
    if !says(manifest, "[lints]", "workspace = true") {
        faults.push("lacks `[lints] workspace = true`".to_owned());
    }
    faults
}

/// Whether a section has a line. Read as text, since this project writes its
/// manifests in one way, and another way is a fault, too.
fn says(manifest: &str, section: &str, line: &str) -> bool {
    manifest
        .lines()
        .map(str::trim)
        .skip_while(|found| *found != section)
        .skip(1)
        .take_while(|found| !found.starts_with('['))
        .any(|found| found == line)
}

/// The quoted names in `members = [...]`.
fn members(workspace: &str) -> Vec<&str> {
    let list = workspace
        .split_once("members = [")
        .and_then(|(_, rest)| rest.split_once(']'))
        .map_or("", |(list, _)| list);
    list.split('"').skip(1).step_by(2).collect()
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_the_quoted_names() {
        let workspace = "[workspace]\nmembers = [\n  \"a\",\n  \"b/c\",\n]\n[x]\ny = [\"z\"]\n";
        assert_eq!(members(workspace), ["a", "b/c"]);
    }

    #[test]
    fn what_is_not_inherited_is_a_fault() {
        let manifest = "[package]\nversion.workspace = true\nedition = \"2021\"\n\
                        rust-version.workspace = true\n[dependencies]\nworkspace = true\n";
        assert_eq!(
            faults_of(manifest),
            [
                "[package] lacks `edition.workspace = true`",
                "lacks `[lints] workspace = true`"
            ]
        );
    }

    #[test]
    fn this_workspace_keeps_to_it() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        assert_eq!(faults(root).unwrap(), Vec::<String>::new());
    }
}
