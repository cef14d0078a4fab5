//! The agent's configuration file: TOML; every key has a default.

mod carrier;
mod interfaces;
mod xdp;

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use crate::{
    api::access::{Access, AccessError, Grant},
    audit::LONGEST_LINE,
    engine::Limits,
    input::read_text,
    kernel::MarkBits,
    model::{Helper, MAX_HELPER_MARK},
    port_table::Capacity,
    sources::listed,
};

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
    /// The logging.
    pub log: Log,
    /// The audit trail.
    pub audit: Audit,
    /// The peers that may use the API, beside root.
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

/// The settings of the control API.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct ApiConfig {
    /// The group that may open the socket, beside root; by default root's.
    pub socket_group: Option<String>,
    /// The limits on clients.
    pub limits: ApiLimits,
}

/// The limits on what one client, or all together, can take of the agent.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct ApiLimits {
    /// The maximum number of connections.
    pub connections: usize,
    /// The maximum number of connections of one user; all TCP clients together count as
    /// one.
    pub connections_per_peer: usize,
    /// The maximum number of requests that are answered at the same time.
    pub requests: usize,
    /// The maximum size of a request's body, in bytes.
    pub body_bytes: usize,
    /// The seconds within which a request's head must arrive, and the next request must
    /// follow.
    pub header_seconds: u64,
    /// The seconds within which a request's body must arrive.
    pub body_seconds: u64,
    /// The seconds for which a client may read nothing of its answer.
    pub answer_seconds: u64,
    /// The maximum size of all large answers under way at the same time, in bytes.
    pub answer_bytes: usize,
}

impl Default for ApiLimits {
    fn default() -> Self {
        Self {
            connections: 4096,
            connections_per_peer: 2048,
            requests: 2048,
            // Enough for 100,000 rules.
            body_bytes: 8 << 20,
            header_seconds: 10,
            body_seconds: 10,
            answer_seconds: 30,
            answer_bytes: 256 << 20,
        }
    }
}

impl ApiLimits {
    fn faults(self) -> Vec<String> {
        let seconds =
            |key, given: u64| (key, usize::try_from(given).unwrap_or(usize::MAX), 1..=600);
        let ranges = [
            ("connections", self.connections, 1..=65_536),
            (
                "connections_per_peer",
                self.connections_per_peer,
                1..=65_536,
            ),
            ("requests", self.requests, 1..=65_536),
            ("body_bytes", self.body_bytes, 1024..=256 << 20),
            seconds("header_seconds", self.header_seconds),
            seconds("body_seconds", self.body_seconds),
            seconds("answer_seconds", self.answer_seconds),
            ("answer_bytes", self.answer_bytes, 1 << 20..=4 << 30),
        ];
        let wrong = ranges
            .into_iter()
            .filter(|(_, given, range)| !range.contains(given));
        let fault = |(key, given, range): (_, _, std::ops::RangeInclusive<usize>)| {
            let (least, most) = (range.start(), range.end());
            format!("api.limits.{key} = {given}: {least} to {most} are allowed")
        };
        wrong.map(fault).collect()
    }
}

/// The API's TCP listener.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Tcp {
    /// The address of the listener, which no other host may be able to reach: there is no
    /// encryption, so a token must not leave the host.
    pub listen: SocketAddr,
    /// The file of tokens, in the form that [`crate::api::tokens`] describes.
    pub token_file: PathBuf,
}

/// The address of metrics, for a Prometheus that can't ask a Unix socket.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct MetricsAddress {
    /// The address of the listener, which no other host may be able to reach. Everybody
    /// on this host can read there which routers have which rules.
    pub listen: SocketAddr,
}

/// The settings of logging.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// The least severe level that is logged.
    pub level: Level,
    /// The format of the log: one line of text, or of JSON, for each event.
    pub format: LogFormat,
}

/// A severity, as tracing defines it.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "tracing's own levels")]
pub enum Level {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text for people.
    #[default]
    Text,
    /// JSON for programs: an object a line.
    Json,
}

/// The settings of the audit trail. It can't be switched off: its purpose is that no
/// change goes unrecorded.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Audit {
    /// The destination of the audit trail.
    pub to: AuditTo,
    /// The largest size of one file, in bytes.
    pub max_bytes: u64,
    /// The number of full files that are kept beside the current one.
    pub keep: u32,
    /// The maximum number of refusals of one peer that are recorded per second; further
    /// ones are only counted.
    pub refusals_per_second: u32,
    /// The same limit for all peers together.
    pub refusals_per_second_in_all: u32,
}

/// The destination of the audit trail.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum AuditTo {
    /// The file `audit.jsonl` in the state folder: a JSON object a line.
    #[default]
    File,
    /// The systemd journal, with a field for each value.
    Journald,
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            to: AuditTo::default(),
            max_bytes: 10 << 20,
            keep: 9,
            refusals_per_second: 1,
            refusals_per_second_in_all: 10,
        }
    }
}

impl Audit {
    fn faults(&self) -> impl Iterator<Item = String> {
        [
            ("max_bytes", self.max_bytes, LONGEST_LINE, 1 << 30),
            ("keep", self.keep.into(), 1, 1000),
            (
                "refusals_per_second",
                self.refusals_per_second.into(),
                1,
                1000,
            ),
            (
                "refusals_per_second_in_all",
                self.refusals_per_second_in_all.into(),
                1,
                1000,
            ),
        ]
        .into_iter()
        .filter(|(_, value, least, most)| !(least..=most).contains(&value))
        .map(|(key, value, least, most)| {
            format!("audit.{key} = {value}: {least} to {most} are allowed")
        })
    }
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
            log: Log::default(),
            audit: Audit::default(),
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

    /// Returns the time between two full passes.
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
            faults.extend(loopback_faults("metrics.listen", metrics.listen));
        }
        faults
    }
}

impl Tcp {
    fn faults(&self) -> Vec<String> {
        let mut faults = loopback_faults("tcp.listen", self.listen);
        if !self.token_file.is_absolute() {
            faults.push(format!(
                "tcp.token_file = {:?}: an absolute path is wanted",
                self.token_file.display()
            ));
        }
        faults
    }
}

/// Returns the faults of the address under this key.
fn loopback_faults(key: &str, address: SocketAddr) -> Vec<String> {
    let mut faults = Vec::new();
    // ::ffff:127.0.0.1 is no loopback address here, though it reaches 127.0.0.1: one way
    // to write it is enough.
    if !address.ip().is_loopback() {
        faults.push(format!(
            "{key} = \"{address}\": a loopback address is wanted, 127.0.0.1 or [::1]; \
             what comes over a network is not encrypted"
        ));
    }
    if address.port() == 0 {
        faults.push(format!(
            "{key} = \"{address}\": a port from 1 to 65535 is wanted"
        ));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::XdpMode;

    fn refusal(text: &str) -> String {
        Config::parse(Path::new("agent.toml"), text)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn an_empty_file_is_the_defaults_and_they_are_good() {
        assert_eq!(
            Config::parse(Path::new("x"), "").unwrap(),
            Config::default()
        );
        assert_eq!(Config::default().faults(), Vec::<String>::new());
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a list of bad values")]
    fn a_bad_value_is_refused_with_what_is_allowed() {
        for (text, parts) in [
            ("stat_dir = \"/x\"", &["stat_dir", "state_dir"][..]),
            ("state_dir = \"x\"", &["state_dir", "absolute"]),
            ("bpffs_dir = \"/sys/fs/bpf/a.b\"", &["bpffs_dir", "dot"]),
            ("namespace_prefixes = []", &["namespace_prefixes", "empty"]),
            ("namespace_prefixes = [\"../\"]", &["\"../\"", "letters"]),
            ("namespace_prefixes = [\"a\", \"a\"]", &["\"a\"", "twice"]),
            ("mark_mask = 0", &["mark_mask", "bits"]),
            ("mark_mask = 0xff0000ff", &["0xff0000ff", "adjoining"]),
            ("mark_mask = 0x7", &["0x00000007", "wide enough"]),
            ("mark_mask = -1", &["mark_mask"]),
            ("nft = \"\"", &["nft"]),
            ("interfaces = []", &["interfaces", "at least one"]),
            (
                "interfaces = [\"q[\"]",
                &["interfaces", "\"q[\"", "allowed"],
            ),
            ("attach = \"xdp\"", &["xdp", "auto", "tcx", "clsact"]),
            (
                "[[interface]]\nname = \"q*\"\nattach = \"tcx\"",
                &["tcx", "`xdp`", "xdp-generic"],
            ),
            (
                "[[interface]]\nname = \"q[\"\nattach = \"xdp\"",
                &["interface 1", "\"q[\"", "allowed"],
            ),
            ("[[interface]]\nname = \"q*\"", &["attach"]),
            ("[[interface]]\nattach = \"xdp\"", &["name"]),
            (
                "[[interface]]\nname = \"q*\"\nattach = \"xdp\"\nmode = 1",
                &["mode", "attach"],
            ),
            (
                "[interface]\nname = \"q*\"\nattach = \"xdp\"",
                &["interface"],
            ),
            (
                "limits.rules_per_router = 0",
                &["rules_per_router", "65534"],
            ),
            (
                "limits.rules_per_router = 65535",
                &["rules_per_router", "65534"],
            ),
            ("limits.routers = 0", &["routers"]),
            (
                "api.limits.body_bytes = 10",
                &["api.limits.body_bytes", "1024"],
            ),
            ("api.limits.connections = 0", &["connections", "65536"]),
            ("api.limits.body_seconds = 601", &["body_seconds", "600"]),
            ("api.sockets = 1", &["sockets", "socket_group"]),
            ("full_pass_seconds = 0", &["full_pass_seconds", "86400"]),
            (
                "allowed_helpers = [\"ftp\", \"gopher\"]",
                &["gopher", "tftp"],
            ),
            ("[log]\nlevel = \"loud\"", &["loud", "info"]),
            ("[log", &["log"]),
            ("[audit]\nto = \"none\"", &["none", "file", "journald"]),
            ("[audit]\nrotate = 3", &["rotate", "keep"]),
            ("audit.max_bytes = 65535", &["max_bytes", "65536"]),
            ("audit.max_bytes = 1073741825", &["max_bytes", "1073741824"]),
            ("audit.keep = 0", &["audit.keep", "1 to 1000"]),
            ("audit.keep = 1001", &["audit.keep", "1 to 1000"]),
            (
                "audit.refusals_per_second = 0",
                &["refusals_per_second", "1 to 1000"],
            ),
            (
                "audit.refusals_per_second_in_all = 1001",
                &["refusals_per_second_in_all", "1 to 1000"],
            ),
            (
                "[[grant]]\nusers = [\"conntrack-agent-has-no-such-user\"]\nrole = \"reader\"",
                &["grant 1", "no user", "has-no-such-user"],
            ),
            (
                "[[grant]]\nusers = [1]\nrole = \"reader\"\nrouters = [\"x\"]",
                &["grant 1", "\"x\"", "UUID"],
            ),
            (
                "[[grant]]\nusers = [1]\nrole = \"king\"",
                &["king", "operator"],
            ),
            ("[grants]", &["grants"]),
            ("[tcp]\nlisten = \"127.0.0.1:1\"", &["token_file"]),
            ("[tcp]\ntoken_file = \"/t\"", &["listen"]),
            (
                "[tcp]\nlisten = \"localhost:1\"\ntoken_file = \"/t\"",
                &["listen", "address"],
            ),
            (
                "[tcp]\nlisten = \"127.0.0.1:0\"\ntoken_file = \"/t\"",
                &["tcp.listen", "65535"],
            ),
            (
                "[tcp]\nlisten = \"127.0.0.1:1\"\ntoken_file = \"t\"",
                &["tcp.token_file", "absolute"],
            ),
            (
                "[tcp]\nlisten = \"127.0.0.1:1\"\ntoken_file = \"/t\"\ntoken = \"x\"",
                &["`token`", "token_file"],
            ),
        ] {
            let message = refusal(text);
            for part in parts {
                assert!(message.contains(part), "{message} lacks {part}");
            }
        }
    }

    #[test]
    fn the_ends_of_a_range_are_in_it() {
        for text in [
            "audit = { max_bytes = 65536, keep = 1, refusals_per_second = 1 }",
            "audit = { max_bytes = 1073741824, keep = 1000, refusals_per_second_in_all = 1000 }",
            "audit.to = \"journald\"",
        ] {
            Config::parse(Path::new("agent.toml"), text).unwrap();
        }
    }

    #[test]
    fn grants_and_a_listener_are_taken_as_they_are_written() {
        let text = "[[grant]]\nusers = [\"root\", 7]\nrole = \"admin\"\n\
                    [[grant]]\ntokens = [\"ci\"]\nrole = \"reader\"\n\
                    [tcp]\nlisten = \"[::1]:9797\"\ntoken_file = \"/t\"";
        let config = Config::parse(Path::new("x"), text).unwrap();
        assert_eq!(config.grants.len(), 2);
        assert_eq!(config.tcp.unwrap().listen.port(), 9797);
    }

    #[test]
    fn interfaces_for_xdp_are_taken_in_their_order() {
        let text = "[[interface]]\nname = \"qg-*\"\nattach = \"xdp\"\n\
                    [[interface]]\nname = \"*\"\nattach = \"xdp-generic\"";
        let config = Config::parse(Path::new("x"), text).unwrap();
        assert_eq!(config.xdp().mode_of("qg-1"), Some(XdpMode::Native));
        assert_eq!(config.xdp().mode_of("qr-1"), Some(XdpMode::Generic));
        assert_eq!(Config::default().xdp().mode_of("qg-1"), None);
    }

    #[test]
    fn cwe_284_only_a_loopback_address_is_listened_on() {
        let tcp =
            |address: &str| format!("[tcp]\nlisten = \"{address}:9797\"\ntoken_file = \"/t\"");
        let metrics = |address: &str| format!("[metrics]\nlisten = \"{address}:9798\"");
        let zero = refusal("[metrics]\nlisten = \"127.0.0.1:0\"");
        assert!(
            zero.contains("metrics.listen") && zero.contains("65535"),
            "{zero}"
        );
        for address in ["127.0.0.1", "127.1.2.3", "[::1]"] {
            for text in [tcp(address), metrics(address)] {
                assert!(Config::parse(Path::new("x"), &text).is_ok());
            }
        }
        for address in [
            "0.0.0.0",
            "[::]",
            "192.0.2.1",
            "[fe80::1]",
            "[::ffff:127.0.0.1]",
        ] {
            for (text, key) in [
                (tcp(address), "tcp.listen"),
                (metrics(address), "metrics.listen"),
            ] {
                let message = refusal(&text);
                let words = ["loopback", address, key];
                assert!(words.iter().all(|word| message.contains(word)), "{message}");
            }
        }
    }

    #[test]
    fn every_fault_is_named() {
        let message = refusal("state_dir = \"x\"\nmark_mask = 0\nnft = \"\"");
        assert_eq!(message.lines().count(), 4, "{message}");
    }
}
