//! Reads the agent's configuration file: TOML, in which every key has a default.

mod api;
mod carrier;
mod file;
mod interfaces;
#[cfg(test)]
mod tests;
mod xdp;

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use file::ConfigFile;

use crate::{
    access::Access,
    audit::AuditSettings,
    engine::Limits,
    input::read_text,
    kernel::{MarkBits, RouterNamespaces},
    model::Helper,
    sources::listed,
    telemetry::LogSettings,
};

pub use api::{ApiConfig, ApiLimits, MetricsAddress, Tcp};
pub use carrier::{CarrierChoice, Nat};
pub use interfaces::Interfaces;
pub use xdp::{XdpEntry, XdpInterfaces};

/// The path of the configuration if no `--config` is given.
pub const DEFAULT_PATH: &str = "/etc/conntrack-agent/agent.toml";

/// The size limit of a configuration file, in bytes.
const MAX_SIZE: u64 = 1 << 20;

/// The agent's configuration, checked. All paths can be moved, so that two agents on one
/// host need not share any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The folder for state that must survive a restart of the host; mode 0700.
    pub state_dir: PathBuf,
    /// The folder for state that must not: the lock and the socket.
    pub runtime_dir: PathBuf,
    /// The folder inside a bpffs in which maps, programs and links are pinned. If its
    /// parent is not a bpffs, the agent mounts one there.
    pub bpffs_dir: PathBuf,
    /// The folder of named network namespaces.
    pub netns_dir: PathBuf,
    /// The prefixes of the names of a router's namespaces, in front of its id.
    pub namespace_prefixes: Vec<String>,
    /// The interfaces in these namespaces that are classified. The loopback never is.
    pub interfaces: Interfaces,
    /// The way programs are attached to interfaces.
    pub attach: Attach,
    /// The classified interfaces that get an XDP program too.
    pub xdp: XdpInterfaces,
    /// The nft program: a path, or a name that is searched in `PATH`.
    pub nft: PathBuf,
    /// The carrier of the helper mark into the namespace's prerouting chain.
    pub carrier: CarrierChoice,
    /// The bits of `skb->mark` that are the agent's: one run of bits. Where they carry
    /// the helper mark, the prerouting chain clears them again.
    pub mark_bits: MarkBits,
    /// The treatment of the datapath when the agent is told to end.
    pub on_stop: OnStop,
    /// The seconds between two full passes, for changes that no event reported.
    pub full_pass_seconds: u64,
    /// Whether each new helper connection is looked up in conntrack, to check that it has
    /// its helper.
    pub follow_connections: bool,
    /// The limits on rules and routers.
    pub limits: Limits,
    /// The helpers that rules may use.
    pub allowed_helpers: Vec<Helper>,
    /// The API's socket and its limits.
    pub api: ApiConfig,
    /// The level and the format of the log.
    pub log: LogSettings,
    /// The destination and the limits of the audit trail.
    pub audit: AuditSettings,
    /// The grants of the API, beside root.
    pub access: Access,
    /// The API's TCP listener, beside the Unix socket; by default there is none.
    pub tcp: Option<Tcp>,
    /// The address of metrics, beside the API; by default there is none.
    pub metrics: Option<MetricsAddress>,
}

/// The way programs are attached to interfaces.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Attach {
    /// Uses tcx where the kernel has it, and tc filters otherwise.
    #[default]
    Auto,
    /// Uses tcx; a kernel without it is refused.
    Tcx,
    /// Uses tc filters, as on kernels before 6.6.
    Clsact,
}

/// The treatment of the datapath when the agent is told to end. A killed agent leaves the
/// datapath in any case.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum OnStop {
    /// The datapath goes on working.
    #[default]
    Keep,
    /// The datapath is removed; rules, audit trail and the agent's id stay, and the next
    /// start makes it again.
    Cleanup,
}

impl Default for Config {
    fn default() -> Self {
        ConfigFile::default().checked().0
    }
}

/// The error when a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("configuration {} cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file is not TOML, or has a key or a value that is not allowed.
    #[error("configuration {} is refused: {source}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// The parser's error, with its place.
        source: Box<toml::de::Error>,
    },
    /// A value is out of its range.
    #[error("configuration {} is refused:{}", path.display(), listed(faults))]
    Faults {
        /// The file.
        path: PathBuf,
        /// The faults: each names the key, what is wrong, and what is allowed.
        faults: Vec<String>,
    },
}

impl Config {
    /// Reads the file at `path`; without a path, the file at [`DEFAULT_PATH`], or the
    /// defaults if that doesn't exist.
    ///
    /// # Errors
    /// Returns [`ConfigError`] if there is a file and any part of it is wrong.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let file = path.unwrap_or(Path::new(DEFAULT_PATH));
        let text = match read_text(file, MAX_SIZE) {
            Ok(text) => text,
            Err(error) if path.is_none() && error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(source) => {
                return Err(ConfigError::Read {
                    path: file.to_owned(),
                    source,
                });
            }
        };
        Self::parse(file, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let file: ConfigFile = toml::from_str(text).map_err(|source| ConfigError::Parse {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        let (config, faults) = file.checked();
        if faults.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError::Faults {
                path: path.to_owned(),
                faults,
            })
        }
    }

    /// Returns the mount point of the bpffs: the parent of `bpffs_dir`.
    #[must_use]
    pub fn bpffs_root(&self) -> &Path {
        // In a checked configuration there is always a parent.
        self.bpffs_dir.parent().unwrap_or(Path::new("/"))
    }

    /// Returns the folder and the names of the routers' namespaces.
    #[must_use]
    pub fn router_namespaces(&self) -> RouterNamespaces {
        RouterNamespaces::new(&self.netns_dir, self.namespace_prefixes.clone())
    }

    /// Returns the time between two full passes.
    #[must_use]
    pub const fn full_pass(&self) -> Duration {
        Duration::from_secs(self.full_pass_seconds)
    }
}
