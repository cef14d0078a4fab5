//! The paths of /proc and /sys that checks read, which tests replace.

use std::{io, path::PathBuf};

use crate::input::read_text;

/// No value of a parameter or a sysctl is longer, in bytes.
const LONGEST: u64 = 4096;

/// Where they are.
pub(super) struct SysPaths {
    /// procfs. What is below `sys/net` and `thread-self/net` is that of the calling
    /// thread's network namespace (`net_ctl_header_lookup` and `is_seen`,
    /// `net/sysctl_net.c`; `get_proc_task_net`, `fs/proc/proc_net.c`).
    pub(super) proc: PathBuf,
    /// sysfs.
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
    /// A sysctl's value.
    pub(super) fn sysctl(&self, name: &str) -> io::Result<String> {
        let path = self.proc.join("sys").join(name);
        Ok(read_text(&path, LONGEST)?.trim().to_owned())
    }

    /// A sysctl that is a number.
    pub(super) fn number(&self, name: &str) -> io::Result<u64> {
        let value = self.sysctl(name)?;
        value.parse().map_err(io::Error::other)
    }

    /// A parameter of a module.
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
        let roots = SysPaths {
            proc: folder.path().join("proc"),
            sys: folder.path().join("sys"),
        };
        (roots, folder)
    }
}
