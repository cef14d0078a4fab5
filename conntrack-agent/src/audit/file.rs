//! Writes the trail as a file of lines, and rotates it when it is full: `audit.jsonl`, then
//! `audit.jsonl.1` and so on, the latest first.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

/// The name of the file in the state folder.
pub(super) const NAME: &str = "audit.jsonl";

/// A file of lines, with its rotated predecessors.
#[derive(Debug)]
pub(super) struct Lines {
    path: PathBuf,
    file: File,
    /// The maximum size of the file, in bytes.
    most: u64,
    /// The number of rotated files that are kept; at least 1.
    keep: u32,
}

impl Lines {
    /// Opens the file at `path`, or creates it.
    pub(super) fn open(path: &Path, most: u64, keep: u32) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            file: open(path)?,
            most,
            keep: keep.max(1),
        })
    }

    /// Appends a line, given without its newline, completely or not at all.
    pub(super) fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if !self.is_in_place() {
            self.file = open(&self.path)?;
        }
        let mut length = self.file.metadata()?.len();
        // A line that a power failure cut off is ended, so that the next one is intact.
        let end_of_torn = if self.ends_with_a_line(length)? {
            ""
        } else {
            "\n"
        };
        let mut text = [end_of_torn.as_bytes(), line, b"\n"].concat();
        if length > 0 && length + text.len() as u64 > self.most {
            self.rotate()?;
            text.drain(..end_of_torn.len());
            length = 0;
        }
        self.file.write_all(&text).inspect_err(|_| {
            // Removes the part that was written. If that fails too, the next write ends the
            // line first.
            drop(self.file.set_len(length));
        })
    }

    /// Returns whether the open file still has its name: an operator may have moved or
    /// removed it.
    fn is_in_place(&self) -> bool {
        let named = fs::symlink_metadata(&self.path);
        let held = self.file.metadata();
        named.is_ok_and(|named| {
            held.is_ok_and(|held| (named.dev(), named.ino()) == (held.dev(), held.ino()))
        })
    }

    /// Returns whether the file is empty or ends with a newline.
    fn ends_with_a_line(&self, length: u64) -> io::Result<bool> {
        let Some(last) = length.checked_sub(1) else {
            return Ok(true);
        };
        let mut end = [0];
        self.file.read_exact_at(&mut end, last)?;
        Ok(end == *b"\n")
    }

    /// Renames the files up to the first free number, and creates a new one. Only the file
    /// with the last number can be lost.
    fn rotate(&mut self) -> io::Result<()> {
        let is_free = |number: &u32| fs::symlink_metadata(self.kept(*number)).is_err();
        let free = (1..self.keep).find(is_free).unwrap_or(self.keep);
        for number in (1..free).rev() {
            fs::rename(self.kept(number), self.kept(number + 1))?;
        }
        fs::rename(&self.path, self.kept(1))?;
        self.file = open(&self.path)?;
        Ok(())
    }

    /// Returns the path of a rotated file.
    fn kept(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }
}

/// Opens a regular file for appending, readable only by its owner.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    if !file.metadata()?.is_file() {
        let what = "it is not a regular file";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    // An existing file may have another mode.
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

#[cfg(test)]
impl Lines {
    /// Returns a file on a full disk.
    pub(super) fn full() -> Self {
        let path = PathBuf::from("/dev/full");
        let file = OpenOptions::new().append(true).open(&path).unwrap();
        Self {
            path,
            file,
            most: 1 << 20,
            keep: 1,
        }
    }

    /// Makes the next line go to another path.
    pub(super) fn move_to(&mut self, path: &Path) {
        self.path = path.to_owned();
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, env, process::Command};

    use tempfile::TempDir;

    use super::*;

    /// What is in each file.
    fn files(root: &TempDir) -> BTreeMap<String, String> {
        let entries = fs::read_dir(root.path()).unwrap().map(Result::unwrap);
        entries
            .map(|entry| {
                let name = entry.file_name().into_string().unwrap();
                (name, fs::read_to_string(entry.path()).unwrap())
            })
            .collect()
    }

    fn expected<const N: usize>(files: [(&str, &str); N]) -> BTreeMap<String, String> {
        files.map(|(name, text)| (name.into(), text.into())).into()
    }

    fn lines(root: &TempDir, keep: u32) -> Lines {
        Lines::open(&root.path().join("log"), 10, keep).unwrap()
    }

    #[test]
    fn a_full_file_is_renamed_and_the_oldest_goes() {
        let root = tempfile::tempdir().unwrap();
        let mut lines = lines(&root, 2);
        for line in ["1234", "2234", "3234", "4234"] {
            lines.write(line.as_bytes()).unwrap();
        }
        let two = [("log", "3234\n4234\n"), ("log.1", "1234\n2234\n")];
        assert_eq!(files(&root), expected(two));
        lines.write(b"5234567").unwrap();
        lines.write(b"6234").unwrap();
        let three = [
            ("log", "6234\n"),
            ("log.1", "5234567\n"),
            ("log.2", "3234\n4234\n"),
        ];
        assert_eq!(files(&root), expected(three));
    }

    #[test]
    fn a_line_longer_than_a_file_has_one_of_its_own() {
        let root = tempfile::tempdir().unwrap();
        let mut lines = lines(&root, 3);
        lines.write(b"a line that is long").unwrap();
        lines.write(b"b").unwrap();
        let two = [("log", "b\n"), ("log.1", "a line that is long\n")];
        assert_eq!(files(&root), expected(two));
    }

    #[test]
    fn a_rotation_that_fails_loses_nothing() {
        let root = tempfile::tempdir().unwrap();
        let mut lines = lines(&root, 3);
        for line in ["12345678", "22345678", "32345678"] {
            lines.write(line.as_bytes()).unwrap();
        }
        let before = files(&root);
        // A folder takes the place of no file.
        let obstacle = root.path().join("log.3");
        fs::create_dir(&obstacle).unwrap();
        for _ in 0..5 {
            lines.write(b"42345678").unwrap_err();
        }
        fs::remove_dir(&obstacle).unwrap();
        assert_eq!(files(&root), before);
        lines.write(b"42345678").unwrap();
        assert_eq!(files(&root).len(), 4);
        assert_eq!(files(&root)["log.3"], "12345678\n");
    }

    #[test]
    fn an_existing_file_goes_on_and_is_its_owners_alone() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("log");
        lines(&root, 1).write(b"1").unwrap();
        let mode = || fs::metadata(&path).unwrap().mode() & 0o777;
        assert_eq!(mode(), 0o600);
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        lines(&root, 1).write(b"2").unwrap();
        assert_eq!(mode(), 0o600);
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n2\n");
    }

    #[test]
    fn a_torn_line_ends_before_the_next_begins() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("log"), "{\"t").unwrap();
        let mut lines = lines(&root, 1);
        lines.write(b"1").unwrap();
        lines.write(b"2").unwrap();
        assert_eq!(files(&root)["log"], "{\"t\n1\n2\n");
    }

    #[test]
    fn a_file_that_was_moved_away_is_begun_again() {
        let root = tempfile::tempdir().unwrap();
        let mut lines = lines(&root, 1);
        lines.write(b"1").unwrap();
        fs::rename(root.path().join("log"), root.path().join("moved")).unwrap();
        lines.write(b"2").unwrap();
        assert_eq!(files(&root), expected([("log", "2\n"), ("moved", "1\n")]));
        fs::remove_file(root.path().join("log")).unwrap();
        lines.write(b"3").unwrap();
        assert_eq!(files(&root)["log"], "3\n");
    }

    #[test]
    fn only_a_regular_file_is_written() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("log");
        let refusal = || Lines::open(&path, 10, 1).unwrap_err();
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR).unwrap();
        refusal();
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(root.path().join("other"), &path).unwrap();
        refusal();
        assert!(!root.path().join("other").exists());
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        refusal();
        fs::remove_dir(&path).unwrap();
        Lines::open(&path, 10, 1).unwrap();
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let error = Lines::full().write(b"1").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }

    /// Runs itself as a process that may write files of 512 bytes, so that the
    /// last line has room for a part of it.
    #[test]
    fn a_line_that_there_is_no_room_for_is_taken_back() {
        const FILE: &str = "CONNTRACK_TEST_LINES";
        const THIS: &str = "audit::file::tests::a_line_that_there_is_no_room_for_is_taken_back";
        if let Some(path) = env::var_os(FILE) {
            let mut lines = Lines::open(Path::new(&path), 1 << 20, 1).unwrap();
            while lines.write(&[b'x'; 99]).is_ok() {}
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("log");
        let child = Command::new("sh")
            .args([
                "-c",
                "trap '' XFSZ; ulimit -f 1; exec \"$0\" --exact \"$1\"",
            ])
            .arg(env::current_exe().unwrap())
            .arg(THIS)
            .env(FILE, &path)
            .output()
            .unwrap();
        assert!(child.status.success(), "{child:?}");
        let text = fs::read_to_string(&path).unwrap();
        // In bash the unit is 1024 bytes.
        assert!([500, 1000].contains(&text.len()), "{}", text.len());
        assert!(text.lines().all(|line| line.len() == 99), "{text}");
        Lines::open(&path, 1 << 20, 1).unwrap().write(b"1").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), text + "1\n");
    }
}
