//! Puts the eBPF object where the agent includes it from.
//!
//! The object needs another toolchain than the agent, so `cargo xtask build`
//! makes it first and says where it is; a plain `cargo build` finds the one
//! that was made last.

use std::{env, fs, path::PathBuf};

use anyhow::{Context as _, bail};

fn main() -> anyhow::Result<()> {
    const NAMED: &str = "CONNTRACK_EBPF_OBJECT";
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={NAMED}");
    let object = match env::var_os(NAMED) {
        Some(path) => PathBuf::from(path),
        None => default_path()?,
    };
    println!("cargo::rerun-if-changed={}", object.display());
    if !object.is_file() {
        bail!(
            "there is no eBPF object at {}; run `cargo xtask build`, which makes it",
            object.display()
        );
    }
    let out: PathBuf = env::var_os("OUT_DIR").context("cargo sets OUT_DIR")?.into();
    fs::copy(&object, out.join("classifier"))
        .with_context(|| format!("copying {}", object.display()))?;
    Ok(())
}

fn default_path() -> anyhow::Result<PathBuf> {
    let manifest = env::var_os("CARGO_MANIFEST_DIR").context("cargo sets CARGO_MANIFEST_DIR")?;
    let target = match env::var("CARGO_CFG_TARGET_ENDIAN").as_deref() {
        Ok("big") => "bpfeb-unknown-none",
        _ => "bpfel-unknown-none",
    };
    Ok(PathBuf::from(manifest)
        .join("../target/bpf")
        .join(target)
        .join("release/classifier"))
}
