//! Defines the configuration file's keys as they are written, and checks their values.

use std::path::PathBuf;

use serde::Deserialize;

use super::{
    ApiConfig, Attach, CarrierChoice, Config, Interfaces, MetricsAddress, OnStop, Tcp, XdpEntry,
    XdpInterfaces,
};
use crate::{
    access::{Access, Grant},
    audit::AuditSettings,
    engine::Limits,
    kernel::MarkBits,
    model::{Helper, MAX_HELPER_MARK},
    port_table::Capacity,
    telemetry::LogSettings,
};

/// The keys of the file; [`Config`] says what each is for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ConfigFile {
    state_dir: PathBuf,
    runtime_dir: PathBuf,
    bpffs_dir: PathBuf,
    netns_dir: PathBuf,
    namespace_prefixes: Vec<String>,
    interfaces: Vec<String>,
    attach: Attach,
    #[serde(rename = "interface")]
    xdp: Vec<XdpEntry>,
    nft: PathBuf,
    carrier: CarrierChoice,
    mark_mask: u32,
    on_stop: OnStop,
    full_pass_seconds: u64,
    follow_connections: bool,
    limits: Limits,
    allowed_helpers: Vec<String>,
    api: ApiConfig,
    log: LogSettings,
    audit: AuditSettings,
    #[serde(rename = "grant")]
    grants: Vec<Grant>,
    tcp: Option<Tcp>,
    metrics: Option<MetricsAddress>,
}

impl Default for ConfigFile {
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
            mark_mask: MarkBits::default().mask(),
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

impl ConfigFile {
    /// Returns the configuration, with the default in the place of each faulty value, and
    /// all faults.
    pub(super) fn checked(self) -> (Config, Vec<String>) {
        let mut faults = self.path_faults();
        let interfaces = or_default(Interfaces::matching(&self.interfaces), &mut faults);
        let xdp = or_default(XdpInterfaces::of(&self.xdp), &mut faults);
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
        let mut allowed_helpers = Vec::new();
        for name in &self.allowed_helpers {
            match Helper::named(name) {
                Ok(helpers) => allowed_helpers.extend(helpers),
                Err(error) => faults.push(format!("allowed_helpers: {error}")),
            }
        }
        let mark_bits = MarkBits::new(self.mark_mask).unwrap_or_else(|| {
            faults.push(format!(
                "mark_mask = {:#010x}: one run of adjoining bits is wanted, wide enough for {MAX_HELPER_MARK}",
                self.mark_mask
            ));
            MarkBits::default()
        });
        faults.extend(self.audit.faults());
        let access = or_default(Access::new(&self.grants), &mut faults);
        if let Some(tcp) = &self.tcp {
            faults.extend(tcp.faults());
        }
        if let Some(metrics) = &self.metrics {
            faults.extend(metrics.faults());
        }
        let config = Config {
            state_dir: self.state_dir,
            runtime_dir: self.runtime_dir,
            bpffs_dir: self.bpffs_dir,
            netns_dir: self.netns_dir,
            namespace_prefixes: self.namespace_prefixes,
            interfaces,
            attach: self.attach,
            xdp,
            nft: self.nft,
            carrier: self.carrier,
            mark_bits,
            on_stop: self.on_stop,
            full_pass_seconds: self.full_pass_seconds,
            follow_connections: self.follow_connections,
            limits: self.limits,
            allowed_helpers,
            api: self.api,
            log: self.log,
            audit: self.audit,
            access,
            tcp: self.tcp,
            metrics: self.metrics,
        };
        (config, faults)
    }

    /// Returns the faults of the folders, and of the prefixes of namespaces' names.
    fn path_faults(&self) -> Vec<String> {
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
        faults
    }
}

/// Returns the value, or its default with the faults noted.
fn or_default<T: Default>(value: Result<T, Vec<String>>, faults: &mut Vec<String>) -> T {
    value.unwrap_or_else(|more| {
        faults.extend(more);
        T::default()
    })
}
