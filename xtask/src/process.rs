//! Running other programs, so that a failure names the step and what came of it.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus, Output};

use anyhow::{Context, Result, bail};

/// Runs a command on xtask's own terminal; anything but success is an error.
pub(crate) fn run(step: &str, command: &mut Command) -> Result<()> {
    let status = status(step, command)?;
    if !status.success() {
        bail!("{step} failed: {}", describe(status, command.get_program()));
    }
    Ok(())
}

/// Runs a command on xtask's own terminal, for its exit status.
pub(crate) fn status(step: &str, command: &mut Command) -> Result<ExitStatus> {
    command
        .status()
        .with_context(|| cannot_start(step, command))
}

/// Runs a command, and keeps all that it prints.
pub(crate) fn output(step: &str, command: &mut Command) -> Result<Output> {
    command
        .output()
        .with_context(|| cannot_start(step, command))
}

/// What a child's end means for xtask's own: its code, or 1 if a signal ended it.
pub(crate) fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}

/// The cargo that runs xtask, for the host's own architecture.
///
/// The user's toolchain choice and flags stay as they are. What goes is what
/// `cargo run` adds about xtask itself, and what would move the output to where
/// the next step doesn't look; callers pass `--target-dir`.
pub(crate) fn host_cargo(root: &Path) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(root);
    scrub(&mut command, |name| {
        is_about_xtask(name)
            || matches!(
                name,
                "CARGO_TARGET_DIR" | "CARGO_BUILD_TARGET_DIR" | "CARGO_BUILD_TARGET"
            )
    });
    command
}

/// A tool of the BPF toolchain.
///
/// Nothing that the caller's shell or the outer cargo says about compilers, flags
/// or targets reaches it: all of that is about the host.
pub(crate) fn bpf_tool(program: &Path) -> Command {
    let mut command = Command::new(program);
    scrub(&mut command, is_about_a_compiler);
    command
}

fn scrub(command: &mut Command, unwanted: impl Fn(&str) -> bool) {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(&unwanted) {
            command.env_remove(name);
        }
    }
}

fn is_about_xtask(name: &str) -> bool {
    ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

fn is_about_a_compiler(name: &str) -> bool {
    const KEPT: [&str; 2] = ["CARGO_HOME", "RUSTUP_HOME"];
    // How cargo reaches the network, and how it looks, is the user's business.
    const KEPT_PREFIXES: [&str; 4] = ["CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_TERM_"];
    // `cargo run` puts the host toolchain's libraries here.
    if name == "LD_LIBRARY_PATH" {
        return true;
    }
    (name.starts_with("CARGO") || name.starts_with("RUST"))
        && !KEPT.contains(&name)
        && !KEPT_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

fn describe(status: ExitStatus, program: &OsStr) -> String {
    format!("{} ended with {status}", program.display())
}

fn cannot_start(step: &str, command: &Command) -> String {
    format!(
        "{step} failed: cannot start {}",
        command.get_program().display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bpf_tools_hear_nothing_about_the_host_compiler() {
        for name in [
            "CARGO",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_BUILD_TARGET",
            "CARGO_PROFILE_RELEASE_LTO",
            "CARGO_TARGET_DIR",
            "LD_LIBRARY_PATH",
            "RUSTC",
            "RUSTC_WRAPPER",
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTFLAGS",
            "RUSTUP_TOOLCHAIN",
        ] {
            assert!(is_about_a_compiler(name), "{name}");
        }
    }

    #[test]
    fn they_keep_what_is_about_the_user_and_the_network() {
        for name in [
            "CARGO_HOME",
            "CARGO_HTTP_PROXY",
            "CARGO_NET_OFFLINE",
            "CARGO_TERM_COLOR",
            "HOME",
            "PATH",
            "RUSTUP_HOME",
        ] {
            assert!(!is_about_a_compiler(name), "{name}");
        }
    }
}
