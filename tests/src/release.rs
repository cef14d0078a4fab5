//! Other releases of the agent than the one under test.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use conntrack_agent::kernel::Build;
use sha2::{Digest as _, Sha256};

use crate::lab::Lab;

/// The variable that says which ABI version a release has.
pub const ABI: &str = "ANOTHER_RELEASE_ABI";
/// The variable that says in which file its eBPF object is.
pub const OBJECT: &str = "ANOTHER_RELEASE_OBJECT";

/// A release: the same agent with another edition.
#[derive(Clone, Debug)]
pub struct Release {
    program: PathBuf,
    abi: u32,
    object: PathBuf,
}

impl Release {
    /// The release with this ABI version and a program that was rebuilt so often:
    /// it does the same and is another. `program` is where cargo has put
    /// `another_release`, which only a test program is told.
    #[must_use]
    pub fn new(lab: &Lab, program: &str, abi: u32, build: u32) -> Self {
        // What follows an ELF file's last section is no part of it.
        let built_in = Build::built_in();
        let bytes = [built_in.object(), &build.to_be_bytes()].concat();
        Self::of_object(lab, program, abi, &bytes)
    }

    /// The release with this ABI version and this ELF file as its eBPF object.
    #[must_use]
    pub fn of_object(lab: &Lab, program: &str, abi: u32, bytes: &[u8]) -> Self {
        let name = format!("object-{:x}", Sha256::digest(bytes));
        let object = lab.dir().path().join(name);
        fs::write(&object, bytes).expect("an eBPF object");
        Self {
            program: program.into(),
            abi,
            object,
        }
    }

    /// Its ABI version.
    #[must_use]
    pub const fn abi(&self) -> u32 {
        self.abi
    }

    /// This release's program in the place of the one under test.
    #[must_use]
    pub fn instead_of(&self, command: &Command) -> Command {
        let mut ours = Command::new(&self.program);
        ours.args(command.get_args())
            .env(ABI, self.abi.to_string())
            .env(OBJECT, &self.object);
        ours
    }
}
