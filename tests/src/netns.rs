//! A network namespace that is a file in its lab's directory.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::thread;

use nix::sched::{CloneFlags, unshare};
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::lab::LabDir;

/// A handle on one namespace. The namespace lives as long as its lab.
#[derive(Clone)]
pub struct Netns {
    path: PathBuf,
    lab: Arc<LabDir>,
}

impl Netns {
    /// Makes the namespace `name`, with lo up and DAD off.
    pub(crate) fn create(lab: &Arc<LabDir>, name: &str) -> Self {
        let path = lab.netns_dir().join(name);
        File::create_new(&path).expect("a file to hold the namespace");
        in_fresh_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a new network namespace");
            mount_bind("/proc/thread-self/ns/net", &path).expect("the namespace on its file");
        });
        let netns = Self {
            path,
            lab: Arc::clone(lab),
        };
        // Before any interface exists: `default` is what new ones start with.
        netns.sysctl("ipv6/conf/default/accept_dad", "0");
        netns.ip("link set lo up");
        netns
    }

    /// Takes its name away, as `ip netns delete` does: it is gone when nobody
    /// else holds it.
    pub fn delete(&self) {
        unmount(&self.path, UnmountFlags::DETACH).expect("the namespace off its file");
        std::fs::remove_file(&self.path).expect("its file removed");
    }

    /// The file that is the namespace.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its name: that of its file.
    #[must_use]
    pub fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// The directory of the lab that it belongs to.
    #[must_use]
    pub fn lab(&self) -> &Arc<LabDir> {
        &self.lab
    }

    /// Runs `work` in the namespace: sockets that it opens and processes that
    /// it starts stay there.
    ///
    /// In a thread of its own, because a thread's namespace is a property of
    /// the thread and this one's must not change.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        in_fresh_thread(|| {
            let file = File::open(&self.path).expect("the namespace's file");
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .unwrap_or_else(|e| panic!("entering {}: {e}", self.path.display()));
            work()
        })
    }

    /// Writes a sysctl below `/proc/sys/net`.
    pub fn sysctl(&self, name: &str, value: &str) {
        let path = Path::new("/proc/sys/net").join(name);
        // procfs shows each thread the sysctls of the namespace that it is in.
        self.run(|| std::fs::write(&path, value))
            .unwrap_or_else(|e| panic!("{} = {value}: {e}", path.display()));
    }

    /// Runs iproute2's `ip` on several commands, one a line.
    pub fn ip(&self, commands: &str) {
        self.tool("ip", ["-batch", "-"], commands);
    }

    /// Loads a ruleset.
    pub fn nft(&self, ruleset: &str) {
        self.tool("nft", ["-f", "-"], ruleset);
    }

    /// The ruleset as text, without counters' values.
    #[must_use]
    pub fn ruleset(&self) -> String {
        self.tool("nft", ["--stateless", "list", "ruleset"], "")
    }

    /// Runs a program that must succeed, gives it `input` and returns its output.
    pub fn tool<A: AsRef<OsStr>>(
        &self,
        program: &str,
        arguments: impl IntoIterator<Item = A>,
        input: &str,
    ) -> String {
        let mut command = Command::new(program);
        command.args(arguments);
        let output = self.run(|| output(&mut command, input));
        assert!(
            output.status.success(),
            "in {}: {command:?}: {}\n{}{input}",
            self.name(),
            output.status,
            String::from_utf8_lossy(&output.stderr),
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

fn output(command: &mut Command, input: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    if let Some(mut stdin) = child.stdin.take() {
        // A program that fails before it has read its input says so itself.
        drop(stdin.write_all(input.as_bytes()));
    }
    child.wait_with_output().expect("its output")
}

fn in_fresh_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let result = thread::scope(|scope| scope.spawn(work).join());
    result.unwrap_or_else(|panic| resume_unwind(panic))
}
