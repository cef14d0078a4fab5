//! The real kernel with a router.

use std::{
    fs,
    path::{Path, PathBuf},
};

use conntrack_agent::{
    config::{Attach, Config},
    kernel::{AgentId, Binding, Build, Instance, Nft, Pins, Usable},
    model::RouterId,
    port_table::Write,
    reconcile::{Host, Kernel},
};
use conntrack_tests::{
    attach::Xdp,
    foreign::ForeignXdp,
    lab::Lab,
    netns::Netns,
    snapshot::{ingress_programs, xdp_on},
    wait,
};

use super::{Act, INTERFACES, World, interfaces, random_router, xdp_interfaces};

pub(super) struct Real {
    kernel: Host,
    pub(super) config: Config,
    binding: Binding,
    pub(super) router: RouterId,
    pub(super) netns: Netns,
    pub(super) agent: AgentId,
    pub(super) build: Build,
    foreign_xdp: Option<ForeignXdp>,
    /// Dropped last.
    pub(super) lab: Lab,
}

impl Real {
    pub(super) fn new(attach: Attach) -> Self {
        let lab = Lab::new();
        let router = random_router();
        let netns = lab.netns(&format!("qrouter-{router}"));
        let far = lab.netns("far");
        for (index, name) in INTERFACES {
            let far = far.path().display();
            let peer = format!("peer name {name} netns {far}");
            netns.ip(&format!("link add {name} index {index} type veth {peer}"));
        }
        let config = Config {
            bpffs_dir: lab.dir().agent_bpffs_dir(),
            netns_dir: lab.dir().netns_dir(),
            attach,
            ..Config::default()
        };
        let agent = AgentId::random();
        let binding = Binding::probe(Nft::new(&config.nft), agent, config.mark_bits).expect("nft");
        let build = Build::built_in();
        Self {
            kernel: host(&build, &config, agent, &binding),
            config,
            binding,
            build,
            router,
            netns,
            agent,
            foreign_xdp: None,
            lab,
        }
    }

    /// Starts another agent process, by the configuration as it is now.
    pub(super) fn restart(&mut self) {
        self.kernel = host(&self.build, &self.config, self.agent, &self.binding);
    }

    /// Gives the next agent process a program that does the same and is another.
    pub(super) fn rebuild(&mut self) {
        let object = [self.build.object(), b"\n"].concat();
        self.build = Build::new(self.build.abi(), object);
    }

    pub(super) fn pins(&self) -> Pins {
        Pins::of(&self.build, self.lab.dir().agent_bpffs_dir())
    }

    pub(super) fn pinned(&self) -> PathBuf {
        self.pins().instance(self.router)
    }

    fn table(&self) -> String {
        format!("inet conntrack-agent-{}", self.agent)
    }

    fn delete_link(&self, index: u32) {
        let pin = self.pins().link(self.router, &self.netns.name(), index);
        let name = name_of(index);
        if pin.is_dir() {
            let all = ["filter", "del", "dev", name, "ingress"];
            self.netns.tool("tc", all, "");
            return;
        }
        let before = ingress_programs(&self.netns, name);
        fs::remove_file(pin).expect("a pinned link");
        wait_until(|| ingress_programs(&self.netns, name) != before);
    }
}

impl World for Real {
    fn kernel(&mut self) -> (&mut dyn Kernel, RouterId) {
        (&mut self.kernel, self.router)
    }

    fn change(&mut self, change: Act) {
        match change {
            Act::RemoveInterface(index) => {
                self.netns.ip(&format!("link del {}", name_of(index)));
            }
            Act::RenameInterface(index, name) => {
                let old = name_of(index);
                self.netns.ip(&format!("link set {old} name {name}"));
            }
            Act::RemoveNamespace => {
                let path = self.netns.path();
                let flags = rustix::mount::UnmountFlags::DETACH;
                rustix::mount::unmount(path, flags).expect("unmounting");
                fs::remove_file(path).expect("removing the namespace's file");
            }
            Act::DeleteTable => self.netns.nft(&format!("delete table {}", self.table())),
            Act::EditTable => {
                let rule = format!("insert rule {} bind counter", self.table());
                self.netns.nft(&rule);
            }
            Act::DeleteLink(index) => self.delete_link(index),
            Act::DeleteXdpLink(index) => {
                let pin = self.pins().xdp_link(self.router, &self.netns.name(), index);
                fs::remove_file(pin).expect("a pinned link");
                wait_until(|| xdp_on(&self.netns, name_of(index)).is_none());
            }
            Act::DeleteInstance => {
                Instance::remove(&self.pinned()).expect("a pinned instance");
            }
            Act::WriteSlot(index, slot) => {
                let write = Write::Slot { index, slot };
                open(&self.pinned()).write(&write).expect("a write");
            }
            Act::SetNat(true) => self.netns.nft(
                "table ip somebodys {\nchain c { type nat hook postrouting priority srcnat; }\n}",
            ),
            Act::SetNat(false) => self.netns.nft("delete table ip somebodys"),
            Act::SetForeignXdp(is_there) => {
                let netns = &self.netns;
                let (_, name) = INTERFACES[0];
                self.foreign_xdp =
                    is_there.then(|| ForeignXdp::attach(netns, name, Xdp::Generic, 0));
                wait_until(|| xdp_on(netns, name).is_some() == is_there);
            }
            Act::Classify(patterns) => {
                self.config.interfaces = interfaces(patterns);
                self.restart();
            }
            Act::ClassifyByXdp(entries) => {
                self.config.xdp = xdp_interfaces(entries);
                self.restart();
            }
            Act::Rebuild => {
                self.rebuild();
                self.restart();
            }
            Act::NextAbi => {
                let object = self.build.object().to_owned();
                self.build = Build::new(self.build.abi() + 1, object);
                self.restart();
            }
        }
    }
}

/// Opens a whole instance.
pub(super) fn open(folder: &Path) -> Instance {
    match Instance::open(folder) {
        Ok(Usable::Whole(instance)) => instance,
        _ => panic!("no whole instance in {}", folder.display()),
    }
}

/// Waits until the kernel has let go of a link, which it does some time after the
/// link's last pin, or has taken one.
pub(super) fn wait_until(condition: impl Fn() -> bool) {
    let settled = wait::until(wait::patience(), || condition().then_some(()));
    settled.expect("the state of an interface's hook");
}

fn host(build: &Build, config: &Config, agent: AgentId, binding: &Binding) -> Host {
    let host = Host::new(build.clone(), config, agent, binding.clone());
    host.expect("a kernel that can be asked")
}

fn name_of(index: u32) -> &'static str {
    let interface = INTERFACES.iter().find(|(number, _)| *number == index);
    interface.expect("one of the two").1
}
