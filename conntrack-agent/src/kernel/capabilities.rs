//! What the agent may do.

use rustix::thread::{CapabilitySet, capabilities};

/// A capability that the agent lacks, and what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Its name in capabilities(7).
    pub name: &'static str,
    /// What can't be done without.
    pub needed_for: &'static str,
}

/// The capabilities that the agent needs and the calling thread doesn't have.
///
/// # Errors
/// What capget(2) says.
pub fn missing() -> std::io::Result<Vec<Missing>> {
    let effective = capabilities(None)?.effective;
    let needed = [
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
    Ok(needed
        .into_iter()
        .filter(|(capability, ..)| !effective.contains(*capability))
        .map(|(_, name, needed_for)| Missing { name, needed_for })
        .collect())
}
