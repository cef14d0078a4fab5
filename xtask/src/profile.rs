//! cargo's profiles for what runs on the host.

/// How cargo builds what runs on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Soon built, and its arithmetic is checked: for tests and the demo.
    Dev,
    /// What is installed, and what benchmarks measure.
    Release,
}

impl Profile {
    /// The name of the profile to cargo.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Release => "release",
        }
    }

    /// Where cargo puts it, below its target directory.
    pub(crate) const fn folder(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Release => "release",
        }
    }
}
