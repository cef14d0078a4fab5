//! Files too long to be about one idea.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// What a file should not exceed, in lines.
const LONG: usize = 400;

/// Where the workspace's own code is.
const FOLDERS: [&str; 4] = ["conntrack-agent", "conntrack-ebpf", "tests", "xtask"];

/// Fails with the names of files that are too long, if there are any.
pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let mut long = Vec::new();
    for folder in FOLDERS {
        find(root, folder, &mut long)?;
    }
    long.sort();
    let names = long
        .iter()
        .map(|(file, lines)| format!("\n        {file}: {lines}"));
    ensure!(
        long.is_empty(),
        "{} files of more than {LONG} lines{}",
        long.len(),
        names.collect::<String>()
    );
    Ok(vec![format!("0 files of more than {LONG} lines")])
}

/// The long Rust files in a folder, each with its number of lines.
fn find(root: &Path, folder: &str, long: &mut Vec<(String, usize)>) -> Result<()> {
    let read = || format!("cannot read {folder}");
    for entry in fs::read_dir(root.join(folder)).with_context(read)? {
        let entry = entry.with_context(read)?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let place = format!("{folder}/{name}");
        if entry.file_type().with_context(read)?.is_dir() {
            // What cargo builds there, if somebody runs it so, is nobody's code.
            if name != "target" {
                find(root, &place, long)?;
            }
        } else if Path::new(name).extension().is_some_and(|kind| kind == "rs") {
            let text = fs::read_to_string(entry.path()).with_context(read)?;
            let lines = text.lines().count();
            if lines > LONG {
                long.push((place, lines));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace(long: usize) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for folder in FOLDERS {
            fs::create_dir_all(root.path().join(folder).join("target")).unwrap();
        }
        let write = |file: &str, lines: usize| {
            fs::write(root.path().join("tests").join(file), "\n".repeat(lines)).unwrap();
        };
        for number in 0..long {
            write(&format!("long{number}.rs"), LONG + 1);
        }
        write("short.rs", LONG);
        write("long.txt", LONG + 1);
        write("target/built.rs", LONG + 1);
        root
    }

    #[test]
    fn other_files_and_short_ones_may_be() {
        let root = workspace(0);
        check(root.path()).unwrap();
    }

    #[test]
    fn a_long_file_is_an_error_that_names_it() {
        let root = workspace(2);
        let error = check(root.path()).unwrap_err().to_string();
        assert!(error.starts_with("2 files "), "{error}");
        assert!(error.contains("\n        tests/long1.rs: 401"), "{error}");
        assert!(
            !error.contains("short") && !error.contains("built"),
            "{error}"
        );
    }

    #[test]
    fn this_workspace_keeps_to_it() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        check(root).unwrap();
    }
}
