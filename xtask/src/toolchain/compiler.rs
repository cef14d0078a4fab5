//! Compilers that could build for BPF: rustup's nightlies, and Debian's.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{process, programs};

/// Where Debian's rustc-web, cargo-web and rust-web-src put their files.
const DEBIAN_SYSROOT: &str = "/usr";

/// What the workspace itself needs.
const NEEDED: &str = env!("CARGO_PKG_RUST_VERSION");

/// Who installed a compiler.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Source {
    /// rustup, as the toolchain of this name.
    Rustup(String),
    /// Debian's packages.
    Debian,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rustup(name) => write!(f, "rustup's {name}"),
            Self::Debian => write!(f, "Debian's rustc-web"),
        }
    }
}

/// A compiler that has the source of `core`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Compiler {
    pub(super) source: Source,
    pub(super) sysroot: PathBuf,
    /// Its LLVM's major version: a linker's must not be older.
    pub(super) llvm: u32,
}

impl Compiler {
    /// A program of this compiler's toolchain, by its path: a name would find
    /// rustup's proxies first.
    pub(super) fn tool(&self, name: &str) -> PathBuf {
        self.sysroot.join("bin").join(name)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        programs::is_executable(&self.tool(name))
    }
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (LLVM {})", self.source, self.llvm)
    }
}

/// All usable compilers, and for each other one a line that says why it is not.
pub(super) fn find() -> (Vec<Compiler>, Vec<String>) {
    let mut candidates = Vec::new();
    let mut rejected = Vec::new();
    match nightlies() {
        Ok(found) if found.is_empty() => rejected.push("rustup has no nightly".to_owned()),
        Ok(found) => candidates.extend(found),
        Err(why) => rejected.push(why),
    }
    candidates.push((Source::Debian, DEBIAN_SYSROOT.into()));

    let mut compilers = Vec::new();
    for (source, sysroot) in candidates {
        match examine(source, &sysroot, version) {
            Ok(compiler) => compilers.push(compiler),
            Err(why) => rejected.push(why),
        }
    }
    (compilers, rejected)
}

fn nightlies() -> Result<Vec<(Source, PathBuf)>, String> {
    let rustup = programs::find("rustup").ok_or("rustup is not installed")?;
    let mut list = Command::new(rustup);
    list.args(["toolchain", "list", "-v"]);
    let output = process::output("listing rustup's toolchains", &mut list)
        .map_err(|error| format!("{error:#}"))?;
    Ok(parse_nightlies(&String::from_utf8_lossy(&output.stdout)))
}

/// A line is a name, sometimes remarks in brackets, and a path.
fn parse_nightlies(list: &str) -> Vec<(Source, PathBuf)> {
    list.lines()
        .filter(|line| line.starts_with("nightly"))
        .filter_map(|line| {
            let name = line.split_whitespace().next()?;
            let path = &line[line.find('/')?..];
            Some((Source::Rustup(name.to_owned()), path.into()))
        })
        .collect()
}

/// Decides about one candidate, of which `version` tells what `rustc -vV` says.
fn examine(
    source: Source,
    sysroot: &Path,
    version: impl FnOnce(&Path) -> Result<String, String>,
) -> Result<Compiler, String> {
    let rustc = sysroot.join("bin/rustc");
    if !programs::is_executable(&rustc) || !programs::is_executable(&sysroot.join("bin/cargo")) {
        return Err(format!("{source} is not installed"));
    }
    let library = sysroot.join("lib/rustlib/src/rust/library");
    if !library.join("core/Cargo.toml").is_file() || !library.join("Cargo.lock").is_file() {
        return Err(format!(
            "{source} lacks the source of `core` ({})",
            source_of_core(&source)
        ));
    }
    let version = version(&rustc)?;
    let field = |name: &str| version.lines().find_map(|line| line.strip_prefix(name));
    let release = field("release: ").unwrap_or("of unknown version");
    if numbers(release) < numbers(NEEDED) {
        return Err(format!("{source} is {release}, older than {NEEDED}"));
    }
    let llvm = field("LLVM version: ").and_then(|version| numbers(version)?.first().copied());
    let llvm = llvm.ok_or_else(|| format!("{source} doesn't tell the version of its LLVM"))?;
    Ok(Compiler {
        source,
        sysroot: sysroot.to_owned(),
        llvm,
    })
}

fn source_of_core(source: &Source) -> String {
    match source {
        Source::Rustup(name) => format!("`rustup component add rust-src --toolchain {name}`"),
        Source::Debian => "package rust-web-src".to_owned(),
    }
}

/// `1.97.0-nightly` as [1, 97].
fn numbers(version: &str) -> Option<[u32; 2]> {
    let mut parts = version.split('.').map(|part| part.parse().ok());
    Some([parts.next()??, parts.next()??])
}

fn version(rustc: &Path) -> Result<String, String> {
    let mut command = process::bpf_tool(rustc);
    let output = process::output("asking a compiler for its version", command.arg("-vV"))
        .map_err(|error| format!("{error:#}"))?;
    if !output.status.success() {
        return Err(format!(
            "{} doesn't run: {}",
            rustc.display(),
            output.status
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;

    const NIGHTLY: &str = "rustc 1.97.0-nightly\nrelease: 1.97.0-nightly\nLLVM version: 22.1.4\n";

    fn sysroot(with_source: bool) -> TempDir {
        let sysroot = tempfile::tempdir().unwrap();
        fs::create_dir(sysroot.path().join("bin")).unwrap();
        for name in ["bin/rustc", "bin/cargo"] {
            let file = sysroot.path().join(name);
            fs::write(&file, "").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
        if with_source {
            let library = sysroot.path().join("lib/rustlib/src/rust/library");
            fs::create_dir_all(library.join("core")).unwrap();
            fs::write(library.join("core/Cargo.toml"), "").unwrap();
            fs::write(library.join("Cargo.lock"), "").unwrap();
        }
        sysroot
    }

    fn nightly() -> Source {
        Source::Rustup("nightly".to_owned())
    }

    fn why(result: Result<Compiler, String>) -> String {
        result.expect_err("not usable")
    }

    #[test]
    fn a_nightly_with_rust_src_is_usable() {
        let sysroot = sysroot(true);

        let compiler = examine(nightly(), sysroot.path(), |_| Ok(NIGHTLY.to_owned())).unwrap();

        assert_eq!(compiler.llvm, 22);
        assert_eq!(compiler.tool("cargo"), sysroot.path().join("bin/cargo"));
    }

    #[test]
    fn a_nightly_without_rust_src_is_recognised_and_not_run() {
        let sysroot = sysroot(false);

        let why = why(examine(nightly(), sysroot.path(), |_| panic!("was run")));

        assert_eq!(
            why,
            "rustup's nightly lacks the source of `core` \
             (`rustup component add rust-src --toolchain nightly`)"
        );
    }

    #[test]
    fn an_empty_directory_is_no_compiler() {
        let empty = tempfile::tempdir().unwrap();

        let why = why(examine(Source::Debian, empty.path(), |_| panic!("was run")));

        assert_eq!(why, "Debian's rustc-web is not installed");
    }

    #[test]
    fn a_compiler_older_than_the_workspace_needs_is_not_usable() {
        let sysroot = sysroot(true);
        let old = "release: 1.63.0\nLLVM version: 14.0.6\n";

        let why = why(examine(Source::Debian, sysroot.path(), |_| {
            Ok(old.to_owned())
        }));

        assert_eq!(
            why,
            format!("Debian's rustc-web is 1.63.0, older than {NEEDED}")
        );
    }

    #[test]
    fn only_nightlies_are_taken_from_rustups_list() {
        let list = "stable-x86_64-unknown-linux-gnu (active, default) /r/stable\n\
                    nightly-x86_64-unknown-linux-gnu /r/nightly\n\
                    nightly-2026-01-01-x86_64-unknown-linux-gnu (override)\t/r/a dated one\n";

        let paths: Vec<_> = parse_nightlies(list)
            .into_iter()
            .map(|(_, path)| path)
            .collect();

        assert_eq!(
            paths,
            [PathBuf::from("/r/nightly"), PathBuf::from("/r/a dated one")]
        );
    }

    #[test]
    fn no_toolchains_at_all() {
        assert_eq!(parse_nightlies("no installed toolchains\n"), []);
    }
}
