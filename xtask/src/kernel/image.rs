//! Debian's kernels, unpacked in the user's cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::archive::Archive;
use super::{META_PACKAGE, Release};
use crate::paths::Paths;
use crate::{process, programs, say};

/// A kernel that can be booted.
pub(super) struct Kernel {
    /// What `uname -r` says under it.
    pub(super) version: String,
    /// The kernel itself.
    pub(super) vmlinuz: PathBuf,
    /// Its modules, with the lists that modprobe reads.
    pub(super) modules: PathBuf,
}

/// The kernel from the cache, or else from Debian. A cached one isn't asked for
/// updates: removing its folder brings the newest.
pub(super) fn ensure(
    paths: &Paths,
    release: Release,
    backports: impl Fn() -> Result<Archive>,
) -> Result<Kernel> {
    let folder = paths.cache().join(format!("kernel-{}", release.name()));
    if !folder.exists() {
        let archive = match release {
            Release::Stable => Archive::of_the_machine(),
            Release::Backports => backports()?,
        };
        fetch(&archive, release, &folder)?;
    }
    let kernel = find(&folder)?;
    say::note(&format!(
        "kernel: {} in {}",
        kernel.version,
        folder.display()
    ));
    Ok(kernel)
}

fn fetch(archive: &Archive, release: Release, folder: &Path) -> Result<()> {
    let package = archive.kernel_package(META_PACKAGE)?;
    anyhow::ensure!(
        is_of(&package, release),
        "this machine's apt offers {package}, which is not Debian 12's Linux {}",
        release.name()
    );
    let cache = folder.parent().context("the cache has no path")?;
    fs::create_dir_all(cache).with_context(|| format!("cannot make {}", cache.display()))?;
    // Renamed when it is whole: what is in the cache can be relied on.
    let scratch = tempfile::Builder::new()
        .prefix("kernel-")
        .tempdir_in(cache)
        .with_context(|| format!("cannot write in {}", cache.display()))?;
    let file = archive.download(&package, scratch.path())?;
    let mut unpack = Command::new("dpkg-deb");
    unpack.arg("--extract").arg(&file).arg(scratch.path());
    process::run(&format!("unpacking {package}"), &mut unpack)?;
    fs::remove_file(&file)?;

    let kernel = find(scratch.path())?;
    let depmod = programs::find("depmod").context("there is no depmod (Debian: kmod)")?;
    let mut list = Command::new(depmod);
    list.arg("--basedir")
        .arg(scratch.path())
        .arg(&kernel.version);
    process::run("listing the kernel's modules", &mut list)?;
    fs::rename(scratch.keep(), folder)
        .with_context(|| format!("cannot put the kernel into {}", folder.display()))
}

/// Whether a package is of that Linux version, and not 6.12 where 6.1 is meant.
fn is_of(package: &str, release: Release) -> bool {
    package
        .strip_prefix("linux-image-")
        .and_then(|rest| rest.strip_prefix(release.name()))
        .is_some_and(|rest| rest.starts_with('.'))
}

fn find(folder: &Path) -> Result<Kernel> {
    let modules = folder.join("lib/modules");
    let mut versions = fs::read_dir(&modules)
        .with_context(|| format!("no kernel modules in {}", modules.display()))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let version = versions
        .next()
        .with_context(|| format!("{} is empty", modules.display()))?;
    Ok(Kernel {
        vmlinuz: folder.join(format!("boot/vmlinuz-{version}")),
        modules: modules.join(&version),
        version,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_of_another_version_is_not_taken() {
        let check = |package, release, expected| {
            assert_eq!(is_of(package, release), expected, "{package} {release:?}");
        };
        let old = "linux-image-6.1.0-56-cloud-amd64";
        let new = "linux-image-6.12.95+deb12-cloud-amd64";
        check(old, Release::Stable, true);
        check(old, Release::Backports, false);
        check(new, Release::Stable, false);
        check(new, Release::Backports, true);
        check("linux-image-cloud-amd64", Release::Stable, false);
    }
}
