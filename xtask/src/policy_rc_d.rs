//! Keeps Debian packages from starting their services while they are installed.
//!
//! vsftpd and tftpd-hpa start a server on the machine's own network as soon as
//! they are installed; the lab only wants the programs. Debian's way to say so is
//! a script, /usr/sbin/policy-rc.d, which exits with 101 for "not allowed".

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::say;

/// No service starts as long as this lives.
pub(crate) struct NoServices(Option<PathBuf>);

impl NoServices {
    /// Forbids services, unless the machine has a policy of its own: that one is
    /// its administrator's, and stays.
    pub(crate) fn forbid() -> Result<Self> {
        Self::forbid_by(Path::new("/usr/sbin/policy-rc.d"))
    }

    fn forbid_by(file: &Path) -> Result<Self> {
        let opened = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o755)
            .open(file);
        let mut script = match opened {
            Ok(script) => script,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                say::note(&format!(
                    "{} exists, so this machine decides itself which services a package starts",
                    file.display()
                ));
                return Ok(Self(None));
            }
            Err(error) => return Err(error).with_context(|| cannot_write(file)),
        };
        let guard = Self(Some(file.to_owned()));
        script
            .write_all(policy(std::process::id()).as_bytes())
            .with_context(|| cannot_write(file))?;
        Ok(guard)
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(file) = self.0.take()
            && let Err(error) = fs::remove_file(&file)
        {
            say::error(&format!("cannot remove {}: {error}", file.display()));
        }
    }
}

/// The script forbids only while the process that wrote it is there, and removes
/// itself afterwards: an interrupted xtask doesn't run its destructors.
fn policy(process: u32) -> String {
    format!(
        "#!/bin/sh\n\
         # From conntrack-agent's `cargo xtask setup`: packages don't start services while it runs.\n\
         if [ -d /proc/{process} ]; then exit 101; fi\n\
         rm -f \"$0\"\n\
         exit 0\n"
    )
}

fn cannot_write(file: &Path) -> String {
    format!("cannot write {}", file.display())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn forbids_while_it_lives_and_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("policy-rc.d");

        let guard = NoServices::forbid_by(&file).unwrap();
        let status = Command::new("/bin/sh").arg(&file).status().unwrap();
        assert_eq!(status.code(), Some(101));

        drop(guard);
        assert!(!file.exists());
    }

    #[test]
    fn the_machines_own_policy_stays() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("policy-rc.d");
        fs::write(&file, "its own").unwrap();

        drop(NoServices::forbid_by(&file).unwrap());

        assert_eq!(fs::read_to_string(&file).unwrap(), "its own");
    }

    #[test]
    fn a_forgotten_one_allows_services_and_removes_itself() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("policy-rc.d");
        // Above the kernel's largest process id.
        fs::write(&file, policy(u32::MAX)).unwrap();

        let status = Command::new("/bin/sh").arg(&file).status().unwrap();

        assert!(status.success());
        assert!(!file.exists());
    }
}
