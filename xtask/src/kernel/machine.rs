//! What this machine can emulate, and how fast.

use std::fs::OpenOptions;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};

/// How QEMU runs the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accelerator {
    /// On the processor.
    Kvm,
    /// By translating every instruction: five to twenty times as slow.
    Emulation,
}

impl Accelerator {
    /// The fastest that this machine seems to have. A machine inside another may
    /// have a /dev/kvm on which nothing runs: starting the guest tells.
    pub(super) fn find() -> Self {
        let kvm = OpenOptions::new().read(true).write(true).open("/dev/kvm");
        if kvm.is_ok() {
            Self::Kvm
        } else {
            Self::Emulation
        }
    }

    /// What QEMU is told.
    pub(super) const fn arguments(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Self::Emulation => ["-accel", "tcg", "-cpu", "max"],
        }
    }

    /// How long the kernel and the guest's init may take until they are heard of.
    pub(super) const fn boot(self) -> Duration {
        match self {
            Self::Kvm => Duration::from_secs(45),
            Self::Emulation => Duration::from_mins(10),
        }
    }

    /// How long the whole suite may take.
    pub(super) const fn suite(self) -> Duration {
        match self {
            Self::Kvm => Duration::from_mins(30),
            Self::Emulation => Duration::from_hours(3),
        }
    }
}

/// Debian's kernels for virtual machines are for one architecture that the guest's
/// programs, which are this machine's own, must be of too.
pub(super) fn require() -> Result<()> {
    if !cfg!(target_arch = "x86_64") {
        bail!("`cargo xtask test --kernel` runs this machine's programs under x86-64 kernels");
    }
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!(
            "`cargo xtask test --kernel` fetches Debian's kernels with apt-get, which is missing"
        );
    }
    Ok(())
}
