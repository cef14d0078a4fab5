//! The eBPF object and ABI version that this build of the agent brings.

use std::borrow::Cow;

use aya::include_bytes_aligned;
use conntrack_ebpf::abi;
use sha2::{Digest as _, Sha256};

static CLASSIFIER: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/classifier"));

/// An eBPF object, and the version of the ABI that it is written for.
///
/// The agent has one, that which it was built with. A value all the same: what
/// happens when another release of the agent follows can be shown by another
/// value, without another release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    abi: u32,
    object: Cow<'static, [u8]>,
}

impl Build {
    /// That of this build.
    #[must_use]
    pub const fn built_in() -> Self {
        Self {
            abi: abi::VERSION,
            object: Cow::Borrowed(CLASSIFIER),
        }
    }

    /// Another one, with the bytes of an ELF file.
    #[must_use]
    pub const fn new(abi: u32, object: Vec<u8>) -> Self {
        Self {
            abi,
            object: Cow::Owned(object),
        }
    }

    /// The version of its ABI.
    #[must_use]
    pub const fn abi(&self) -> u32 {
        self.abi
    }

    /// The bytes of its object.
    #[must_use]
    pub fn object(&self) -> &[u8] {
        &self.object
    }

    /// What tells its program from any other's: SHA-256 of the object.
    pub(super) fn digest(&self) -> [u8; 32] {
        Sha256::digest(&self.object).into()
    }
}
