//! The errors of the kernel layer.

use std::{io, path::PathBuf};

use super::AgentId;
use aya::{
    EbpfError,
    maps::MapError,
    pin::PinError,
    programs::{ProgramError, links::LinkError},
};

/// The reason why the kernel, or nft on its behalf, did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The namespace no longer exists, and neither does anything in it.
    #[error("network namespace {name} went away while the agent was working on it")]
    NamespaceGone {
        /// The namespace.
        name: String,
    },
    /// The pins of the router belong to another agent.
    #[error("the instance pinned in {} is agent {owner}'s; give each agent its own bpffs_dir", folder.display())]
    Foreign {
        /// The folder of the pins.
        folder: PathBuf,
        /// The agent that they belong to.
        owner: AgentId,
    },
    /// There are pins of a later version of the ABI.
    #[error(
        "what is pinned in {} has ABI version {pinned}, and this agent knows {known}: \
         it is older than the one that ran here; run that one or a later one, or let \
         `conntrack-agent cleanup` remove the datapath and the rules, and start anew",
        folder.display()
    )]
    NewerAbi {
        /// The folder of the pins.
        folder: PathBuf,
        /// The version of the pins.
        pinned: u32,
        /// The version that the agent knows.
        known: u32,
    },
    /// The pins can't be read, as their ABI is an earlier one.
    #[error(
        "the rules in force can't be read: they are pinned in ABI version {pinned}, and \
         this agent reads {known}; start once with `--rebuild rules --rules FILE`"
    )]
    OlderAbi {
        /// The version of the pins.
        pinned: u32,
        /// The version that the agent knows.
        known: u32,
    },
    /// The interface no longer exists.
    #[error("interface {interface} of {namespace} went away")]
    InterfaceGone {
        /// The interface's namespace.
        namespace: String,
        /// The interface.
        interface: String,
    },
    /// The namespace, or the folder of namespaces, could not be used.
    #[error("network namespace {name}: {what}")]
    Namespace {
        /// The namespace, or the folder.
        name: String,
        /// The operation that failed.
        what: &'static str,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
    /// The namespace's interfaces could not be listed.
    #[error("the interfaces of network namespace {name} cannot be listed")]
    Interfaces {
        /// The namespace.
        name: String,
        /// The error of netlink.
        #[source]
        source: io::Error,
    },
    /// The ingress of an interface could not be queried or changed.
    #[error("interface {interface} of {namespace} cannot be {what}")]
    Ingress {
        /// The interface's namespace.
        namespace: String,
        /// The interface's name or number.
        interface: String,
        /// The operation that failed: "given a tc filter".
        what: &'static str,
        /// The error of the kernel.
        #[source]
        source: io::Error,
    },
    /// A table could not be read from the kernel.
    #[error("the nftables table {table} of {place} cannot be read")]
    Table {
        /// The namespace.
        place: String,
        /// The table.
        table: String,
        /// The error of the kernel.
        #[source]
        source: io::Error,
    },
    /// The configuration wants nat chains, and the kernel has none.
    #[error(
        "carrier = \"priority\": this kernel has no nftables nat chains (nft_chain_nat); \
         \"auto\" and \"mark\" are possible"
    )]
    NoNatChains,
    /// The configuration wants tcx, and the kernel has none.
    #[error(
        "attach = \"tcx\": this kernel has no tcx, it came with Linux 6.6; \
         \"auto\" and \"clsact\" are possible"
    )]
    NoTcx,
    /// The nft program does not exist.
    #[error(
        "the nft program {program:?} cannot be run; install the nftables package, \
         or set `nft` in the configuration to where it is"
    )]
    NftMissing {
        /// The program that should have run.
        program: PathBuf,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
    /// The nft program could not be started, or its pipes failed.
    #[error("{} could not be run", program.display())]
    NftNotRun {
        /// The program that should have run.
        program: PathBuf,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
    /// The nft program did not end in time.
    #[error("{} did not end within {limit:?} and was killed", program.display())]
    NftHangs {
        /// The program.
        program: PathBuf,
        /// The time after which it was killed.
        limit: std::time::Duration,
    },
    /// The nft program refused, or printed something that cannot be understood.
    #[error("nft failed in {place}: {said}")]
    Nft {
        /// The namespace.
        place: String,
        /// The program's message.
        said: String,
    },
    /// The rules of legacy iptables in a namespace could not be read.
    #[error("the rules of {table} in {place} cannot be read: {why}")]
    Legacy {
        /// The namespace.
        place: String,
        /// The family and the table: "iptables-legacy raw".
        table: String,
        /// The operation that failed, and how.
        why: String,
    },
    /// The eBPF object could not be loaded.
    #[error("the eBPF object cannot be loaded")]
    Object(#[source] Box<EbpfError>),
    /// The kernel's verifier or the kernel refused a program.
    #[error(
        "the kernel refused the classifier: {source}{}",
        first_line(verifier_log)
    )]
    Refused {
        /// The error of the system call.
        source: io::Error,
        /// The verifier's log.
        verifier_log: String,
    },
    /// Another operation on a program failed.
    #[error("{what}")]
    Program {
        /// The operation that failed.
        what: String,
        /// The error of aya.
        #[source]
        source: Box<ProgramError>,
    },
    /// A map could not be read or written.
    #[error("{what} of map {map}")]
    Map {
        /// The operation that failed.
        what: &'static str,
        /// The map's name.
        map: &'static str,
        /// The error of aya.
        #[source]
        source: Box<MapError>,
    },
    /// A link could not be opened or replaced.
    #[error("link {}", path.display())]
    Link {
        /// The path of the link's pin.
        path: PathBuf,
        /// The error of aya.
        #[source]
        source: Box<LinkError>,
    },
    /// Something could not be pinned.
    #[error("{} cannot be pinned", path.display())]
    Pin {
        /// The path where the pin should be.
        path: PathBuf,
        /// The error of aya.
        #[source]
        source: Box<PinError>,
    },
    /// A file or folder could not be made, read or removed.
    #[error("{} cannot be {what}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// The operation that failed: "made", "removed".
        what: &'static str,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
    /// There is no bpffs, and none could be mounted.
    #[error(
        "no bpffs is mounted at {} and it cannot be mounted there; \
         mount it (mount -t bpf bpf {}), or move bpffs_dir in the configuration", path.display(), path.display()
    )]
    NoBpffs {
        /// The path where the bpffs should be.
        path: PathBuf,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
    /// The object or the maps are not those that this agent was built with,
    /// which is a bug.
    #[error("the eBPF object has no {0}")]
    Missing(&'static str),
}

/// Returns the verifier's reason: the first line of the log, where no trace was
/// asked for. Statistics follow it, and a program that the verifier found no
/// fault in has nothing else in its log (`print_verification_stats`,
/// kernel/bpf/verifier.c).
fn first_line(log: &str) -> String {
    const STATISTICS: [&str; 3] = ["verification time ", "stack depth ", "processed "];
    let line = log.lines().find(|line| !line.is_empty());
    let reason = line.filter(|line| !STATISTICS.iter().any(|start| line.starts_with(start)));
    reason.map_or_else(String::new, |reason| format!(" ({reason})"))
}

impl Error {
    /// Returns whether the file to be entered is a namespace of another kind
    /// (setns(2): EINVAL).
    #[must_use]
    pub fn is_no_network_namespace(&self) -> bool {
        match self {
            Self::Namespace { source, .. } => source.kind() == io::ErrorKind::InvalidInput,
            _ => false,
        }
    }

    pub(super) fn program(what: impl Into<String>) -> impl FnOnce(ProgramError) -> Self {
        move |source| match source {
            ProgramError::LoadError {
                io_error,
                verifier_log,
            } => {
                let verifier_log = verifier_log.to_string();
                tracing::debug!(verifier_log, "the verifier's log");
                Self::Refused {
                    source: io_error,
                    verifier_log,
                }
            }
            source => Self::Program {
                what: what.into(),
                source: Box::new(source),
            },
        }
    }

    pub(super) fn map(what: &'static str, map: &'static str) -> impl FnOnce(MapError) -> Self {
        move |source| Self::Map {
            what,
            map,
            source: Box::new(source),
        }
    }

    pub(crate) fn file(
        path: impl Into<PathBuf>,
        what: &'static str,
    ) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File {
            path: path.into(),
            what,
            source,
        }
    }
}
