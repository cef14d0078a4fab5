//! What the facts about compilers and linkers come to. Pure, but for the probe
//! that it is given.

use std::path::{Path, PathBuf};

use crate::apt;

use super::Toolchain;
use super::compiler::Compiler;
use super::linker::{LLVM, LLVM_PACKAGES, VERSION};

/// Debian's compiler, as packages.
const COMPILER_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// What was found on the machine.
#[derive(Default)]
pub(super) struct Facts {
    pub(super) compilers: Vec<Compiler>,
    /// Why other compilers are not among them.
    pub(super) rejected: Vec<String>,
    pub(super) linkers: Vec<PathBuf>,
    /// Whether there is an LLVM to build our own linker with.
    pub(super) llvm: bool,
    pub(super) root: bool,
    pub(super) apt: bool,
    pub(super) attempts: Attempts,
}

/// What this run has already done about it, and how that went.
#[derive(Clone, Default)]
pub(super) struct Attempts {
    pub(super) linker: Option<Result<(), String>>,
    pub(super) packages: Option<Result<(), String>>,
}

/// What to do next.
#[derive(Debug, PartialEq)]
pub(super) enum Decision {
    Ready(Toolchain),
    MakeLinker,
    Install(Vec<&'static str>),
    /// Nothing is left to try; the message says all that somebody needs to go on.
    Stuck(String),
}

/// Decides; `probe` tells whether a linker works with a compiler.
pub(super) fn decide(
    facts: &Facts,
    probe: impl Fn(&Compiler, &Path) -> Result<(), String>,
) -> Decision {
    let mut reasons = facts.rejected.clone();
    for compiler in &facts.compilers {
        for linker in &facts.linkers {
            match probe(compiler, linker) {
                Ok(()) => {
                    return Decision::Ready(Toolchain {
                        compiler: compiler.clone(),
                        linker: linker.clone(),
                    });
                }
                Err(why) => reasons.push(format!("{compiler} with {}: {why}", linker.display())),
            }
        }
    }

    let linkable = facts.compilers.iter().any(|compiler| compiler.llvm <= LLVM);
    if linkable && facts.llvm && facts.attempts.linker.is_none() {
        return Decision::MakeLinker;
    }
    let packages = missing_packages(linkable, facts.llvm);
    if !packages.is_empty() && facts.root && facts.apt && facts.attempts.packages.is_none() {
        return Decision::Install(packages);
    }
    reasons.extend(remaining_reasons(facts));
    Decision::Stuck(message(&reasons, &advice(facts, linkable, &packages)))
}

fn missing_packages(linkable: bool, llvm: bool) -> Vec<&'static str> {
    let mut packages = Vec::new();
    if !linkable {
        packages.extend(COMPILER_PACKAGES);
    }
    if !llvm {
        packages.extend(LLVM_PACKAGES);
    }
    packages
}

fn remaining_reasons(facts: &Facts) -> Vec<String> {
    let mut reasons = Vec::new();
    for compiler in facts
        .compilers
        .iter()
        .filter(|compiler| compiler.llvm > LLVM)
    {
        reasons.push(format!(
            "{compiler} needs a bpf-linker with LLVM {} or newer; ours would have {LLVM}",
            compiler.llvm
        ));
    }
    if facts.linkers.is_empty() {
        reasons.push("no bpf-linker in the cache, on PATH or in cargo's bin directory".to_owned());
    }
    let attempts = [&facts.attempts.packages, &facts.attempts.linker];
    reasons.extend(
        attempts
            .into_iter()
            .flatten()
            .filter_map(|done| done.clone().err()),
    );
    reasons
}

fn message(reasons: &[String], advice: &[String]) -> String {
    const ITEM: &str = "\n  - ";
    let reasons = reasons.join(ITEM);
    let advice = advice.join(ITEM);
    format!(
        "no BPF toolchain. Building the classifier takes a rustc that has the source of `core`, \
         and a bpf-linker whose LLVM is not older than that rustc's. Found:{ITEM}{reasons}\n\
         What helps, before `cargo xtask setup` again:{ITEM}{advice}"
    )
}

fn advice(facts: &Facts, linkable: bool, packages: &[&str]) -> Vec<String> {
    let mut advice = Vec::new();
    if facts.apt && !packages.is_empty() {
        advice.push(format!("on Debian 12: {}", apt::command_line(packages)));
    }
    if !linkable {
        advice.push(
            "with rustup: rustup toolchain install nightly --component rust-src,clippy".to_owned(),
        );
    }
    advice.push(format!(
        "a bpf-linker {VERSION} on PATH, if setup can't build its own: see \
         `cargo info bpf-linker` for its LLVM versions"
    ));
    advice
}

#[cfg(test)]
mod tests {
    use super::super::compiler::Source;
    use super::*;

    const LINKER: &str = "/cache/bin/bpf-linker";

    fn compiler(llvm: u32) -> Compiler {
        Compiler {
            source: Source::Debian,
            sysroot: "/usr".into(),
            llvm,
        }
    }

    /// As LLVM has it: an older one can't read a newer one's bitcode.
    fn linker_with(llvm: u32) -> impl Fn(&Compiler, &Path) -> Result<(), String> {
        move |compiler, _| {
            if compiler.llvm <= llvm {
                Ok(())
            } else {
                Err("Invalid bitcode".to_owned())
            }
        }
    }

    fn no_linker(_: &Compiler, _: &Path) -> Result<(), String> {
        panic!("there is none to try")
    }

    fn stuck(decision: Decision) -> String {
        match decision {
            Decision::Stuck(message) => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_pair_that_links_is_taken() {
        let facts = Facts {
            compilers: vec![compiler(22)],
            linkers: vec![LINKER.into()],
            ..Facts::default()
        };

        let expected = Toolchain {
            compiler: compiler(22),
            linker: LINKER.into(),
        };
        assert_eq!(decide(&facts, linker_with(22)), Decision::Ready(expected));
    }

    #[test]
    fn of_two_compilers_the_one_that_links_is_taken() {
        let facts = Facts {
            compilers: vec![compiler(23), compiler(22)],
            linkers: vec![LINKER.into()],
            ..Facts::default()
        };

        let expected = Toolchain {
            compiler: compiler(22),
            linker: LINKER.into(),
        };
        assert_eq!(decide(&facts, linker_with(22)), Decision::Ready(expected));
    }

    #[test]
    fn a_linker_whose_llvm_is_older_is_replaced_by_our_own() {
        let facts = Facts {
            compilers: vec![compiler(22)],
            linkers: vec![LINKER.into()],
            llvm: true,
            ..Facts::default()
        };

        assert_eq!(decide(&facts, linker_with(21)), Decision::MakeLinker);
    }

    #[test]
    fn our_own_is_not_made_for_a_compiler_that_is_newer_still() {
        let facts = Facts {
            compilers: vec![compiler(23)],
            linkers: vec![LINKER.into()],
            llvm: true,
            ..Facts::default()
        };

        let message = stuck(decide(&facts, linker_with(22)));

        assert!(
            message.contains("needs a bpf-linker with LLVM 23 or newer"),
            "{message}"
        );
    }

    #[test]
    fn root_on_an_empty_debian_gets_everything() {
        let facts = Facts {
            root: true,
            apt: true,
            ..Facts::default()
        };

        let all = [
            "rustc-web",
            "cargo-web",
            "rust-web-src",
            "llvm-22-dev",
            "libpolly-22-dev",
        ];
        assert_eq!(decide(&facts, no_linker), Decision::Install(all.to_vec()));
    }

    #[test]
    fn a_compiler_without_llvm_gets_only_that() {
        let facts = Facts {
            compilers: vec![compiler(22)],
            root: true,
            apt: true,
            ..Facts::default()
        };

        assert_eq!(
            decide(&facts, no_linker),
            Decision::Install(LLVM_PACKAGES.to_vec())
        );
    }

    #[test]
    fn others_than_root_get_one_message_with_the_command() {
        let facts = Facts {
            rejected: vec!["rustup has no nightly".to_owned()],
            apt: true,
            ..Facts::default()
        };

        let message = stuck(decide(&facts, no_linker));

        assert!(message.contains("- rustup has no nightly"), "{message}");
        assert!(
            message.contains("- no bpf-linker in the cache"),
            "{message}"
        );
        assert!(
            message.contains(
                "sudo apt-get install -y --no-install-recommends rustc-web cargo-web \
                 rust-web-src llvm-22-dev libpolly-22-dev"
            ),
            "{message}"
        );
    }

    #[test]
    fn without_apt_no_apt_command_is_named() {
        let facts = Facts {
            root: true,
            ..Facts::default()
        };

        let message = stuck(decide(&facts, no_linker));

        assert!(!message.contains("apt-get"), "{message}");
        assert!(
            message.contains("rustup toolchain install nightly"),
            "{message}"
        );
    }

    #[test]
    fn nothing_is_tried_twice() {
        let attempts = Attempts {
            linker: Some(Err(
                "building bpf-linker failed: error: no network".to_owned()
            )),
            packages: Some(Err("apt knows no package rustc-web".to_owned())),
        };
        let facts = Facts {
            compilers: vec![compiler(22)],
            llvm: true,
            root: true,
            apt: true,
            attempts,
            ..Facts::default()
        };

        let message = stuck(decide(&facts, no_linker));

        assert!(
            message.contains("- apt knows no package rustc-web"),
            "{message}"
        );
        assert!(
            message.contains("- building bpf-linker failed: error: no network"),
            "{message}"
        );
    }
}
