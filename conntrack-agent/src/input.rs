//! Reads files named by users, with a size limit, and turns errors into a sentence.

use std::{
    error::Error,
    fmt::Write as _,
    fs::{File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use rustix::fs::OFlags;

/// Reads the text of a regular file of at most `limit` bytes.
///
/// # Errors
/// Returns the system's error, and `InvalidInput` or `InvalidData` if the file is not a
/// regular text file within the limit.
pub(crate) fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    read_bounded(open_regular(path)?, limit)
}

/// Opens a regular file for reading. Opening a FIFO would wait, and a device may never
/// end, so neither is accepted.
///
/// # Errors
/// Returns the system's error, and `InvalidInput` if it is no regular file.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    if !file.metadata()?.is_file() {
        let what = "it is not a regular file";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    Ok(file)
}

/// Reads the text of an open file of at most `limit` bytes.
///
/// # Errors
/// Returns the system's error, and `InvalidData` if there is more, or it is not text.
pub(crate) fn read_bounded(file: File, limit: u64) -> io::Result<String> {
    let mut text = String::new();
    file.take(limit + 1).read_to_string(&mut text)?;
    if text.len() as u64 > limit {
        let what = format!("it is larger than {limit} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    Ok(text)
}

/// Formats an error and its causes in one line, each cause once.
pub(crate) fn sentence(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            // Writing to a string can't fail.
            let _ = write!(text, ": {said}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_a_regular_file_of_bounded_size_is_read() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        fs::write(&path, "12345").unwrap();
        assert_eq!(read_text(&path, 5).unwrap(), "12345");
        let refusal = |path: &Path, limit| read_text(path, limit).unwrap_err().to_string();
        assert!(refusal(&path, 4).contains("larger than 4 bytes"));
        assert!(refusal(root.path(), 5).contains("regular file"));
        assert!(refusal(Path::new("/dev/zero"), 5).contains("regular file"));
        let fifo = root.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).unwrap();
        assert!(refusal(&fifo, 5).contains("regular file"));
        fs::write(&path, [0xff]).unwrap();
        assert!(refusal(&path, 5).contains("UTF-8"));
    }
}
