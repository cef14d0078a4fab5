//! A lab: one directory that holds everything which one test makes.

use std::ffi::CString;
use std::fs::{self, Permissions, read_to_string};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

use crate::netns::Netns;

/// The lab. Cloning it gives another handle on the same lab.
#[derive(Clone)]
pub struct Lab {
    dir: Arc<LabDir>,
}

impl Lab {
    /// An empty lab with a bpffs of its own.
    #[must_use]
    pub fn new() -> Self {
        let lab = Self::without_bpffs();
        mount(
            "bpf",
            lab.dir.bpf_dir(),
            "bpf",
            MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
            None,
        )
        .expect("a bpffs (the lab needs root)");
        lab
    }

    /// An empty lab in which nobody has mounted a bpffs.
    #[must_use]
    pub fn without_bpffs() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("conntrack-lab-")
            .tempdir_in("/tmp")
            .expect("a directory for the lab");
        // Servers that drop root still have to reach their files in it.
        fs::set_permissions(dir.path(), Permissions::from_mode(0o711)).expect("its mode");
        for name in ["netns", "bpf", "state", "run"] {
            fs::create_dir(dir.path().join(name)).expect("the lab's folders");
        }
        Self {
            dir: Arc::new(LabDir { dir }),
        }
    }

    /// Makes a namespace.
    #[must_use]
    pub fn netns(&self, name: &str) -> Netns {
        Netns::create(&self.dir, name)
    }

    /// The lab's directory.
    #[must_use]
    pub fn dir(&self) -> &Arc<LabDir> {
        &self.dir
    }
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

/// The lab's directory, and the mounts below it.
///
/// Namespaces, servers and the agent hold it, so it is undone after the last
/// of them is gone, in whatever order a test drops them.
pub struct LabDir {
    dir: TempDir,
}

impl LabDir {
    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Where the namespaces are.
    #[must_use]
    pub fn netns_dir(&self) -> PathBuf {
        self.path().join("netns")
    }

    /// Where the lab's bpffs is mounted.
    #[must_use]
    pub fn bpf_dir(&self) -> PathBuf {
        self.path().join("bpf")
    }

    /// Where the agent pins.
    #[must_use]
    pub fn agent_bpffs_dir(&self) -> PathBuf {
        self.bpf_dir().join("agent")
    }

    /// The agent's durable files.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.path().join("state")
    }

    /// The agent's runtime files.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        self.path().join("run")
    }

    /// Where the agent listens.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.run_dir().join("agent.sock")
    }

    /// Makes a folder that servers without root can read.
    #[must_use]
    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(&path).expect("a folder");
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("its mode");
        path
    }

    /// Mounts an empty tmpfs of this many bytes over a folder of the lab.
    pub fn mount_tmpfs(&self, over: &Path, bytes: u64) {
        let size = CString::new(format!("size={bytes}")).expect("no NUL");
        mount("tmpfs", over, "tmpfs", MountFlags::empty(), &*size).expect("a tmpfs");
    }

    /// What is mounted below the lab, as the kernel has it.
    ///
    /// Asked, not remembered: the agent may have mounted something as well.
    #[must_use]
    pub fn mounts(&self) -> Vec<PathBuf> {
        let table = read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points = table.lines().filter_map(|line| line.split(' ').nth(4));
        points
            .map(PathBuf::from)
            .filter(|point| point.starts_with(self.path()))
            .collect()
    }
}

impl Drop for LabDir {
    fn drop(&mut self) {
        // The newest first: it may be mounted below, or over, an older one.
        for point in self.mounts().iter().rev() {
            if let Err(error) = unmount(point, UnmountFlags::DETACH) {
                eprintln!("lab: unmounting {}: {error}", point.display());
            }
        }
        // TempDir removes the directory now. It must not find a mount in it.
    }
}
