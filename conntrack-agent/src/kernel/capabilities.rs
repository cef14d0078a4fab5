//! Checks and reduces the capabilities of the process (capabilities(7)).

use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs,
};

/// A capability that the agent lacks, and what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissingCapability {
    /// The capability's name in capabilities(7).
    pub name: &'static str,
    /// The work that can't be done without it.
    pub needed_for: &'static str,
}

/// Why the agent can't do its work with the capabilities that it has.
#[derive(Debug, thiserror::Error)]
pub enum CapabilityError {
    /// The process lacks some of them.
    #[error("the agent lacks {}", list(.0))]
    Missing(Vec<MissingCapability>),
    /// They could not be read.
    #[error("the agent's capabilities cannot be read")]
    Unknown(#[source] io::Error),
}

fn list(missing: &[MissingCapability]) -> String {
    let needs = missing
        .iter()
        .map(|missing| format!("{} (to {})", missing.name, missing.needed_for));
    needs.collect::<Vec<_>>().join(" and ")
}

/// All that the agent needs once it has its folders, files and sockets.
const NEEDED: [(CapabilitySet, &str, &str); 3] = [
    (CapabilitySet::BPF, "CAP_BPF", "load eBPF programs and maps"),
    (
        CapabilitySet::NET_ADMIN,
        "CAP_NET_ADMIN",
        "attach programs to interfaces and write nftables tables",
    ),
    (
        CapabilitySet::SYS_ADMIN,
        "CAP_SYS_ADMIN",
        "enter network namespaces",
    ),
];

/// Returns the capabilities that the agent needs and the calling thread doesn't
/// have.
///
/// # Errors
/// The error of capget(2).
pub fn missing() -> io::Result<Vec<MissingCapability>> {
    let effective = capabilities(None)?.effective;
    Ok(NEEDED
        .into_iter()
        .filter(|(capability, ..)| !effective.contains(*capability))
        .map(|(_, name, needed_for)| MissingCapability { name, needed_for })
        .collect())
}

/// Checks that the calling thread has every capability that the agent needs.
///
/// # Errors
/// [`CapabilityError`] if not.
pub fn require_capabilities() -> Result<(), CapabilityError> {
    let missing = missing().map_err(CapabilityError::Unknown)?;
    if missing.is_empty() {
        Ok(())
    } else {
        Err(CapabilityError::Missing(missing))
    }
}

/// Gives up, for good, every capability of the calling thread that is not
/// needed. Threads and processes that it starts from now on have no more than it
/// has. Those that it has started keep theirs (capset(2) acts on one thread), so
/// there must be none.
///
/// nft gets the same three capabilities at its execution: for root, those in the
/// bounding set, and no more than its parent had (capabilities(7);
/// `PR_SET_NO_NEW_PRIVS`, `cap_bprm_creds_from_file` in security/commoncap.c).
///
/// Returns whether the bounding set was reduced as well, which takes
/// `CAP_SETPCAP`. Even where it was not, no new privileges can be gained.
///
/// # Errors
/// The error of prctl(2) or capset(2).
pub fn reduce() -> io::Result<bool> {
    let kept = NEEDED
        .into_iter()
        .fold(CapabilitySet::empty(), |all, (one, ..)| all | one);
    set_no_new_privs(true)?;
    clear_ambient_capability_set()?;
    let mut is_bounded = true;
    // A set has 64 bits; for a bit that the kernel doesn't know, it says EINVAL.
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match capability_is_in_bounding_set(capability) {
            Ok(true) if !kept.contains(capability) => {}
            Ok(_) => continue,
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            Err(rustix::io::Errno::PERM) => is_bounded = false,
            Err(error) => return Err(error.into()),
        }
    }
    let only = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, only)?;
    Ok(is_bounded)
}
