//! `cargo xtask fuzz`: the parser against its reference, on inputs that a fuzzer
//! looks for.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::paths::Paths;
use crate::{process, programs, say};

/// What is asked of the registry if no cargo-fuzz is there.
const VERSION: &str = "0.13.2";

/// The target, and the name of its folders.
const TARGET: &str = "parse";

/// Longer inputs are not tried, in bytes: two extension headers of the longest.
const LONGEST: &str = "4352";

/// How to fuzz.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// For how long
    #[arg(long, value_name = "N", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Add to the corpus in the repository what reaches more than it does
    #[arg(long)]
    keep: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let paths = Paths::find()?;
    let fuzzer = ensure(&paths)?;
    let kept = paths.root.join("fuzz/corpus").join(TARGET);
    // What a run finds is of use for the next one, and no part of the repository.
    let found = paths.target.join("fuzz/corpus").join(TARGET);
    fs::create_dir_all(&found).with_context(|| format!("making {}", found.display()))?;

    let mut fuzz = cargo_fuzz(&paths, &fuzzer);
    fuzz.args([&found, &kept]).arg("--").args([
        format!("-max_total_time={}", args.seconds),
        format!("-max_len={LONGEST}"),
        "-print_final_stats=1".to_owned(),
    ]);
    let Some(last) = watch(&mut fuzz)? else {
        bail!("the fuzzer found a difference, or broke: see above, and fuzz/artifacts/{TARGET}");
    };
    if args.keep {
        let mut merge = cargo_fuzz(&paths, &fuzzer);
        merge
            .args([&kept, &found])
            .args(["--", "-merge=1"])
            .arg(format!("-max_len={LONGEST}"));
        process::run("merging into the kept corpus", &mut merge)?;
    }
    let sizes = sizes(&kept)?;
    println!("{last}");
    println!(
        "kept corpus: {} files, {} bytes",
        sizes.len(),
        sizes.iter().sum::<u64>()
    );
    Ok(ExitCode::SUCCESS)
}

/// Without a sanitizer, which takes an unstable compiler: there is no unsafe code
/// in what is fuzzed.
fn cargo_fuzz(paths: &Paths, fuzzer: &Path) -> Command {
    let mut command = Command::new(fuzzer);
    command
        .current_dir(&paths.root)
        .args(["run", TARGET, "--sanitizer", "none", "--target-dir"])
        .arg(paths.target.join("fuzz"));
    command
}

/// Runs the fuzzer, passes on what it says, and returns its last line of figures;
/// none if it failed.
fn watch(fuzz: &mut Command) -> Result<Option<String>> {
    let step = "fuzzing";
    let mut child = fuzz
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{step}: it didn't start"))?;
    let said = child.stderr.take().context("it was piped")?;
    let mut last = None;
    for line in BufReader::new(said).lines() {
        let line = line.with_context(|| format!("{step}: reading what it says"))?;
        eprintln!("{line}");
        if is_the_result(&line) {
            last = Some(line);
        }
    }
    let status = child.wait().with_context(|| format!("{step}: its end"))?;
    Ok(last.filter(|_| status.success()))
}

/// libFuzzer's last line: runs, coverage, size of the corpus, runs per second.
fn is_the_result(line: &str) -> bool {
    line.starts_with('#') && line.contains("DONE") && line.contains("cov:")
}

/// The size of each file of the corpus, of which there is at least one.
fn sizes(corpus: &Path) -> Result<Vec<u64>> {
    let read = || format!("reading {}", corpus.display());
    let sizes = fs::read_dir(corpus)
        .with_context(read)?
        .map(|file| Ok(file?.metadata()?.len()))
        .collect::<Result<Vec<_>>>()
        .with_context(read)?;
    if sizes.is_empty() {
        bail!("{} has no files", corpus.display());
    }
    Ok(sizes)
}

/// cargo-fuzz: the user's, or one that is built into the cache.
fn ensure(paths: &Paths) -> Result<PathBuf> {
    if let Some(found) = programs::find("cargo-fuzz") {
        return Ok(found);
    }
    let root = paths.cache().join(format!("cargo-fuzz-{VERSION}"));
    let program = root.join("bin/cargo-fuzz");
    if !programs::is_executable(&program) {
        say::note("building cargo-fuzz, which takes a minute");
        let mut install = process::host_cargo(&paths.root);
        install
            .args(["install", "cargo-fuzz", "--locked", "--force"])
            .args(["--version", VERSION, "--root"])
            .arg(&root)
            .arg("--target-dir")
            .arg(paths.target.join("cargo-fuzz"));
        process::run("building cargo-fuzz", &mut install)?;
    }
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_are_those_of_the_last_line() {
        let done = "#81920\tDONE   cov: 321 ft: 800 corp: 120/4Kb lim: 100 exec/s: 8192 rss: 40Mb";
        assert!(is_the_result(done));
        for other in [
            "#8192\tNEW    cov: 321 ft: 800 corp: 120/4Kb",
            "#81920 DONE",
            "Done 81920 runs in 10 second(s)",
        ] {
            assert!(!is_the_result(other), "{other}");
        }
    }

    #[test]
    fn a_corpus_without_files_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(sizes(folder.path()).is_err());
        fs::write(folder.path().join("a"), "abc").unwrap();
        assert_eq!(sizes(folder.path()).unwrap(), [3]);
    }
}
