//! The errors of the kernel layer.

use std::{io, path::PathBuf};

use super::AgentId;
use aya::{
    EbpfError,
    maps::MapError,
    pin::PinError,
    programs::{ProgramError, links::LinkError},
};

/// Why the kernel, or nft on its behalf, did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The namespace is not there any more; all that was in it is gone too.
    #[error("network namespace {name} went away while the agent was working on it")]
    NamespaceGone {
        /// The namespace.
        name: String,
    },
    /// What is pinned for the router is another agent's.
    #[error("the instance pinned in {} is agent {owner}'s; give each agent its own bpffs_dir", folder.display())]
    Foreign {
        /// Where.
        folder: PathBuf,
        /// Whose it is.
        owner: AgentId,
    },
    /// Something is pinned in a later version of the ABI.
    #[error(
        "what is pinned in {} has ABI version {pinned}, and this agent knows {known}: \
         it is older than the one that ran here; run that one or a later one, or let \
         `conntrack-agent cleanup` remove the datapath and the rules, and start anew",
        folder.display()
    )]
    NewerAbi {
        /// Where.
        folder: PathBuf,
        /// The version that is pinned.
        pinned: u32,
        /// The agent's.
        known: u32,
    },
    /// What is pinned can't be understood, as its ABI is an earlier one.
    #[error(
        "the rules in force can't be read: they are pinned in ABI version {pinned}, and \
         this agent reads {known}; start once with `--rebuild rules --rules FILE`"
    )]
    OlderAbi {
        /// The version that is pinned.
        pinned: u32,
        /// The agent's.
        known: u32,
    },
    /// The interface is not there any more.
    #[error("interface {interface} of {namespace} went away")]
    InterfaceGone {
        /// Its namespace.
        namespace: String,
        /// The interface.
        interface: String,
    },
    /// The namespace, or the folder of namespaces, could not be used.
    #[error("network namespace {name}: {what}")]
    Namespace {
        /// The namespace, or the folder.
        name: String,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The namespace's interfaces could not be listed.
    #[error("the interfaces of network namespace {name} cannot be listed")]
    Interfaces {
        /// The namespace.
        name: String,
        /// What netlink said.
        #[source]
        source: io::Error,
    },
    /// What is on the ingress of an interface could not be asked or changed.
    #[error("interface {interface} of {namespace} cannot be {what}")]
    Ingress {
        /// Its namespace.
        namespace: String,
        /// The interface: its name, or its number.
        interface: String,
        /// What was tried: "given a tc filter".
        what: &'static str,
        /// What the kernel said.
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
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Nat chains are wanted where there are none.
    #[error(
        "carrier = \"priority\": this kernel has no nftables nat chains (nft_chain_nat); \
         \"auto\" and \"mark\" are possible"
    )]
    NoNatChains,
    /// tcx is wanted where there is none.
    #[error(
        "attach = \"tcx\": this kernel has no tcx, it came with Linux 6.6; \
         \"auto\" and \"clsact\" are possible"
    )]
    NoTcx,
    /// There is no nft program.
    #[error(
        "the nft program {program:?} cannot be run; install the nftables package, \
         or set `nft` in the configuration to where it is"
    )]
    NftMissing {
        /// What was tried to run.
        program: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// nft could not be started, or talked with.
    #[error("{} could not be run", program.display())]
    NftNotRun {
        /// What was tried to run.
        program: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// nft did not end.
    #[error("{} did not end within {limit:?} and was killed", program.display())]
    NftHangs {
        /// The program.
        program: PathBuf,
        /// How long it was waited for.
        limit: std::time::Duration,
    },
    /// nft refused, or printed something that cannot be understood.
    #[error("nft failed in {place}: {said}")]
    Nft {
        /// The namespace.
        place: String,
        /// Its words.
        said: String,
    },
    /// What legacy iptables has in a namespace could not be read.
    #[error("the rules of {table} in {place} cannot be read: {why}")]
    Legacy {
        /// The namespace.
        place: String,
        /// Whose table: "iptables-legacy raw".
        table: String,
        /// What was tried, and what became of it.
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
        /// The system call's error.
        source: io::Error,
        /// The verifier's log.
        verifier_log: String,
    },
    /// Anything else about a program.
    #[error("{what}")]
    Program {
        /// What was tried.
        what: String,
        /// What aya said.
        #[source]
        source: Box<ProgramError>,
    },
    /// A map could not be read or written.
    #[error("{what} of map {map}")]
    Map {
        /// What was tried.
        what: &'static str,
        /// The map's name.
        map: &'static str,
        /// What aya said.
        #[source]
        source: Box<MapError>,
    },
    /// A link could not be opened or replaced.
    #[error("link {}", path.display())]
    Link {
        /// Where it is pinned.
        path: PathBuf,
        /// What aya said.
        #[source]
        source: Box<LinkError>,
    },
    /// Something could not be pinned.
    #[error("{} cannot be pinned", path.display())]
    Pin {
        /// Where it should have been.
        path: PathBuf,
        /// What aya said.
        #[source]
        source: Box<PinError>,
    },
    /// A file or folder could not be made, read or removed.
    #[error("{} cannot be {what}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What was tried: "made", "removed".
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is no bpffs, and none could be mounted.
    #[error(
        "no bpffs is mounted at {} and it cannot be mounted there; \
         mount it (mount -t bpf bpf {}), or move bpffs_dir in the configuration", path.display(), path.display()
    )]
    NoBpffs {
        /// Where it should be.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A bug: the object or the maps are not what this agent was built with.
    #[error("the eBPF object has no {0}")]
    Missing(&'static str),
}

/// What was wrong, in the verifier's words: the first line where it was asked for
/// no trace; statistics follow, and are all that a program has that it found no
/// fault in (`print_verification_stats`, kernel/bpf/verifier.c).
fn first_line(log: &str) -> String {
    const STATISTICS: [&str; 3] = ["verification time ", "stack depth ", "processed "];
    let line = log.lines().find(|line| !line.is_empty());
    let reason = line.filter(|line| !STATISTICS.iter().any(|start| line.starts_with(start)));
    reason.map_or_else(String::new, |reason| format!(" ({reason})"))
}

impl Error {
    /// Whether what was to be entered is a namespace of another kind (setns(2):
    /// EINVAL).
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
