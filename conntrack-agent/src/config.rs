//! The agent's configuration file: TOML; every key has a default.

mod api;
mod carrier;
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

use crate::{
    api::access::{Access, AccessError, Grant},
    audit::AuditSettings,
    engine::Limits,
    input::read_text,
    kernel::{MarkBits, RouterNamespaces},
    model::{Helper, MAX_HELPER_MARK},
    port_table::Capacity,
    sources::listed,
    telemetry::LogSettings,
};

pub use api::{ApiConfig, ApiLimits, MetricsAddress, Tcp};
pub use carrier::{CarrierChoice, Nat};
pub use interfaces::Interfaces;
pub use xdp::{AttachXdp, XdpEntry, XdpInterfaces};

/// The path of the configuration if no `--config` is given.
pub const DEFAULT_PATH: &str = "/etc/conntrack-agent/agent.toml";

/// The size limit of a configuration file, in bytes.
const MAX_SIZE: u64 = 1 << 20;

/// The agent's configuration. All paths can be moved, so that two agents on one host need
/// not share any.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
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
    /// The interfaces in these namespaces that are classified: patterns of their names.
    /// The loopback never is.
    pub interfaces: Vec<String>,
    /// The way programs are attached to interfaces.
    pub attach: Attach,
    /// The classified interfaces that get an XDP program too; the first entry that
    /// matches an interface's name counts.
    #[serde(rename = "interface")]
    pub xdp: Vec<XdpEntry>,
    /// The nft program: a path, or a name that is searched in `PATH`.
    pub nft: PathBuf,
    /// The carrier of the helper mark into the namespace's prerouting chain.
    pub carrier: CarrierChoice,
    /// The bits of `skb->mark` that are the agent's: one run of bits. Where they carry
    /// the helper mark, the prerouting chain clears them again.
    pub mark_mask: u32,
    /// The treatment of the datapath when the agent is told to end.
    pub on_stop: OnStop,
    /// The seconds between two full passes, for changes that no event reported.
    pub full_pass_seconds: u64,
    /// Whether each new helper connection is looked up in conntrack, to check that it has
    /// its helper.
    pub follow_connections: bool,
    /// The limits on rules and routers.
    pub limits: Limits,
    /// The helpers that rules may use, by their names in rules.
    pub allowed_helpers: Vec<String>,
    /// The API's socket and its limits.
    pub api: ApiConfig,
    /// What is logged, and how.
    pub log: LogSettings,
    /// Where the audit trail goes, and how much of it there may be.
    pub audit: AuditSettings,
    /// Who may use the API, beside root.
    #[serde(rename = "grant")]
    pub grants: Vec<Grant>,
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
        Self {
            state_dir: "/var/lib/conntrack-agent".into(),
            runtime_dir: "/run/conntrack-agent".into(),
            bpffs_dir: "/sys/fs/bpf/conntrack-agent".into(),
            netns_dir: "/run/netns".into(),
            namespace_prefixes: vec!["qrouter-".into(), "snat-".into()],
            interfaces: vec!["*".into()],
            attach: Attach::default(),
            xdp: Vec::new(),
            nft: "nft".into(),
            carrier: CarrierChoice::default(),
            mark_mask: 0xff00_0000,
            on_stop: OnStop::default(),
            full_pass_seconds: 600,
            follow_connections: true,
            limits: Limits::default(),
            allowed_helpers: Helper::all()
                .map(|helper| helper.name().to_owned())
                .collect(),
            api: ApiConfig::default(),
            log: LogSettings::default(),
            audit: AuditSettings::default(),
            grants: Vec::new(),
            tcp: None,
            metrics: None,
        }
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
        let config: Self = toml::from_str(text).map_err(|source| ConfigError::Parse {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        let faults = config.faults();
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

    /// The routers' namespaces, by folder and names.
    #[must_use]
    pub fn router_namespaces(&self) -> RouterNamespaces {
        RouterNamespaces::new(&self.netns_dir, self.namespace_prefixes.clone())
    }

    /// The time between two looks at everything.
    #[must_use]
    pub const fn full_pass(&self) -> Duration {
        Duration::from_secs(self.full_pass_seconds)
    }

    /// Returns the helpers that rules may use.
    #[must_use]
    pub fn allowed(&self) -> Vec<Helper> {
        let named = self.allowed_helpers.iter().map(|name| Helper::named(name));
        named.flatten().flatten().collect()
    }

    /// Returns the interfaces that are classified.
    #[must_use]
    pub fn interfaces(&self) -> Interfaces {
        // A checked configuration has no invalid pattern.
        Interfaces::matching(&self.interfaces).unwrap_or_default()
    }

    /// Returns the interfaces that get an XDP program too.
    #[must_use]
    pub fn xdp(&self) -> XdpInterfaces {
        // A checked configuration has no invalid pattern.
        XdpInterfaces::of(&self.xdp).unwrap_or_default()
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (key, path) in [
            ("state_dir", &self.state_dir),
            ("runtime_dir", &self.runtime_dir),
            ("bpffs_dir", &self.bpffs_dir),
            ("netns_dir", &self.netns_dir),
        ] {
            if !path.is_absolute() || path.parent().is_none() {
                faults.push(format!(
                    "{key} = {:?}: an absolute path below / is wanted",
                    path.display()
                ));
            }
        }
        // bpffs allows no names with a dot (kernel/bpf/inode.c, bpf_lookup).
        if self
            .bpffs_dir
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().contains(&b'.'))
        {
            faults.push(format!(
                "bpffs_dir = {:?}: its last part must not contain a dot, bpffs allows none",
                self.bpffs_dir.display()
            ));
        }
        if self.namespace_prefixes.is_empty() {
            faults.push("namespace_prefixes is empty: at least one is wanted".into());
        }
        for (index, prefix) in self.namespace_prefixes.iter().enumerate() {
            let allowed =
                |character: char| character.is_ascii_alphanumeric() || "-_".contains(character);
            if prefix.is_empty() || prefix.len() > 64 || !prefix.chars().all(allowed) {
                faults.push(format!(
                    "namespace_prefixes has {prefix:?}: 1 to 64 letters, digits, - and _ are allowed"
                ));
            }
            if self.namespace_prefixes[..index].contains(prefix) {
                faults.push(format!("namespace_prefixes has {prefix:?} twice"));
            }
        }
        if let Err(more) = Interfaces::matching(&self.interfaces) {
            faults.extend(more);
        }
        if let Err(more) = XdpInterfaces::of(&self.xdp) {
            faults.extend(more);
        }
        if self.nft.as_os_str().is_empty() {
            faults.push("nft is empty: a program's name or path is wanted".into());
        }
        let most = usize::from(Capacity::MAX.slots) - 1;
        if !(1..=most).contains(&self.limits.rules_per_router) {
            faults.push(format!(
                "limits.rules_per_router = {}: 1 to {most} are allowed",
                self.limits.rules_per_router
            ));
        }
        if !(1..=86_400).contains(&self.full_pass_seconds) {
            faults.push(format!(
                "full_pass_seconds = {}: 1 to 86400 are allowed",
                self.full_pass_seconds
            ));
        }
        faults.extend(self.api.limits.faults());
        if self.limits.routers == 0 {
            faults.push("limits.routers = 0: at least 1 is wanted".into());
        }
        for name in &self.allowed_helpers {
            if let Err(error) = Helper::named(name) {
                faults.push(format!("allowed_helpers: {error}"));
            }
        }
        if MarkBits::new(self.mark_mask).is_none() {
            faults.push(format!(
                "mark_mask = {:#010x}: one run of adjoining bits is wanted, wide enough for {MAX_HELPER_MARK}",
                self.mark_mask
            ));
        }
        faults.extend(self.audit.faults());
        if let Err(AccessError { faults: more }) = Access::new(&self.grants) {
            faults.extend(more);
        }
        if let Some(tcp) = &self.tcp {
            faults.extend(tcp.faults());
        }
        if let Some(metrics) = &self.metrics {
            faults.extend(metrics.faults());
        }
        faults
    }
}
