//! What `trait Kernel` promises, checked on both implementations: what the
//! kernel in memory does was first seen on the real one.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "contract/carrier.rs"]
mod carrier;
#[path = "contract/renewal.rs"]
mod renewal;
#[path = "contract/xdp.rs"]
mod xdp;

use self::carrier::{a_change_of_carrier_can_be_undone_at_each_step, the_carrier_follows_nat};
use self::xdp::{
    an_xdp_link_that_somebody_took_away_comes_back, anothers_xdp_program_stays_and_is_followed,
    xdp_comes_behind_the_tc_program_and_goes_before_it,
    xdp_comes_in_another_mode_and_goes_when_it_is_not_wanted,
    xdp_links_outlive_a_program_and_an_abi, xdp_that_is_undone_was_never_there,
};
use aya::{maps::MapError, sys::SyscallError};
use conntrack_agent::{
    config::{Attach, AttachXdp, Config, Interfaces, XdpEntry, XdpInterfaces},
    kernel::{
        AgentId, Binding, BindingCarriers, BindingState, Build, Carrier, Error, Instance, Nft,
        Pins, Usable, XdpMode,
    },
    model::{Destination, Protocol, RouterId},
    port_table::{Amendment, Capacity, PartialTable, Wanted, Write},
    reconcile::{
        Desired, Effect, Host, InstanceState, InterfaceState, Kernel, Memory, Observed, diff,
        memory,
    },
};
use conntrack_ebpf::abi::Slot;
use conntrack_tests::{
    attach::Xdp,
    foreign::ForeignXdp,
    lab::Lab,
    netns::Netns,
    snapshot::{ingress_programs, xdp_on},
    wait,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    time::Duration,
};

const CURRENT: BindingState = BindingState::Reading(BindingCarriers::One(Carrier::Mark));

/// A kernel, and what somebody else can do to it.
trait World {
    type Kernel: Kernel;

    fn kernel(&mut self) -> &mut Self::Kernel;
    fn router(&self) -> RouterId;
    fn remove_interface(&mut self, index: u32);
    fn remove_namespace(&mut self);
    fn delete_table(&mut self);
    fn edit_table(&mut self);
    fn delete_link(&mut self, index: u32);
    fn delete_instance(&mut self);
    fn write(&mut self, write: &Write);
    fn rename_interface(&mut self, index: u32, name: &'static str);
    /// Has these interfaces classified, as another start would.
    fn classify(&mut self, patterns: &[&str]);
    /// Has these interfaces given the XDP program too, likewise.
    fn classify_by_xdp(&mut self, entries: &[(&str, XdpMode)]);
    /// Puts another's XDP program on interface 2, or takes it away.
    fn foreign_xdp(&mut self, is_there: bool);
    fn delete_xdp_link(&mut self, index: u32);
    /// Gives the namespace NAT, or takes it away.
    fn set_nat(&mut self, is_there: bool);
    /// From now on it is seen by an agent with a rebuilt program.
    fn rebuild_agent(&mut self);
    /// From now on it is seen by an agent with the next ABI.
    fn next_abi(&mut self);

    fn partial(&mut self, of: &Amendment) -> Option<PartialTable> {
        let router = self.router();
        let destinations = of.keys().copied().collect();
        let partial = self.kernel().partial(router, &destinations);
        partial.expect("an excerpt")
    }

    fn observe(&mut self) -> Observed {
        let router = self.router();
        self.kernel().observe(router).expect("an observation")
    }

    fn run(&mut self, effect: &Effect) -> Result<Option<Effect>, Error> {
        let router = self.router();
        self.kernel().run(router, effect)
    }

    /// Carries out what is missing; gives what takes it back, last first.
    fn reach(&mut self, desired: &Desired) -> Vec<Effect> {
        let observed = self.observe();
        let effects = diff(&observed, desired).expect("a way there");
        let undo = effects.iter().filter_map(|effect| {
            let done = self.run(effect);
            done.unwrap_or_else(|error| panic!("{effect}: {error}"))
        });
        let mut undo: Vec<_> = undo.collect();
        undo.reverse();
        undo
    }

    /// That nothing is left to do.
    fn assert_reached(&mut self, desired: &Desired) {
        let observed = self.observe();
        let effects = diff(&observed, desired).expect("a way there");
        assert_eq!(effects, [], "in {observed:?}");
    }
}

/// One router with one namespace of two interfaces, numbers 2 and 3.
const INTERFACES: [(u32, &str); 2] = [(2, "qr-1"), (3, "qg-1")];

struct InMemory {
    kernel: Memory,
    router: RouterId,
}

impl InMemory {
    fn new() -> Self {
        let router = random_router();
        let mut kernel = Memory::default();
        let interfaces = INTERFACES.map(|(index, name)| (index, (name.to_owned(), false)));
        let namespace = memory::MemoryNamespace {
            binding: None,
            has_nat: false,
            interfaces: interfaces.into(),
            xdp: BTreeMap::new(),
        };
        let name = format!("qrouter-{router}");
        kernel.router(router).namespaces.insert(name, namespace);
        Self { kernel, router }
    }

    fn namespace(&mut self) -> &mut memory::MemoryNamespace {
        let namespaces = &mut self.kernel.router(self.router).namespaces;
        namespaces.values_mut().next().expect("the namespace")
    }
}

impl World for InMemory {
    type Kernel = Memory;

    fn kernel(&mut self) -> &mut Memory {
        &mut self.kernel
    }

    fn router(&self) -> RouterId {
        self.router
    }

    fn remove_interface(&mut self, index: u32) {
        self.kernel.remove_interface(self.router, index);
    }

    fn remove_namespace(&mut self) {
        for (index, _) in INTERFACES {
            self.remove_interface(index);
        }
        self.kernel.router(self.router).namespaces.clear();
    }

    fn delete_table(&mut self) {
        self.namespace().binding = None;
    }

    fn edit_table(&mut self) {
        self.namespace().binding = Some(BindingState::Different);
    }

    fn set_nat(&mut self, is_there: bool) {
        self.namespace().has_nat = is_there;
    }

    fn delete_link(&mut self, index: u32) {
        let interface = self.namespace().interfaces.get_mut(&index);
        interface.expect("the interface").1 = false;
    }

    fn delete_instance(&mut self) {
        let router = self.kernel.router(self.router);
        router.instance = None;
        router.carrier = None;
    }

    fn rename_interface(&mut self, index: u32, name: &'static str) {
        let interface = self.namespace().interfaces.get_mut(&index);
        interface.expect("the interface").0 = name.into();
    }

    fn classify(&mut self, patterns: &[&str]) {
        self.kernel.classify(globs(patterns));
    }

    fn write(&mut self, write: &Write) {
        let instance = &mut self.kernel.router(self.router).instance;
        instance.as_mut().expect("an instance").apply(write);
    }

    fn rebuild_agent(&mut self) {
        self.kernel.router(self.router).is_outdated = true;
    }

    fn classify_by_xdp(&mut self, entries: &[(&str, XdpMode)]) {
        self.kernel.classify_by_xdp(xdp_interfaces(entries));
    }

    fn foreign_xdp(&mut self, is_there: bool) {
        let hooks = &mut self.namespace().xdp;
        if is_there {
            hooks.insert(2, memory::Xdp::Foreign);
        } else {
            hooks.remove(&2);
        }
    }

    fn delete_xdp_link(&mut self, index: u32) {
        self.namespace().xdp.remove(&index);
    }

    fn next_abi(&mut self) {
        let mut links = BTreeSet::new();
        for (name, namespace) in &mut self.kernel.router(self.router).namespaces {
            for xdp in namespace.xdp.values_mut() {
                if let memory::Xdp::Own(mode) = *xdp {
                    *xdp = memory::Xdp::Older(mode);
                }
            }
            for (index, (_, attached)) in &mut namespace.interfaces {
                if std::mem::take(attached) {
                    links.insert((name.clone(), *index));
                }
            }
        }
        let router = self.kernel.router(self.router);
        router.instance = None;
        router.carrier = None;
        router.predecessor = Some(links);
    }
}

struct Real {
    kernel: Host,
    config: Config,
    binding: Binding,
    router: RouterId,
    netns: Netns,
    agent: AgentId,
    build: Build,
    foreign_xdp: Option<ForeignXdp>,
    /// Dropped last.
    lab: Lab,
}

impl Real {
    fn new(attach: Attach) -> Self {
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

    /// Another agent process, with another edition or with the same.
    fn restart(&mut self, build: Build) {
        self.kernel = host(&build, &self.config, self.agent, &self.binding);
        self.build = build;
    }

    fn pins(&self) -> Pins {
        Pins::of(&self.build, self.lab.dir().agent_bpffs_dir())
    }

    fn pinned(&self) -> PathBuf {
        self.pins().instance(self.router)
    }

    fn table(&self) -> String {
        format!("inet conntrack-agent-{}", self.agent)
    }
}

impl World for Real {
    type Kernel = Host;

    fn kernel(&mut self) -> &mut Host {
        &mut self.kernel
    }

    fn router(&self) -> RouterId {
        self.router
    }

    fn remove_interface(&mut self, index: u32) {
        let interface = INTERFACES.iter().find(|(number, _)| *number == index);
        let (_, name) = interface.expect("one of the two");
        self.netns.ip(&format!("link del {name}"));
    }

    fn remove_namespace(&mut self) {
        let path = self.netns.path();
        rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH).expect("unmounting");
        fs::remove_file(path).expect("removing the namespace's file");
    }

    fn delete_table(&mut self) {
        self.netns.nft(&format!("delete table {}", self.table()));
    }

    fn set_nat(&mut self, is_there: bool) {
        self.netns.nft(if is_there {
            "table ip somebodys {\nchain c { type nat hook postrouting priority srcnat; }\n}"
        } else {
            "delete table ip somebodys"
        });
    }

    fn edit_table(&mut self) {
        let rule = format!("insert rule {} bind counter", self.table());
        self.netns.nft(&rule);
    }

    fn delete_link(&mut self, index: u32) {
        let pins = self.pins();
        let pin = pins.link(self.router, &self.netns.name(), index);
        let interface = INTERFACES.iter().find(|(number, _)| *number == index);
        let (_, name) = interface.expect("one of the two");
        if pin.is_dir() {
            let all = ["filter", "del", "dev", name, "ingress"];
            self.netns.tool("tc", all, "");
            return;
        }
        let before = ingress_programs(&self.netns, name);
        fs::remove_file(pin).expect("a pinned link");
        // The kernel lets go of a link some time after its last pin.
        let released = || (ingress_programs(&self.netns, name) != before).then_some(());
        let released = wait::until(Duration::from_secs(10), released);
        released.expect("the link is released");
    }

    fn delete_instance(&mut self) {
        Instance::remove(&self.pinned()).expect("a pinned instance");
    }

    fn rename_interface(&mut self, index: u32, name: &'static str) {
        let interface = INTERFACES.iter().find(|(number, _)| *number == index);
        let (_, old) = interface.expect("one of the two");
        self.netns.ip(&format!("link set {old} name {name}"));
    }

    fn classify(&mut self, patterns: &[&str]) {
        self.config.interfaces = globs(patterns);
        self.kernel = host(&self.build, &self.config, self.agent, &self.binding);
    }

    fn write(&mut self, write: &Write) {
        let Ok(Usable::Whole(mut instance)) = Instance::open(&self.pinned()) else {
            panic!("an instance");
        };
        instance.write(write).expect("a write");
    }

    fn rebuild_agent(&mut self) {
        let object = [self.build.object(), b"\n"].concat();
        self.restart(Build::new(self.build.abi(), object));
    }

    fn classify_by_xdp(&mut self, entries: &[(&str, XdpMode)]) {
        self.config.xdp = xdp_interfaces(entries);
        self.kernel = host(&self.build, &self.config, self.agent, &self.binding);
    }

    fn foreign_xdp(&mut self, is_there: bool) {
        let (_, name) = INTERFACES[0];
        self.foreign_xdp = is_there.then(|| ForeignXdp::attach(&self.netns, name, Xdp::Generic, 0));
        let settled = || (xdp_on(&self.netns, name).is_some() == is_there).then_some(());
        wait::until(Duration::from_secs(10), settled).expect("the kernel lets go of it");
    }

    fn delete_xdp_link(&mut self, index: u32) {
        let pins = self.pins();
        let pin = pins.xdp_link(self.router, &self.netns.name(), index);
        fs::remove_file(pin).expect("a pinned link");
        let interface = INTERFACES.iter().find(|(number, _)| *number == index);
        let (_, name) = interface.expect("one of the two");
        let released = || xdp_on(&self.netns, name).is_none().then_some(());
        wait::until(Duration::from_secs(10), released).expect("the link is released");
    }

    fn next_abi(&mut self) {
        let object = self.build.object().to_owned();
        self.restart(Build::new(self.build.abi() + 1, object));
    }
}

fn host(build: &Build, config: &Config, agent: AgentId, binding: &Binding) -> Host {
    let host = Host::new(build.clone(), config, agent, binding.clone());
    host.expect("a kernel that can be asked")
}

fn xdp_interfaces(entries: &[(&str, XdpMode)]) -> XdpInterfaces {
    let entry = |(name, mode): &(&str, XdpMode)| XdpEntry {
        name: (*name).into(),
        attach: match mode {
            XdpMode::Native => AttachXdp::Native,
            XdpMode::Generic => AttachXdp::Generic,
        },
    };
    let entries: Vec<_> = entries.iter().map(entry).collect();
    XdpInterfaces::of(&entries).expect("good patterns")
}

fn globs(patterns: &[&str]) -> Interfaces {
    let patterns: Vec<_> = patterns.iter().map(|&pattern| pattern.into()).collect();
    Interfaces::matching(&patterns).expect("good patterns")
}

fn random_router() -> RouterId {
    uuid::Uuid::new_v4().to_string().parse().expect("a UUID")
}

fn desired(ports: impl IntoIterator<Item = u16>) -> Desired {
    let to = |port| Destination {
        protocol: Protocol::Tcp,
        port,
    };
    ports.into_iter().map(|port| (to(port), 1)).collect()
}

fn rules(observed: &Observed) -> Wanted {
    match &observed.instance {
        InstanceState::Current(image) => image.rules(),
        other => panic!("no current instance: {other:?}"),
    }
}

fn what_is_brought_about_is_observed(mut world: impl World) {
    let router = world.router();
    let before = world.observe();
    assert_eq!(before.instance, InstanceState::Absent);
    let [namespace] = &before.namespaces[..] else {
        panic!("one namespace: {before:?}");
    };
    assert_eq!(namespace.name, format!("qrouter-{router}"));
    assert_eq!(namespace.binding, BindingState::Absent);
    let seen: Vec<_> = namespace
        .interfaces
        .iter()
        .map(|state| {
            assert!(!state.attached && !state.pinned);
            let interface = &state.attachment.interface;
            (interface.index, interface.name.as_str())
        })
        .collect();
    assert_eq!(seen, INTERFACES);
    assert!(!world.kernel().routers().unwrap().contains(&router));

    world.reach(&desired([21, 2121]));
    assert!(world.kernel().routers().unwrap().contains(&router));
    let after = world.observe();
    assert_eq!(rules(&after), desired([21, 2121]));
    assert_eq!(after.namespaces[0].binding, CURRENT);
    let interfaces = &after.namespaces[0].interfaces;
    assert!(
        interfaces
            .iter()
            .all(|state| state.attached && state.pinned)
    );
    assert_eq!(after.dead_links, [] as [PathBuf; 0]);
    world.assert_reached(&desired([21, 2121]));

    world.reach(&desired([21]));
    assert_eq!(rules(&world.observe()), desired([21]));
    world.reach(&desired([]));
    assert_eq!(world.observe(), before);
    assert!(!world.kernel().routers().unwrap().contains(&router));
}

fn what_is_undone_was_never_there(mut world: impl World) {
    let nothing = world.observe();
    for effect in world.reach(&desired([21])) {
        world.run(&effect).unwrap();
    }
    assert_eq!(world.observe(), nothing);

    world.reach(&desired([21]));
    let one = world.observe();
    for effect in world.reach(&desired([22, 23])) {
        world.run(&effect).unwrap();
    }
    assert_eq!(world.observe(), one);
}

fn a_larger_instance_has_the_same_rules(mut world: impl World) {
    world.reach(&desired([21]));
    world.reach(&desired(1..=200));
    let observed = world.observe();
    assert_eq!(rules(&observed), desired(1..=200));
    let InstanceState::Current(image) = &observed.instance else {
        panic!("no current instance");
    };
    assert_eq!(image.capacity().slots, 256);
    assert!(
        observed.namespaces[0]
            .interfaces
            .iter()
            .all(|state| state.attached)
    );
    world.assert_reached(&desired(1..=200));
}

fn just_what_somebody_took_away_comes_back(mut world: impl World) {
    let rules = desired([21]);
    world.reach(&rules);
    let whole = world.observe();
    let damages: [(&str, fn(&mut _)); 5] = [
        ("an emptied map entry", |world| {
            let slot = Slot::default();
            World::write(world, &Write::Slot { index: 1, slot });
        }),
        ("no table", World::delete_table),
        ("an edited table", World::edit_table),
        ("no link on 2", |world| World::delete_link(world, 2)),
        ("no link on 3", |world| World::delete_link(world, 3)),
    ];
    for (what, damage) in damages {
        damage(&mut world);
        let observed = world.observe();
        let effects = diff(&observed, &rules).unwrap();
        assert_eq!(effects.len(), 1, "{what}: {effects:?}");
        world.reach(&rules);
        assert_eq!(world.observe(), whole, "{what}");
    }
}

fn an_interface_that_goes_leaves_a_dead_link(mut world: impl World) {
    let rules = desired([21]);
    world.reach(&rules);
    world.remove_interface(3);
    let observed = world.observe();
    assert_eq!(observed.dead_links.len(), 1);
    assert_eq!(observed.namespaces[0].interfaces.len(), 1);
    world.reach(&rules);
    world.assert_reached(&rules);
    assert_eq!(world.observe().dead_links.len(), 0);
}

/// ENODEV, for real where the kernel is.
fn an_interface_that_goes_half_way_is_an_error_and_changes_nothing(mut world: impl World) {
    world.reach(&desired([21]));
    world.delete_link(3);
    let observed = world.observe();
    world.remove_interface(3);
    let effects = diff(&observed, &desired([21])).unwrap();
    let [attach @ Effect::Attach { .. }] = &effects[..] else {
        panic!("one attachment is missing: {effects:?}");
    };
    let error = world.run(attach).unwrap_err();
    assert!(matches!(error, Error::InterfaceGone { .. }), "{error:?}");
    world.assert_reached(&desired([21]));
}

fn a_namespace_that_goes_leaves_pins_to_reap(mut world: impl World) {
    world.reach(&desired([21]));
    world.remove_namespace();
    let observed = world.observe();
    assert_eq!(observed.namespaces, []);
    assert_eq!(observed.dead_links.len(), 2);
    world.reach(&desired([21]));
    let router = world.router();
    assert!(!world.kernel().routers().unwrap().contains(&router));
}

/// E2BIG, for real where the kernel is: the maps are smaller than the write
/// wants, and nothing of a row of writes stays when one is refused.
fn a_write_beyond_the_maps_is_refused_whole(mut world: impl World) {
    world.reach(&desired([21]));
    let before = world.observe();
    let InstanceState::Current(image) = &before.instance else {
        panic!("no current instance");
    };
    let slots = 1024;
    let large = image.resized(Capacity { pages: 30, slots });
    let edit = conntrack_agent::port_table::plan(&large, &desired(1..=200)).unwrap();
    let error = world.run(&Effect::WriteTable(edit)).unwrap_err();
    let Error::Map { source, .. } = &error else {
        panic!("the map refused it: {error:?}");
    };
    let MapError::SyscallError(SyscallError { io_error, .. }) = &**source else {
        panic!("the kernel refused it: {error:?}");
    };
    let too_big = rustix::io::Errno::TOOBIG.raw_os_error();
    assert_eq!(io_error.raw_os_error(), Some(too_big), "{error:?}");
    assert_eq!(world.observe(), before);
}

/// Of what a router has for some destinations, as much is told as is needed to
/// change it, and nothing where the router is not as it was.
fn a_part_can_be_changed_without_the_whole(mut world: impl World) {
    let to = |port| Destination {
        protocol: Protocol::Tcp,
        port,
    };
    let amendment = Amendment::from([
        (to(21), None),
        (to(22), Some(2)),
        (to(2121), Some(3)),
        (to(990), Some(4)),
    ]);
    assert_eq!(world.partial(&amendment), None, "there is no instance");
    world.reach(&desired([21, 22, 69]));
    let before = world.observe();
    // Somebody else takes what was free when it was last looked at.
    let slot = Slot::new(to(9), 1);
    world.write(&Write::Slot { index: 4, slot });

    let partial = world.partial(&amendment).expect("a router as it was");
    let edit = partial.amend(&amendment).unwrap();
    let undo = world.run(&Effect::WriteTable(edit)).unwrap().unwrap();
    let wanted = Wanted::from([(to(22), 2), (to(69), 1), (to(990), 4), (to(2121), 3)]);
    assert_eq!(rules(&world.observe()), wanted);
    let InstanceState::Current(image) = world.observe().instance else {
        panic!("no current instance");
    };
    assert_eq!(image.slot_at(4), slot, "it is not ours to write over");
    world.run(&undo).unwrap();
    world.write(&Write::Slot {
        index: 4,
        slot: Slot::default(),
    });
    assert_eq!(world.observe(), before);

    // Again and again, without an observation in between.
    for round in 0..100 {
        let port = 1000 + round;
        let change = Amendment::from([(to(port), Some(1)), (to(port - 1), None)]);
        let partial = world.partial(&change).expect("a router as it was");
        let edit = partial.amend(&change).unwrap();
        world.run(&Effect::WriteTable(edit)).unwrap();
    }
    assert_eq!(rules(&world.observe()), desired([21, 22, 69, 1099]));

    world.delete_instance();
    assert_eq!(world.partial(&amendment), None, "its instance is gone");
    world.reach(&desired([21]));
    assert!(world.partial(&amendment).is_some());
    world.remove_namespace();
    assert_eq!(world.partial(&amendment), None, "its namespace is gone");
}

fn the_interfaces_that_are_wanted_are_classified_and_no_others(mut world: impl World) {
    let rules = desired([21]);
    let names = |world: &mut dyn FnMut() -> Observed| {
        let observed = world();
        let interfaces = observed.namespaces[0].interfaces.iter();
        let named = interfaces.map(|state| {
            assert!(state.wanted && state.attached && state.pinned);
            state.attachment.interface.name.clone()
        });
        named.collect::<Vec<_>>()
    };
    world.classify(&["qr-*"]);
    world.reach(&rules);
    assert_eq!(names(&mut || world.observe()), ["qr-1"]);

    world.classify(&["q[rg]-*", "x"]);
    world.reach(&rules);
    assert_eq!(names(&mut || world.observe()), ["qr-1", "qg-1"]);

    // One that is renamed is another; what it had of ours is not left there.
    world.rename_interface(2, "other");
    let observed = world.observe();
    let renamed = &observed.namespaces[0].interfaces[0];
    assert!(!renamed.wanted && renamed.pinned, "{observed:?}");
    world.reach(&rules);
    world.assert_reached(&rules);
    assert_eq!(names(&mut || world.observe()), ["qg-1"]);
    world.classify(&["nothing"]);
    world.reach(&rules);
    assert_eq!(names(&mut || world.observe()), [""; 0]);
    world.classify(&["*"]);
    world.reach(&rules);
    assert_eq!(names(&mut || world.observe()), ["other", "qg-1"]);
}

fn another_program_takes_the_place_of_one(mut world: impl World) {
    world.reach(&desired([21, 22]));
    let before = world.observe();
    world.rebuild_agent();
    let observed = world.observe();
    let InstanceState::Outdated(image) = &observed.instance else {
        panic!("it is another program: {observed:?}");
    };
    assert_eq!(image.rules(), desired([21, 22]));
    assert_eq!(world.partial(&Amendment::new()), None, "all of it is due");
    let effects = diff(&observed, &desired([21, 22])).unwrap();
    let [Effect::RenewInstance(_)] = &effects[..] else {
        panic!("all else is as it should be: {effects:?}");
    };
    world.reach(&desired([21, 22]));
    assert_eq!(world.observe(), before);
    world.assert_reached(&desired([21, 22]));

    // With a change of the rules, with more of them than fit, with none.
    world.rebuild_agent();
    world.reach(&desired([22, 23]));
    assert_eq!(rules(&world.observe()), desired([22, 23]));
    world.rebuild_agent();
    world.reach(&desired(1..=200));
    world.assert_reached(&desired(1..=200));
    world.rebuild_agent();
    world.reach(&desired([]));
    world.assert_reached(&desired([]));
    let router = world.router();
    assert!(!world.kernel().routers().unwrap().contains(&router));
}

fn another_abi_takes_over_and_leaves_nothing_of_the_one_before(mut world: impl World) {
    world.reach(&desired([21]));
    let before = world.observe();
    world.next_abi();
    let router = world.router();
    assert!(world.kernel().routers().unwrap().contains(&router));
    let observed = world.observe();
    assert!(observed.has_predecessor);
    assert_eq!(observed.instance, InstanceState::Absent);
    assert_eq!(observed.dead_links, [] as [PathBuf; 0]);
    let effects = diff(&observed, &desired([21])).unwrap();
    let [
        Effect::LoadInstance(..),
        Effect::WriteTable(_),
        Effect::TakeOver { .. },
        Effect::TakeOver { .. },
        Effect::RemovePredecessor,
    ] = &effects[..]
    else {
        panic!("filled first, removed last: {effects:?}");
    };
    world.reach(&desired([21]));
    let after = world.observe();
    assert!(!after.has_predecessor);
    assert_eq!(after.instance, before.instance);
    let interfaces = &after.namespaces[0].interfaces;
    let taken =
        |state: &InterfaceState| state.attached && state.pinned && state.inherited.is_none();
    assert!(interfaces.iter().all(taken), "{after:?}");
    world.assert_reached(&desired([21]));

    // With a change of the rules.
    world.next_abi();
    world.reach(&desired([22, 23]));
    assert_eq!(rules(&world.observe()), desired([22, 23]));
    world.assert_reached(&desired([22, 23]));

    // And where there are no rules any more.
    world.next_abi();
    world.reach(&desired([]));
    world.assert_reached(&desired([]));
    assert!(!world.kernel().routers().unwrap().contains(&router));
}

/// Each effect of a takeover can be the last one before the agent dies.
fn a_takeover_that_stops_anywhere_goes_on(mut world: impl World) {
    world.reach(&desired([21]));
    for done in 0..5 {
        world.next_abi();
        let observed = world.observe();
        let effects = diff(&observed, &desired([21])).unwrap();
        assert_eq!(effects.len(), 5);
        for effect in &effects[..done] {
            world.run(effect).unwrap();
        }
        world.reach(&desired([21, 22]));
        assert_eq!(rules(&world.observe()), desired([21, 22]), "after {done}");
        world.assert_reached(&desired([21, 22]));
        world.reach(&desired([21]));
    }
}

fn an_older_links_interface_that_goes_leaves_a_dead_link(mut world: impl World) {
    world.reach(&desired([21]));
    world.next_abi();
    world.remove_interface(3);
    let observed = world.observe();
    let interfaces = &observed.namespaces[0].interfaces;
    assert!(interfaces.iter().all(|state| state.inherited.is_some()));
    world.reach(&desired([21]));
    world.assert_reached(&desired([21]));
    assert!(!world.observe().has_predecessor);
}

macro_rules! on_both {
    ($($check:ident)*) => {
        mod in_memory {
            $(#[test] fn $check() { super::$check(super::InMemory::new()); })*
        }
        mod tcx {
            $(#[test] fn $check() {
                super::$check(super::Real::new(super::Attach::Tcx));
            })*
        }
        mod clsact {
            $(#[test] fn $check() {
                super::$check(super::Real::new(super::Attach::Clsact));
            })*
        }
    };
}

on_both! {
    the_carrier_follows_nat
    a_change_of_carrier_can_be_undone_at_each_step
    what_is_brought_about_is_observed
    what_is_undone_was_never_there
    a_larger_instance_has_the_same_rules
    just_what_somebody_took_away_comes_back
    an_interface_that_goes_leaves_a_dead_link
    an_interface_that_goes_half_way_is_an_error_and_changes_nothing
    a_namespace_that_goes_leaves_pins_to_reap
    a_write_beyond_the_maps_is_refused_whole
    a_part_can_be_changed_without_the_whole
    the_interfaces_that_are_wanted_are_classified_and_no_others
    another_program_takes_the_place_of_one
    another_abi_takes_over_and_leaves_nothing_of_the_one_before
    a_takeover_that_stops_anywhere_goes_on
    an_older_links_interface_that_goes_leaves_a_dead_link
    xdp_comes_behind_the_tc_program_and_goes_before_it
    xdp_that_is_undone_was_never_there
    xdp_comes_in_another_mode_and_goes_when_it_is_not_wanted
    anothers_xdp_program_stays_and_is_followed
    an_xdp_link_that_somebody_took_away_comes_back
    xdp_links_outlive_a_program_and_an_abi
}
