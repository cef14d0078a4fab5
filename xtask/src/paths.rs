//! Where things are in the checkout and on the machine.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::profile::Profile;

/// The BPF target in the host's byte order: the classifier and the agent share
/// the maps' contents.
pub(crate) const BPF_TARGET: &str = if cfg!(target_endian = "big") {
    "bpfeb-unknown-none"
} else {
    "bpfel-unknown-none"
};

/// The directories that xtask works in, all absolute.
pub(crate) struct Paths {
    /// The workspace.
    pub(crate) root: PathBuf,
    /// Where cargo puts what it builds for the host.
    pub(crate) target: PathBuf,
}

impl Paths {
    /// Asks the environment.
    pub(crate) fn find() -> Result<Self> {
        // Of the running cargo rather than of the compilation: a target directory
        // that two clones share has one xtask for both.
        let manifest = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest
            .parent()
            .context("xtask's manifest is not inside a workspace")?
            .to_owned();
        let target = match env::var_os("CARGO_TARGET_DIR").filter(|value| !value.is_empty()) {
            Some(directory) => std::path::absolute(directory)?,
            None => root.join("target"),
        };
        Ok(Self { root, target })
    }

    /// Where cargo puts what it builds for the BPF target. Its own, so that the
    /// two cargos don't wait for each other, or rebuild each other's work.
    pub(crate) fn bpf_target(&self) -> PathBuf {
        self.target.join("bpf")
    }

    /// The eBPF object.
    pub(crate) fn object(&self) -> PathBuf {
        self.bpf_target()
            .join(BPF_TARGET)
            .join("release/classifier")
    }

    /// A program that was built for the host.
    pub(crate) fn program(&self, profile: Profile, name: &str) -> PathBuf {
        self.target.join(profile.folder()).join(name)
    }

    /// The user's cache for this project, or a place in the target directory for
    /// a user without a home.
    pub(crate) fn cache(&self) -> PathBuf {
        cache_of(
            env::var_os("XDG_CACHE_HOME").map(PathBuf::from),
            env::home_dir(),
        )
        .unwrap_or_else(|| self.target.join("cache"))
    }
}

fn cache_of(xdg: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    // The XDG specification has relative paths ignored.
    let absolute = |path: &PathBuf| Path::is_absolute(path);
    xdg.filter(absolute)
        .or_else(|| home.filter(absolute).map(|home| home.join(".cache")))
        .map(|cache| cache.join("conntrack-agent"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_the_users() {
        let check = |xdg: Option<&str>, home: Option<&str>, expected: Option<&str>| {
            assert_eq!(
                cache_of(xdg.map(PathBuf::from), home.map(PathBuf::from)),
                expected.map(PathBuf::from),
                "{xdg:?} {home:?}"
            );
        };
        check(Some("/c"), Some("/home/a"), Some("/c/conntrack-agent"));
        check(
            None,
            Some("/home/a"),
            Some("/home/a/.cache/conntrack-agent"),
        );
        check(
            Some("c"),
            Some("/home/a"),
            Some("/home/a/.cache/conntrack-agent"),
        );
        check(None, None, None);
    }
}
