//! Somebody else's eBPF program on a router's interface.

use std::env;
use std::path::{Path, PathBuf};

use aya::programs::tc::{NlOptions, TcAttachOptions, TcAttachType};
use aya::programs::{LinkOrder, SchedClassifier};
use aya::{Ebpf, EbpfLoader};

use crate::attach;
use crate::netns::Netns;

/// Behind everything that the agent may have chosen.
const LAST: u16 = 50_000;

/// A program at an interface's ingress, until it is dropped; as a tc filter,
/// until its interface goes.
///
/// It is the classifier's own object with empty maps and no bits of the mark,
/// loaded by the test: it passes every packet on as it is, and no agent has
/// made it, though it bears the name of the agent's own.
pub struct ForeignProgram {
    /// Its links are in it, and end with it.
    _object: Ebpf,
}

impl ForeignProgram {
    /// Puts it on an interface, behind what is there, in the way that the agents
    /// of this run take.
    #[must_use]
    pub fn attach(netns: &Netns, interface: &str) -> Self {
        if attach::is_by_filters() {
            netns.tool("tc", ["qdisc", "add", "dev", interface, "clsact"], "");
            return Self::attach_filter(netns, interface, LAST);
        }
        Self::attach_last(netns, interface)
    }

    /// Puts it on an interface's tcx ingress, behind what is there.
    #[must_use]
    pub fn attach_last(netns: &Netns, interface: &str) -> Self {
        Self::attach_by(
            netns,
            interface,
            TcAttachOptions::TcxOrder(LinkOrder::last()),
        )
    }

    /// Puts it on an interface's tcx ingress, in front of what is there.
    #[must_use]
    pub fn attach_first(netns: &Netns, interface: &str) -> Self {
        Self::attach_by(
            netns,
            interface,
            TcAttachOptions::TcxOrder(LinkOrder::first()),
        )
    }

    /// Puts it on an interface with a qdisc, as a filter of this priority.
    #[must_use]
    pub fn attach_filter(netns: &Netns, interface: &str, priority: u16) -> Self {
        let options = NlOptions {
            priority,
            ..NlOptions::default()
        };
        Self::attach_by(netns, interface, TcAttachOptions::Netlink(options))
    }

    fn attach_by(netns: &Netns, interface: &str, options: TcAttachOptions) -> Self {
        let path = object_path();
        let mut object = EbpfLoader::new()
            .load_file(&path)
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let program: &mut SchedClassifier = object
            .program_mut("classify")
            .expect("the classifier")
            .try_into()
            .expect("a tc program");
        program.load().expect("the program in the kernel");
        let attached =
            netns.run(|| program.attach_with_options(interface, TcAttachType::Ingress, options));
        attached.expect("the program on the interface");
        Self { _object: object }
    }
}

/// The object that `cargo xtask build` has made.
fn object_path() -> PathBuf {
    let endian = if cfg!(target_endian = "big") {
        "eb"
    } else {
        "el"
    };
    let built = || {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        workspace.join(format!(
            "target/bpf/bpf{endian}-unknown-none/release/classifier"
        ))
    };
    env::var_os("CONNTRACK_EBPF_OBJECT").map_or_else(built, PathBuf::from)
}
