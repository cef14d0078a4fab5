//! What only root can do.

use anyhow::{Result, bail};

/// Whether xtask runs as root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Refuses to start a command that would fail half-way for want of root.
pub(crate) fn require_root(command: &str) -> Result<()> {
    if !is_root() {
        bail!(
            "`cargo xtask {command}` makes network namespaces and loads eBPF programs, so it \
             needs root; run\n  sudo -E env PATH=\"$PATH\" cargo xtask {command}"
        );
    }
    Ok(())
}
