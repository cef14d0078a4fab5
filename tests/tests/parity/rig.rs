//! Two routers that are alike but for who gives connections their helpers, and
//! the frames that come to both.

use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::thread;
use std::time::Duration;

use conntrack_tests::agent::{Agent, Config, Reload};
use conntrack_tests::attach::Xdp;
use conntrack_tests::ctnetlink::{Connections, Conntrack, Expectations, Tuple};
use conntrack_tests::helpers::{Rule, rules_of};
use conntrack_tests::lab::Lab;
use conntrack_tests::netns::Netns;
use conntrack_tests::snapshot::{filter_programs, ingress_programs, xdp_on};
use nix::ifaddrs::getifaddrs;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, sendto, socket,
};
use nix::unistd::Pid;
use uuid::Uuid;

use crate::grammar::MTU;
use crate::network::Packet;
use crate::rules;
use crate::transport::{Ports, Segment, UDP};
use crate::wire::{Family, Frame, HOSTS, LAST, ROUTER, Side};

/// How the agent's programs get onto interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Tcx,
    /// Through routers that have NAT, and so another carrier.
    TcxByPriority,
    Clsact,
    XdpNative,
    XdpGeneric,
}

/// Those of a router.
const INTERFACES: [&str; 2] = ["qr-11111111-11", "qg-22222222-22"];

const EVERYWHERE: &str = r#"[{ name = "*", attach = "WAY" }]"#;

impl Way {
    fn configure(self, config: Config) -> Config {
        match self {
            Self::Tcx | Self::TcxByPriority => config.with("attach", "\"tcx\""),
            Self::Clsact => config.with("attach", "\"clsact\""),
            Self::XdpNative => config.with("interface", EVERYWHERE.replace("WAY", "xdp")),
            Self::XdpGeneric => config.with("interface", EVERYWHERE.replace("WAY", "xdp-generic")),
        }
    }
}

/// What one router's conntrack holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Tables {
    pub(crate) connections: Connections,
    pub(crate) expectations: Expectations,
}

/// What both hold after the same frames.
pub(crate) struct Outcome {
    pub(crate) reference: Tables,
    pub(crate) ours: Tables,
}

/// Whether a router drops what iptables drops.
///
/// As soon as it has a rule about a protocol's ports, iptables drops all packets
/// of that protocol whose header is cut off, and with IPv6 those whose extension
/// headers are (`hotdrop` in `net/netfilter/xt_tcpudp.c` and
/// `net/ipv6/netfilter/ip6_tables.c`). We give no verdicts: such a packet goes on
/// to conntrack, which takes it for invalid, but not before it has used up what
/// was expected to come from there (`init_conntrack`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CutOff {
    /// By rules that do nothing else, so that the rest can be compared.
    Dropped,
    /// As where the agent runs alone.
    Passed,
}

/// Both routers.
pub(crate) struct Rig {
    agent: Agent,
    way: Way,
    family: Family,
    reference: Half,
    ours: Half,
    lab: Lab,
}

impl Rig {
    pub(crate) fn new(way: Way, family: Family) -> Self {
        Self::with(way, family, CutOff::Dropped)
    }

    pub(crate) fn with(way: Way, family: Family, cut_off: CutOff) -> Self {
        let lab = Lab::new();
        let outside = lab.netns("outside");
        outside.sysctl("ipv6/conf/default/disable_ipv6", "1");
        let reference = Half::new(&lab, &outside, family, 0);
        let ours = Half::new(&lab, &outside, family, 1);
        // What is forwarded goes no further.
        outside.nft(
            "table netdev sink { chain sink {
                type filter hook ingress devices = { in0, in1, out0, out1 } priority 0;
                drop;
            }; }",
        );
        if way == Way::TcxByPriority {
            for half in [&reference, &ours] {
                half.netns.nft(
                    "table inet translated { chain postrouting {
                        type nat hook postrouting priority srcnat;
                    }; }",
                );
            }
        }
        let config = way.configure(Config::of(&lab));
        let agent = Agent::start_with(&lab, &config, "");
        let rig = Self {
            agent,
            way,
            family,
            reference,
            ours,
            lab,
        };
        if cut_off == CutOff::Dropped {
            let rules = ["tcp", "udp"].map(|each| format!("-A PREROUTING -p {each} --dport 1\n"));
            rig.restore(&rig.ours, &format!("*raw\n{}COMMIT\n", rules.concat()));
        }
        rig
    }

    /// Puts rules in force: with iptables on one side, with the agent on the
    /// other.
    pub(crate) fn set_rules(&mut self, rules: &[Rule]) {
        self.set_both(rules, rules);
    }

    /// The same with other rules for the agent than for iptables.
    pub(crate) fn set_both(&mut self, neutrons: &[Rule], ours: &[Rule]) {
        let table = rules::neutrons(self.family, neutrons);
        self.restore(&self.reference, &table);
        // First none: of two on one destination the older one wins, and these
        // are all to be new.
        for rules in [String::new(), rules_of(self.ours.id, ours)] {
            let reload = self.agent.reload(&rules);
            let said = || self.agent.lines().join("\n");
            assert_eq!(reload, Reload::Done, "{rules}{}", said());
        }
        if !ours.is_empty() {
            self.assert_way();
        }
    }

    /// That packets go the way that this is about, and no other.
    fn assert_way(&self) {
        for name in INTERFACES {
            let netns = &self.ours.netns;
            let xdp = match self.way {
                Way::Tcx | Way::TcxByPriority | Way::Clsact => None,
                Way::XdpNative => Some(Xdp::Native),
                Way::XdpGeneric => Some(Xdp::Generic),
            };
            assert_eq!(xdp_on(netns, name), xdp, "{name}");
            let filters = filter_programs(netns, name).len();
            assert_eq!(filters, usize::from(self.way == Way::Clsact), "{name}");
            assert_eq!(ingress_programs(netns, name).len(), 1, "{name}");
            let by_priority = netns.ruleset().contains("type nat hook prerouting");
            assert_eq!(by_priority, self.way == Way::TcxByPriority, "{name}");
        }
    }

    /// Has iptables hold nothing but this table.
    fn restore(&self, half: &Half, table: &str) {
        let program = match self.family {
            Family::V4 => "iptables-legacy-restore",
            Family::V6 => "ip6tables-legacy-restore",
        };
        let lock = self.lab.dir().run_dir().join("xtables.lock");
        let lock = format!("XTABLES_LOCKFILE={}", lock.display());
        half.netns.tool("env", [lock.as_str(), program], table);
    }

    /// Sends the frames to both, gives what their conntracks hold afterwards,
    /// and has them forget it.
    pub(crate) fn run<'a>(
        &self,
        frames: impl Iterator<Item = &'a Frame> + Clone + Send,
    ) -> Outcome {
        thread::scope(|scope| {
            let reference = frames.clone();
            let reference = scope.spawn(|| self.reference.run(reference));
            let ours = scope.spawn(|| self.ours.run(frames));
            let joined = |half: thread::ScopedJoinHandle<'_, Tables>| {
                half.join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            Outcome {
                reference: joined(reference),
                ours: joined(ours),
            }
        })
    }
}

/// One of the two.
struct Half {
    id: Uuid,
    netns: Netns,
    family: Family,
    number: usize,
    conntrack: Conntrack,
    /// Into the router, from each side.
    sockets: OwnedFd,
    ways_in: [LinkAddr; 2],
}

/// Until conntrack has dealt with what was sent.
const PATIENCE: u32 = 500;

impl Half {
    fn new(lab: &Lab, outside: &Netns, family: Family, number: usize) -> Self {
        let id = Uuid::new_v4();
        let netns = lab.netns(&format!("qrouter-{id}"));
        // No address of its own, so no packets either.
        netns.sysctl("ipv6/conf/default/addr_gen_mode", "1");
        let interfaces = INTERFACES;
        let ends = [format!("in{number}"), format!("out{number}")];
        for ((side, name), end) in Side::BOTH.into_iter().zip(interfaces).zip(&ends) {
            connect(&netns, outside, side, name, end);
        }
        netns.sysctl("ipv4/ip_forward", "1");
        netns.sysctl("ipv6/conf/all/forwarding", "1");
        for place in ["all", "default", interfaces[0], interfaces[1]] {
            netns.sysctl(&format!("ipv4/conf/{place}/rp_filter"), "0");
        }
        // conntrack for all that passes, in both families, whatever the rules.
        netns.nft(
            "table inet tracked { chain forward {
                type filter hook forward priority 0;
                ct state new counter;
            }; }",
        );
        // How many fragments wait for others must not depend on how fast either
        // router is. They wait for a second: each packet's are sent together.
        for name in [
            "ipv4/ipfrag_high_thresh",
            "netfilter/nf_conntrack_frag6_high_thresh",
        ] {
            netns.sysctl(name, "268435456");
        }
        netns.sysctl("ipv4/ipfrag_max_dist", "0");
        for name in ["ipv4/ipfrag_time", "netfilter/nf_conntrack_frag6_timeout"] {
            netns.sysctl(name, "1");
        }
        let kind = match family {
            Family::V4 => AddressFamily::Inet,
            Family::V6 => AddressFamily::Inet6,
        };
        let (sockets, ways_in) = outside.run(|| {
            let flags = SockFlag::SOCK_CLOEXEC;
            let raw = socket(
                AddressFamily::Packet,
                SockType::Raw,
                flags,
                None::<SockProtocol>,
            );
            (
                raw.expect("a packet socket"),
                [way_in(&ends[0]), way_in(&ends[1])],
            )
        });
        Self {
            id,
            conntrack: Conntrack::open(&netns, kind),
            netns,
            family,
            number,
            sockets,
            ways_in,
        }
    }

    fn run<'a>(&self, frames: impl Iterator<Item = &'a Frame>) -> Tables {
        // Frames that pass one processor's queue stay in order.
        stay_on_one_processor(self.number);
        for frame in frames {
            self.send(frame);
        }
        let (last, last_tuple) = last(self.family);
        self.send(&last);
        let mut tries = 0;
        let mut connections = self.conntrack.connections();
        while connections.remove(&last_tuple).is_none() {
            tries += 1;
            assert!(tries < PATIENCE, "what was sent does not arrive");
            thread::sleep(Duration::from_millis(10));
            connections = self.conntrack.connections();
        }
        let expectations = self.conntrack.expectations();
        self.conntrack.flush();
        Tables {
            connections,
            expectations,
        }
    }

    fn send(&self, frame: &Frame) {
        let way_in = match frame.from {
            Side::Client => &self.ways_in[0],
            Side::Server => &self.ways_in[1],
        };
        let socket = self.sockets.as_raw_fd();
        let sent = sendto(socket, &frame.bytes, way_in, MsgFlags::empty());
        assert_eq!(sent, Ok(frame.bytes.len()), "{:02x?}", frame.bytes);
    }
}

/// A frame like no other, and its connection.
fn last(family: Family) -> (Frame, Tuple) {
    let source = Side::Client.address(family, LAST);
    let destination = Side::Server.address(family, HOSTS[0]);
    let ports = Ports {
        source: 1,
        destination: 9,
    };
    let packet = Packet::plain(source, destination, Segment::udp(ports, &[])).whole(1);
    let tuple = Tuple {
        source,
        destination,
        protocol: UDP,
        source_port: ports.source,
        destination_port: ports.destination,
        icmp: [0; 3],
    };
    (Frame::new(Side::Client, family, &[], &packet), tuple)
}

/// Connects the router's interface `name` with `end`, where no address is. All
/// neighbours are known, so that nobody has to ask.
fn connect(router: &Netns, outside: &Netns, side: Side, name: &str, end: &str) {
    let mac = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
    let (host, own) = (mac(side.host_mac()), mac(side.router_mac()));
    let at = outside.path().display();
    router.ip(&format!(
        "link add {name} address {own} mtu {MTU} type veth \
         peer name {end} address {host} mtu {MTU} netns {at}\n\
         link set {name} up\n"
    ));
    outside.ip(&format!("link set {end} up\n"));
    for family in [Family::V4, Family::V6] {
        let (length, nodad) = match family {
            Family::V4 => (24, ""),
            Family::V6 => (64, "nodad"),
        };
        let address = side.address(family, ROUTER);
        router.ip(&format!("addr add {address}/{length} dev {name} {nodad}\n"));
        for number in HOSTS.into_iter().chain([LAST]) {
            let address: IpAddr = side.address(family, number);
            router.ip(&format!(
                "neigh add {address} lladdr {host} dev {name} nud permanent\n"
            ));
        }
    }
}

/// The calling thread's namespace has it.
fn way_in(interface: &str) -> LinkAddr {
    let mut found = getifaddrs().expect("the interfaces");
    let found = found.find_map(|found| {
        let address = found.address?;
        (found.interface_name == interface).then(|| address.as_link_addr().copied())?
    });
    found.expect("the interface's address")
}

fn stay_on_one_processor(number: usize) {
    let own = Pid::from_raw(0);
    let allowed = sched_getaffinity(own).expect("the processors");
    let processors: Vec<_> = (0..CpuSet::count())
        .filter(|at| allowed.is_set(*at) == Ok(true))
        .collect();
    let mut one = CpuSet::new();
    one.set(processors[number % processors.len()])
        .expect("a processor");
    sched_setaffinity(own, &one).expect("one of them");
}
