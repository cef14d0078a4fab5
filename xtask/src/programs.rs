//! Finding programs, whoever installed them.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Where administrators' programs are, which a user's PATH often leaves out.
const ADMINISTRATORS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// The first executable file of that name on PATH, or in an `sbin` directory.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    find_in(
        name,
        std::env::split_paths(&path).chain(ADMINISTRATORS.map(PathBuf::from)),
    )
}

fn find_in(name: &str, directories: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    directories
        // An empty entry in PATH means the current directory, which is no place
        // to take a program from.
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(name))
        .find(|file| is_executable(file))
}

/// Whether this is a file with an execute bit.
pub(crate) fn is_executable(file: &Path) -> bool {
    file.metadata()
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_first_executable_wins_and_plain_files_do_not_count() {
        let plain = tempfile::tempdir().unwrap();
        let program = tempfile::tempdir().unwrap();
        fs::write(plain.path().join("nft"), "").unwrap();
        let file = program.path().join("nft");
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();

        let places = [plain.path(), program.path()].map(PathBuf::from);

        assert_eq!(find_in("nft", places.clone().into_iter()), Some(file));
        assert_eq!(find_in("tftp", places.into_iter()), None);
    }
}
