//! Routers without hosts: a namespace each, with interfaces and rules.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use conntrack_agent::kernel::Pins;
use conntrack_agent::model::{Helper, Port, Protocol, RouterId, RuleTarget};
use conntrack_tests::durable::{Rules, rules_file};
use conntrack_tests::lab::Lab;
use conntrack_tests::netns::Netns;
use conntrack_tests::snapshot::ingress_programs;
use conntrack_tests::wait;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use uuid::Uuid;

/// As a router with a gateway and two networks has them.
pub(crate) const INTERFACES: [&str; 3] = ["qr-1", "qr-2", "qg-1"];
/// On each router.
pub(crate) const RULES: usize = 10;

/// Of the rules' ports, which lie in as many pages of the port table.
const STRIDE: usize = 7919;
/// The kernel lets go of programs some time after the last pin of them.
const RELEASE: Duration = Duration::from_mins(1);

/// All routers of the lab.
pub(crate) struct Fleet {
    routers: Vec<(RouterId, Netns)>,
    /// Where the other ends of all interfaces are.
    _far: Netns,
    lab: Lab,
}

impl Fleet {
    pub(crate) fn new(count: usize) -> Self {
        let lab = Lab::new();
        let far = lab.netns("far");
        let routers = (0..count).map(|number| {
            let id: RouterId = Uuid::new_v4().to_string().parse().expect("a UUID");
            let netns = lab.netns(&format!("qrouter-{id}"));
            let mut commands = String::new();
            for (index, name) in INTERFACES.iter().enumerate() {
                let peer = format!("p{number}.{index}");
                let far = far.path().display();
                let _infallible = writeln!(
                    commands,
                    "link add {name} type veth peer name {peer} netns {far}\nlink set {name} up"
                );
            }
            netns.ip(&commands);
            (id, netns)
        });
        Self {
            routers: routers.collect(),
            _far: far,
            lab,
        }
    }

    pub(crate) fn lab(&self) -> &Lab {
        &self.lab
    }

    pub(crate) fn len(&self) -> usize {
        self.routers.len()
    }

    /// The router with this number, again from the first after the last.
    pub(crate) fn router(&self, number: usize) -> RouterId {
        self.routers[number % self.routers.len()].0
    }

    /// The rules file with all routers' rules.
    pub(crate) fn rules(&self) -> String {
        let routers = self.routers.iter();
        let rules = routers.flat_map(|(id, _)| (0..RULES).map(|number| rule(*id, number)));
        rules_file(&rules.collect::<Rules>())
    }

    /// Waits until no interface is served by a tc filter any more; how long that
    /// was.
    pub(crate) fn until_linked(&self) -> Duration {
        let begun = Instant::now();
        let pins = Pins::new(self.lab.dir().agent_bpffs_dir());
        let is_linked = |router: RouterId| {
            let links = pins.links_of(router).expect("the links");
            links.iter().all(|pin| !pin.is_dir())
        };
        let linked = || {
            let mut routers = self.routers.iter();
            routers.all(|(id, _)| is_linked(*id)).then_some(())
        };
        wait::until(4 * wait::patience(), linked).expect("links alone");
        begun.elapsed()
    }

    /// Takes all away that a reboot would: pins, programs, tables. Rules and
    /// namespaces stay; no agent may be running.
    pub(crate) fn lose_kernel_state(&self) {
        let bpffs = self.lab.dir().bpf_dir();
        unmount(&bpffs, UnmountFlags::DETACH).expect("the lab's bpffs");
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("bpf", &bpffs, "bpf", flags, None).expect("another bpffs");
        for (_, netns) in &self.routers {
            netns.nft("flush ruleset");
        }
        self.wait_for_release();
    }

    /// That nothing is left on any interface, nor in any table.
    pub(crate) fn assert_clean(&self) {
        self.wait_for_release();
        for (router, netns) in &self.routers {
            assert_eq!(netns.ruleset(), "", "tables of {router}");
        }
        let pins = self.lab.dir().agent_bpffs_dir();
        assert!(!pins.exists(), "something is pinned");
    }

    fn wait_for_release(&self) {
        for (router, netns) in &self.routers {
            let released = || {
                let mut interfaces = INTERFACES.iter();
                let clean = interfaces.all(|name| ingress_programs(netns, name).is_empty());
                clean.then_some(())
            };
            wait::until(RELEASE, released)
                .unwrap_or_else(|| panic!("programs are left on {router}"));
        }
    }
}

/// ftp and tftp in turn, each on a port of its own.
pub(crate) fn rule(router: RouterId, number: usize) -> RuleTarget {
    let (name, protocol) = if number.is_multiple_of(2) {
        ("ftp", Protocol::Tcp)
    } else {
        ("tftp", Protocol::Udp)
    };
    let port = i64::try_from(1 + number * STRIDE % 65535).expect("a port");
    RuleTarget {
        router,
        port: Port::try_from(port).expect("a port"),
        helper: Helper::new(name, protocol).expect("a helper"),
    }
}
