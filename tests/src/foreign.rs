//! Somebody else's eBPF programs on a router's interface.

mod metadata;

use std::env;
use std::path::{Path, PathBuf};

use aya::maps::{Array, Map, MapData};
use aya::programs::tc::{NlOptions, TcAttachOptions, TcAttachType};
use aya::programs::{LinkOrder, SchedClassifier, Xdp, xdp::XdpMode};
use aya::{Ebpf, EbpfLoader};
use conntrack_agent::kernel::load_again;
use conntrack_ebpf::abi::{self, Identity};

use crate::assembly::{self, Code};
use crate::attach::{self, Xdp as Mode};
use crate::netns::Netns;

/// Behind everything that the agent may have chosen.
const LAST: u16 = 50_000;

/// The verdict that leaves a packet to whatever comes next (`enum tcx_action_base`,
/// include/uapi/linux/bpf.h).
const TCX_NEXT: i32 = -1;

/// A program at an interface's ingress, until it is dropped; as a tc filter,
/// until its interface goes.
///
/// It passes every packet on as it is, and bears the name of the agent's own.
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
        let mut code = Code::default();
        code.push(assembly::MOVE_IMMEDIATE, 0, 0, 0, TCX_NEXT);
        code.push(assembly::EXIT, 0, 0, 0, 0);
        let object = EbpfLoader::new().load(&code.object("classifier"));
        let mut object = object.expect("an object with one program");
        let program: &mut SchedClassifier = object
            .program_mut(assembly::PROGRAM)
            .expect("the program")
            .try_into()
            .expect("a tc program");
        load_again(|| program.load()).expect("the program in the kernel");
        let attached =
            netns.run(|| program.attach_with_options(interface, TcAttachType::Ingress, options));
        attached.expect("the program on the interface");
        Self { _object: object }
    }
}

/// Somebody else's XDP program on an interface, until it is dropped.
///
/// It is the agent's own too, with empty maps: with a token it hands over, for
/// each packet, that there is no rule for it.
pub struct ForeignXdp {
    /// Its link is in it, and ends with it.
    _object: Ebpf,
}

impl ForeignXdp {
    /// Puts it on an interface. Without a token it leaves nothing to anybody.
    #[must_use]
    pub fn attach(netns: &Netns, interface: &str, mode: Mode, token: u64) -> Self {
        let path = object_path();
        let mut object = EbpfLoader::new()
            .load_file(&path)
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let identity = Identity {
            token,
            ..Identity::default()
        };
        let map = object.map_mut(abi::IDENTITY).expect("the map");
        let mut map: Array<_, [u8; Identity::SIZE]> = map.try_into().expect("an array");
        map.set(0, identity.to_bytes(), 0)
            .expect("its only element");
        Self::put(netns, interface, mode, object, "classify_xdp")
    }

    /// Puts another one on it, which leaves these words in front of each packet.
    #[must_use]
    pub fn leaving(netns: &Netns, interface: &str, mode: Mode, words: &[[u8; 4]]) -> Self {
        let object = EbpfLoader::new().load(&metadata::object(words));
        let object = object.expect("an object with one program");
        Self::put(netns, interface, mode, object, assembly::PROGRAM)
    }

    fn put(netns: &Netns, interface: &str, mode: Mode, mut object: Ebpf, program: &str) -> Self {
        let program: &mut Xdp = object
            .program_mut(program)
            .expect("the XDP program")
            .try_into()
            .expect("an XDP program");
        load_again(|| program.load()).expect("the program in the kernel");
        let mode = match mode {
            Mode::Native => XdpMode::Driver,
            Mode::Generic => XdpMode::Skb,
        };
        let attached = netns.run(|| program.attach(interface, mode));
        attached.expect("the program on the interface");
        Self { _object: object }
    }
}

/// The token of the instance that is pinned in this folder.
#[must_use]
pub fn token_of(instance: &Path) -> u64 {
    let map = MapData::from_pin(instance.join(abi::IDENTITY)).expect("the map");
    let map: Array<_, [u8; Identity::SIZE]> = Map::Array(map).try_into().expect("an array");
    let identity = map.get(&0, 0).expect("its only element");
    Identity::from_bytes(identity).token
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
