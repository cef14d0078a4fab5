//! A cpio archive in the form that the kernel unpacks its initramfs from
//! (Documentation/driver-api/early-userspace/buffer-format.rst: `newc`).

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result};

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const LINK: u32 = 0o120_000;

/// An archive being written. Everything in it is root's.
pub(super) struct Archive<W: Write> {
    to: W,
    entries: u32,
}

impl Archive<BufWriter<File>> {
    pub(super) fn create(file: &Path) -> Result<Self> {
        let to = File::create(file).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(Self::new(BufWriter::new(to)))
    }
}

impl<W: Write> Archive<W> {
    const fn new(to: W) -> Self {
        Self { to, entries: 0 }
    }

    /// A directory with these permissions; the one that it is in comes before it.
    pub(super) fn directory(&mut self, path: &Path, permissions: u32) -> io::Result<()> {
        self.header(path, DIRECTORY | permissions, 0)
    }

    /// A symbolic link.
    pub(super) fn link(&mut self, path: &Path, target: &Path) -> io::Result<()> {
        self.contents(path, LINK | 0o777, target.as_os_str().as_bytes())
    }

    /// A file that holds this.
    pub(super) fn text(&mut self, path: &Path, permissions: u32, text: &str) -> io::Result<()> {
        self.contents(path, REGULAR | permissions, text.as_bytes())
    }

    /// A copy of a file.
    pub(super) fn file(&mut self, path: &Path, permissions: u32, from: &Path) -> Result<()> {
        self.copy(path, permissions, from)
            .with_context(|| format!("cannot pack {}", from.display()))
    }

    /// Ends the archive.
    pub(super) fn end(mut self) -> io::Result<()> {
        self.header(Path::new("TRAILER!!!"), 0, 0)?;
        self.to.flush()
    }

    fn copy(&mut self, path: &Path, permissions: u32, from: &Path) -> io::Result<()> {
        let mut file = File::open(from)?;
        let size = file.metadata()?.len();
        let size = u32::try_from(size).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.header(path, REGULAR | permissions, size)?;
        let copied = io::copy(&mut file, &mut self.to)?;
        // The header has said how long it is.
        if copied != u64::from(size) {
            return Err(io::Error::other("its size changed"));
        }
        self.pad(u64::from(size))
    }

    fn contents(&mut self, path: &Path, mode: u32, contents: &[u8]) -> io::Result<()> {
        let size = u32::try_from(contents.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.header(path, mode, size)?;
        self.to.write_all(contents)?;
        self.pad(u64::from(size))
    }

    /// A magic number and thirteen fields of eight hexadecimal digits: inode, mode,
    /// owner, group, links, time, size, device (two), special device (two), the
    /// name's length, checksum. Then the name with its NUL.
    fn header(&mut self, path: &Path, mode: u32, size: u32) -> io::Result<()> {
        self.entries += 1;
        let path = path.strip_prefix("/").unwrap_or(path);
        let name = path.as_os_str().as_bytes();
        let length = u32::try_from(name.len() + 1).map_err(|_| io::ErrorKind::InvalidFilename)?;
        write!(self.to, "070701{:08X}{mode:08X}", self.entries)?;
        write!(self.to, "{:08X}{:08X}{:08X}{:08X}", 0, 0, 1, 0)?;
        write!(self.to, "{size:08X}{:08X}{:08X}{:08X}{:08X}", 0, 0, 0, 0)?;
        write!(self.to, "{length:08X}{:08X}", 0)?;
        self.to.write_all(name)?;
        self.to.write_all(&[0])?;
        self.pad(HEADER + u64::from(length))
    }

    /// Headers and contents begin at multiples of four.
    fn pad(&mut self, length: u64) -> io::Result<()> {
        let missing = length.next_multiple_of(4) - length;
        for _ in 0..missing {
            self.to.write_all(&[0])?;
        }
        Ok(())
    }
}

/// What a header takes up before its name.
const HEADER: u64 = 6 + 13 * 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_and_contents_are_where_the_kernel_looks_for_them() {
        let mut bytes = Vec::new();
        let mut archive = Archive::new(&mut bytes);
        archive.directory(Path::new("/a"), 0o755).unwrap();
        archive.text(Path::new("/a/b"), 0o600, "hello").unwrap();
        archive.link(Path::new("/c"), Path::new("a/b")).unwrap();
        archive.end().unwrap();

        let field = |at: usize, number: usize| {
            let at = at + 6 + number * 8;
            u32::from_str_radix(std::str::from_utf8(&bytes[at..at + 8]).unwrap(), 16).unwrap()
        };
        let mut found = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            assert_eq!(&bytes[at..at + 6], b"070701");
            let [mode, size, name] = [1, 6, 11].map(|number| field(at, number) as usize);
            let start = at + 110;
            let contents = (start + name).next_multiple_of(4);
            assert_eq!(bytes[start + name - 1], 0);
            let text = |from: usize, to: usize| String::from_utf8(bytes[from..to].to_vec());
            found.push((
                text(start, start + name - 1).unwrap(),
                mode,
                text(contents, contents + size).unwrap(),
            ));
            at = (contents + size).next_multiple_of(4);
        }
        let entry = |name: &str, mode, text: &str| (name.to_owned(), mode, text.to_owned());
        assert_eq!(
            found,
            [
                entry("a", 0o040_755, ""),
                entry("a/b", 0o100_600, "hello"),
                entry("c", 0o120_777, "a/b"),
                entry("TRAILER!!!", 0, ""),
            ]
        );
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let mut archive = Archive::new(Vec::new());
        let error = archive.file(Path::new("/a"), 0o644, Path::new("/no/such"));
        assert!(error.unwrap_err().to_string().contains("/no/such"));
    }
}
