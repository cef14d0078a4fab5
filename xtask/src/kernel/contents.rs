//! What the guest's initramfs holds.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::image::Kernel;
use super::{KMOD, Release, answer, initramfs::Initramfs, suite};
use crate::build::Built;
use crate::{lab, process, programs};

/// What the guest's init runs beside the lab's programs.
const OF_INIT: [&str; 5] = ["ln", "mkdir", "stty", "uname", KMOD.0];

/// Files and folders that programs read: users, services, iptables' matches, and
/// what sipp asks about its terminal.
const DATA: [&str; 8] = [
    "/etc/passwd",
    "/etc/group",
    "/etc/nsswitch.conf",
    "/etc/protocols",
    "/etc/services",
    "/usr/lib/x86_64-linux-gnu/xtables",
    "/usr/lib/x86_64-linux-gnu/faketime",
    "/usr/lib/terminfo",
];

/// Folders that the guest's init mounts something on, or that programs expect.
const FOLDERS: [&str; 10] = [
    "/dev", "/proc", "/sys", "/tmp", "/run", "/root", "/var", "/etc", "/srv", "/srv/ftp",
];

/// Where distributions have `/usr`'s folders a second time.
const MERGED: [&str; 4] = ["/bin", "/sbin", "/lib", "/lib64"];

const INIT: &str = include_str!("init.sh");

/// Writes the initramfs.
pub(super) fn pack(
    initramfs: &Path,
    kernel: &Kernel,
    tests: &[(&str, PathBuf)],
    built: &Built,
    release: Release,
    filter: Option<&str>,
) -> Result<()> {
    let mut root = Root::default();
    for name in lab::in_guest().chain(OF_INIT) {
        let program = programs::find(name)
            .with_context(|| format!("the guest needs {name}, which this machine lacks"))?;
        root.program(&program)?;
    }
    for path in DATA.map(Path::new) {
        if path.exists() {
            root.tree(path, path)?;
        }
    }
    let scratch = tempfile::tempdir().context("a folder for stripped programs")?;
    let own = tests.iter().map(|(name, file)| (*name, file.as_path()));
    for (name, file) in own.chain([("conntrack-agent", built.agent.as_path())]) {
        let stripped = scratch.path().join(name);
        strip(file, &stripped)?;
        root.program_as(&Path::new("/tests").join(name), &stripped)?;
    }
    let object = Path::new("/tests/classifier").to_owned();
    root.files.insert(object, built.object.clone());
    let modules = canonical(&Path::new("/lib/modules").join(&kernel.version));
    root.tree(&modules, &kernel.modules)?;

    root.write(initramfs, &suite::script(release, filter))
}

/// Copies a program without its debugging information: the guest's files may take
/// up half of its memory.
fn strip(program: &Path, to: &Path) -> Result<()> {
    let mut strip = Command::new("strip");
    strip.arg("--strip-debug").arg("-o").arg(to).arg(program);
    process::run(&format!("stripping {}", program.display()), &mut strip)
}

/// The guest's files: where each is, and where it is here.
#[derive(Default)]
struct Root {
    files: BTreeMap<PathBuf, PathBuf>,
}

impl Root {
    /// A program of this machine's with the libraries that it needs.
    fn program(&mut self, program: &Path) -> Result<()> {
        self.program_as(&canonical(program), program)
    }

    fn program_as(&mut self, path: &Path, program: &Path) -> Result<()> {
        self.files.insert(path.to_owned(), program.to_owned());
        self.libraries(program)
    }

    fn libraries(&mut self, of: &Path) -> Result<()> {
        let mut ldd = Command::new("ldd");
        ldd.arg(of).env("LC_ALL", "C");
        // It fails on scripts, and on programs that need no libraries.
        let Ok(listing) = answer("asking for libraries", &mut ldd) else {
            return Ok(());
        };
        for library in libraries_in(&listing) {
            anyhow::ensure!(
                library.is_absolute(),
                "{} needs {}, which is not on this machine",
                of.display(),
                library.display()
            );
            self.files.insert(canonical(library), library.to_owned());
        }
        Ok(())
    }

    /// A file, or a folder with all in it, and the libraries of those.
    fn tree(&mut self, path: &Path, from: &Path) -> Result<()> {
        if !from.is_dir() {
            self.files.insert(canonical(path), from.to_owned());
            if from.extension().is_some_and(|kind| kind == "so") {
                self.libraries(from)?;
            }
            return Ok(());
        }
        let entries =
            fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))?;
        for entry in entries {
            let entry = entry?;
            let place = path.join(entry.file_name());
            // A kernel package's modules have links to where it was built.
            if entry.path().exists() {
                self.tree(&place, &entry.path())?;
            }
        }
        Ok(())
    }

    fn write(&self, initramfs: &Path, suite: &str) -> Result<()> {
        let mut archive = Initramfs::create(initramfs)?;
        let mut folders: BTreeSet<&Path> = FOLDERS.iter().map(Path::new).collect();
        for file in self.files.keys() {
            let above = file.ancestors().skip(1);
            folders.extend(above.filter(|path| path.parent().is_some()));
        }
        let links = MERGED.iter().filter_map(|&path| {
            let path = Path::new(path);
            Some((path, fs::read_link(path).ok()?))
        });
        let write = || format!("cannot write {}", initramfs.display());
        // In their order, a folder comes before what is in it.
        for folder in folders {
            archive.directory(folder, 0o755).with_context(write)?;
        }
        for (path, target) in links {
            archive.link(path, &target).with_context(write)?;
        }
        for (path, from) in &self.files {
            let executable = from.metadata()?.permissions().mode() & 0o111 != 0;
            archive.file(path, if executable { 0o755 } else { 0o644 }, from)?;
        }
        let texts = [("/init", INIT), ("/suite", suite)];
        for (path, text) in texts {
            archive
                .text(Path::new(path), 0o755, text)
                .with_context(write)?;
        }
        archive.end().with_context(write)
    }
}

/// The path with the links before its last name followed: the guest has the same
/// `/bin` → `/usr/bin`, and other links are followed by copying what they lead to.
fn canonical(path: &Path) -> PathBuf {
    let resolved = path.parent().and_then(|parent| {
        // A folder that only the guest will have is below one that is here too.
        let here = parent.ancestors().find(|folder| folder.exists())?;
        let rest = parent.strip_prefix(here).ok()?;
        Some(fs::canonicalize(here).ok()?.join(rest))
    });
    match (resolved, path.file_name()) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => path.to_owned(),
    }
}

/// The files in what `ldd` says. A library that is missing is there by its name
/// alone, and the kernel's own (`linux-vdso`) not at all.
fn libraries_in(listing: &str) -> impl Iterator<Item = &Path> {
    listing.lines().filter_map(|line| {
        let line = line.trim();
        let (name, rest) = line.split_once(" => ").unwrap_or((line, line));
        if rest == "not found" {
            return Some(Path::new(name));
        }
        let (file, _address) = rest.rsplit_once(" (")?;
        file.starts_with('/').then_some(Path::new(file))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_what_ldd_says() {
        let listing = "\tlinux-vdso.so.1 (0x00007ffd)\n\
                       \tlibmnl.so.0 => /lib/x86_64-linux-gnu/libmnl.so.0 (0x00007f5b)\n\
                       \tlibgone.so.1 => not found\n\
                       \t/lib64/ld-linux-x86-64.so.2 (0x00007f5c)\n";
        let found: Vec<_> = libraries_in(listing).collect();
        assert_eq!(
            found,
            [
                "/lib/x86_64-linux-gnu/libmnl.so.0",
                "libgone.so.1",
                "/lib64/ld-linux-x86-64.so.2"
            ]
            .map(Path::new)
        );
        assert_eq!(libraries_in("\tstatically linked\n").count(), 0);
    }

    #[test]
    fn links_are_followed_but_the_last_name_stays() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        fs::create_dir(root.join("usr")).unwrap();
        std::os::unix::fs::symlink("usr", root.join("lib")).unwrap();
        fs::write(root.join("usr/a-1"), "").unwrap();
        std::os::unix::fs::symlink("a-1", root.join("usr/a")).unwrap();

        assert_eq!(canonical(&root.join("lib/a")), root.join("usr/a"));
        assert_eq!(
            canonical(&root.join("lib/none/yet")),
            root.join("usr/none/yet")
        );
    }

    #[test]
    fn a_folder_is_taken_with_its_depth() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("net")).unwrap();
        fs::write(folder.path().join("net/veth.ko"), "").unwrap();
        std::os::unix::fs::symlink("/no/such", folder.path().join("build")).unwrap();
        let mut root = Root::default();

        root.tree(Path::new("/m"), folder.path()).unwrap();

        let files: Vec<_> = root.files.into_keys().collect();
        assert_eq!(files, [PathBuf::from("/m/net/veth.ko")]);
    }
}
