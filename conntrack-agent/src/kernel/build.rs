//! The eBPF object and ABI version that this build of the agent brings.

use std::borrow::Cow;

use aya::include_bytes_aligned;
use conntrack_ebpf::abi;
use sha2::{Digest as _, Sha256};

static CLASSIFIER: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/classifier"));

/// An eBPF object, and the version of the ABI that it is written for.
///
/// The agent has one build, the one that it was compiled with. It is a value
/// all the same, so that tests can show with another value what happens when
/// another release of the agent follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    abi: u32,
    object: Cow<'static, [u8]>,
}

impl Build {
    /// Returns the build that this agent was compiled with.
    #[must_use]
    pub const fn built_in() -> Self {
        Self {
            abi: abi::VERSION,
            object: Cow::Borrowed(CLASSIFIER),
        }
    }

    /// Makes a build from an ABI version and the bytes of an ELF file.
    #[must_use]
    pub const fn new(abi: u32, object: Vec<u8>) -> Self {
        Self {
            abi,
            object: Cow::Owned(object),
        }
    }

    /// Returns the version of the build's ABI.
    #[must_use]
    pub const fn abi(&self) -> u32 {
        self.abi
    }

    /// Returns the bytes of the build's object.
    #[must_use]
    pub fn object(&self) -> &[u8] {
        &self.object
    }

    /// Returns the digest that identifies the build's program: SHA-256 of the
    /// object.
    pub(super) fn digest(&self) -> [u8; 32] {
        Sha256::digest(&self.object).into()
    }
}
