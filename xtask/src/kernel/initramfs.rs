//! The archive that the kernel unpacks its initramfs from
//! (Documentation/driver-api/early-userspace/buffer-format.rst: `newc`).

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use anyhow::{Context, Result};
use cpio::newc::{Builder, ModeFileType, trailer};

/// An archive being written. Everything in it is root's.
pub(super) struct Initramfs<W: Write> {
    to: W,
    entries: u32,
}

impl Initramfs<BufWriter<File>> {
    pub(super) fn create(file: &Path) -> Result<Self> {
        let to = File::create(file).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(Self::new(BufWriter::new(to)))
    }
}

impl<W: Write> Initramfs<W> {
    const fn new(to: W) -> Self {
        Self { to, entries: 0 }
    }

    /// A directory with these permissions; the one that it is in comes before it.
    pub(super) fn directory(&mut self, path: &Path, permissions: u32) -> io::Result<()> {
        self.entry(path, permissions, ModeFileType::Directory, 0, &[][..])
    }

    /// A symbolic link.
    pub(super) fn link(&mut self, path: &Path, target: &Path) -> io::Result<()> {
        let target = text_of(target)?.as_bytes();
        self.entry(
            path,
            0o777,
            ModeFileType::Symlink,
            target.len() as u64,
            target,
        )
    }

    /// A file that holds this.
    pub(super) fn text(&mut self, path: &Path, permissions: u32, text: &str) -> io::Result<()> {
        let text = text.as_bytes();
        self.entry(
            path,
            permissions,
            ModeFileType::Regular,
            text.len() as u64,
            text,
        )
    }

    /// A copy of a file.
    pub(super) fn file(&mut self, path: &Path, permissions: u32, from: &Path) -> Result<()> {
        let mut copy = || {
            let file = File::open(from)?;
            let size = file.metadata()?.len();
            self.entry(path, permissions, ModeFileType::Regular, size, file)
        };
        copy().with_context(|| format!("cannot pack {}", from.display()))
    }

    /// Ends the archive.
    pub(super) fn end(self) -> io::Result<()> {
        trailer(self.to)?.flush()
    }

    fn entry(
        &mut self,
        path: &Path,
        permissions: u32,
        kind: ModeFileType,
        size: u64,
        mut contents: impl Read,
    ) -> io::Result<()> {
        self.entries += 1;
        let name = text_of(path.strip_prefix("/").unwrap_or(path))?;
        let limited = u32::try_from(size).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mut writer = Builder::new(name)
            .ino(self.entries)
            .mode(permissions)
            .set_mode_file_type(kind)
            .write(&mut self.to, limited);
        let copied = io::copy(&mut contents, &mut writer)?;
        // The header has said how long it is.
        if copied != size {
            return Err(io::Error::other("its size changed"));
        }
        writer.finish()?;
        Ok(())
    }
}

/// The library's names are text.
fn text_of(path: &Path) -> io::Result<&str> {
    Ok(path.to_str().ok_or(io::ErrorKind::InvalidFilename)?)
}

#[cfg(test)]
mod tests {
    use cpio::newc::Reader;

    use super::*;

    #[test]
    fn entries_are_there_with_their_kinds_and_contents() {
        let folder = tempfile::tempdir().unwrap();
        let from = folder.path().join("from");
        std::fs::write(&from, "copied").unwrap();
        let mut bytes = Vec::new();
        let mut archive = Initramfs::new(&mut bytes);
        archive.directory(Path::new("/a"), 0o755).unwrap();
        archive.text(Path::new("/a/b"), 0o600, "hello").unwrap();
        archive.link(Path::new("/c"), Path::new("a/b")).unwrap();
        archive.file(Path::new("/d"), 0o644, &from).unwrap();
        archive.end().unwrap();

        let mut found = Vec::new();
        let mut left = &bytes[..];
        loop {
            let mut entry = Reader::new(left).unwrap();
            if entry.entry().is_trailer() {
                break;
            }
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            let header = entry.entry();
            found.push((header.name().to_owned(), header.ino(), header.mode(), text));
            left = entry.finish().unwrap();
        }
        let entry =
            |name: &str, number, mode, text: &str| (name.to_owned(), number, mode, text.to_owned());
        assert_eq!(
            found,
            [
                entry("a", 1, 0o040_755, ""),
                entry("a/b", 2, 0o100_600, "hello"),
                entry("c", 3, 0o120_777, "a/b"),
                entry("d", 4, 0o100_644, "copied"),
            ]
        );
    }

    #[test]
    fn headers_are_where_the_kernel_looks_for_them() {
        let mut bytes = Vec::new();
        let mut archive = Initramfs::new(&mut bytes);
        archive.text(Path::new("/a/b"), 0o600, "hello").unwrap();
        archive.end().unwrap();

        // A header of 110 bytes, a name of 4 with its NUL, 2 for a multiple of four; the
        // same again for 5 bytes of contents.
        assert_eq!(&bytes[..6], b"070701");
        assert_eq!(&bytes[110..124], b"a/b\0\0\0hello\0\0\0");
        assert_eq!(&bytes[124..130], b"070701");
        assert!(bytes[124 + 110..].starts_with(b"TRAILER!!!\0"));
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let mut archive = Initramfs::new(Vec::new());
        let error = archive.file(Path::new("/a"), 0o644, Path::new("/no/such"));
        assert!(error.unwrap_err().to_string().contains("/no/such"));
    }

    #[test]
    fn a_file_of_another_size_than_it_said_is_an_error() {
        let mut archive = Initramfs::new(Vec::new());
        let mut check = |size| {
            let kind = ModeFileType::Regular;
            archive.entry(Path::new("/a"), 0o644, kind, size, &b"four"[..])
        };
        check(4).unwrap();
        check(3).unwrap_err();
        check(5).unwrap_err();
    }
}
