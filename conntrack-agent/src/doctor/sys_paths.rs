//! The paths of /proc and /sys that checks read, which tests replace.

use std::{io, path::PathBuf};

use crate::input::read_text;

/// The size limit of a parameter's or sysctl's value, in bytes.
const LONGEST: u64 = 4096;

/// The paths of procfs and sysfs.
pub(super) struct SysPaths {
    /// The path of procfs. The files below `sys/net` and `thread-self/net` are those of
    /// the calling thread's network namespace (`net_ctl_header_lookup` and `is_seen`,
    /// `net/sysctl_net.c`; `get_proc_task_net`, `fs/proc/proc_net.c`).
    pub(super) proc: PathBuf,
    /// The path of sysfs.
    pub(super) sys: PathBuf,
}

impl Default for SysPaths {
    fn default() -> Self {
        Self {
            proc: "/proc".into(),
            sys: "/sys".into(),
        }
    }
}

impl SysPaths {
    /// Returns the value of a sysctl.
    pub(super) fn sysctl(&self, name: &str) -> io::Result<String> {
        let path = self.proc.join("sys").join(name);
        Ok(read_text(&path, LONGEST)?.trim().to_owned())
    }

    /// Returns the value of a numeric sysctl.
    pub(super) fn number(&self, name: &str) -> io::Result<u64> {
        let value = self.sysctl(name)?;
        value.parse().map_err(io::Error::other)
    }

    /// Returns the value of a module parameter.
    pub(super) fn parameter(&self, module: &str, name: &str) -> io::Result<String> {
        let folder = self.sys.join("module").join(module).join("parameters");
        let value = read_text(&folder.join(name), LONGEST)?;
        Ok(value.trim().to_owned())
    }
}

#[cfg(test)]
pub(super) mod testing {
    use std::fs;

    use tempfile::TempDir;

    use super::SysPaths;

    /// Roots with these files, `proc/…` and `sys/…`.
    pub(in crate::doctor) fn with(files: &[(&str, &str)]) -> (SysPaths, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let paths = SysPaths {
            proc: folder.path().join("proc"),
            sys: folder.path().join("sys"),
        };
        (paths, folder)
    }
}
