//! What becomes of links, maps and counts while one instance takes another's
//! place, and of each moment at which the agent can die.

use std::{fs, path::Path};

use aya::maps::MapData;
use conntrack_agent::{
    config::Attach,
    kernel::{Build, Carrier, Hooks, Instance, NetnsFolder, Object, Pins, Usable},
    model::{Destination, Protocol},
    port_table::Capacity,
    reconcile::{Kernel as _, diff},
};
use conntrack_ebpf::abi::Counters;
use conntrack_tests::snapshot::ingress_programs;

use super::{INTERFACES, Real, World, desired};

const FTP: Destination = Destination {
    protocol: Protocol::Tcp,
    port: 21,
};

impl Real {
    fn instance(&self) -> Instance {
        open(&self.pinned())
    }

    /// The programs on its interfaces.
    fn programs(&self) -> [Vec<u32>; INTERFACES.len()] {
        INTERFACES.map(|(_, name)| ingress_programs(&self.netns, name))
    }

    fn object(&self) -> Object {
        let pins = Pins::of(&self.build, &self.config.bpffs_dir);
        let bits = self.config.mark_bits;
        Object::new(self.build.clone(), self.agent, bits, pins.shared())
    }

    fn maps(&self) -> [u32; 5] {
        ["PAGES", "SLOTS", "COUNTERS", "BASES", "IDENTITY"].map(|name| {
            let map = MapData::from_pin(self.pinned().join(name)).expect("a pinned map");
            map.info().expect("its description").id()
        })
    }

    fn counts(&self) -> Counters {
        let counters = self.instance().counters(FTP).expect("the counters");
        counters.expect("a rule")
    }

    /// Has what is attached there run this instance's program.
    fn replace(&self, pin: &Path, instance: &mut Instance) {
        let folder = NetnsFolder::new(self.lab.dir().netns_dir());
        let hooks = Hooks::to_remove(self.agent);
        assert!(hooks.replace(&folder, pin, instance).expect("an update"));
    }

    fn assert_only_instance(&self) {
        let [instance, successor, next] = self.pins().instances(self.router);
        assert!(instance.exists());
        assert!(!successor.exists() && !next.exists());
    }
}

fn open(folder: &Path) -> Instance {
    match Instance::open(folder) {
        Ok(Usable::Whole(instance)) => instance,
        _ => panic!("no whole instance in {}", folder.display()),
    }
}

/// Has the program count a packet to port 21, as if an interface had got it.
fn pass_packet(instance: &mut Instance) {
    use aya::programs::{TestRun as _, TestRunOptions};
    let packet = etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([10, 0, 1, 2], [10, 0, 2, 2], 64)
        .tcp(1024, FTP.port, 1, 64000);
    let mut frame = Vec::new();
    packet.write(&mut frame, &[]).expect("a frame");
    let options = TestRunOptions {
        data_in: Some(&frame),
        ..TestRunOptions::default()
    };
    instance.program().test_run(options).expect("a run");
}

fn another_program_works_on_the_same_maps(attach: Attach) {
    let mut world = Real::new(attach);
    let rules = desired([FTP.port]);
    world.reach(&rules);
    pass_packet(&mut world.instance());
    let (maps, programs, counts) = (world.maps(), world.programs(), world.counts());
    assert_eq!(counts.packets, 1);

    // The same program is no reason to do anything.
    world.restart(world.build.clone());
    world.assert_reached(&rules);
    assert_eq!(world.programs(), programs);

    world.rebuild_agent();
    world.reach(&rules);
    world.assert_reached(&rules);
    assert_eq!(world.maps(), maps);
    assert_eq!(world.counts(), counts);
    let now = world.programs();
    let id = world.instance().program_id();
    assert_eq!(now, [[id], [id]], "on both interfaces");
    assert_ne!(now, programs);
    world.assert_only_instance();

    // The twin: more room needs other maps.
    world.rebuild_agent();
    world.reach(&desired(1..=200));
    assert!(world.maps().iter().all(|id| !maps.contains(id)));
    assert_eq!(world.counts(), counts);
}

fn what_is_counted_while_the_maps_grow_is_not_lost(attach: Attach) {
    let mut world = Real::new(attach);
    world.reach(&desired([FTP.port]));
    let mut old = world.instance();
    pass_packet(&mut old);

    // The agent dies where each program has some of the links.
    let next = world.pins().next_instance(world.router);
    let capacity = Capacity {
        pages: 24,
        slots: 128,
    };
    Instance::create(
        &mut world.object(),
        &next,
        world.router,
        capacity,
        Carrier::Mark,
    )
    .expect("an instance");
    open(&next).take_over(&old).expect("a copy");
    let successor = world.pins().successor(world.router);
    fs::rename(&next, &successor).expect("a renamed folder");
    pass_packet(&mut old);
    let mut new = open(&successor);
    let first = world.pins().link(world.router, &world.netns.name(), 2);
    world.replace(&first, &mut new);
    pass_packet(&mut new);
    pass_packet(&mut old);

    world.restart(world.build.clone());
    world.assert_reached(&desired([FTP.port]));
    assert_eq!(world.instance().program_id(), new.program_id());
    assert_eq!(world.counts().packets, 4);
    world.assert_only_instance();
}

fn a_renewal_that_stops_anywhere_goes_on(attach: Attach) {
    type Step = fn(&Real, &mut Instance);
    let steps: [(&str, Step); 6] = [
        ("made", |world, old| {
            let next = world.pins().next_instance(world.router);
            old.create_twin(&mut world.object(), &next).expect("a twin");
        }),
        ("damaged while it was made", |world, _| {
            let next = world.pins().next_instance(world.router);
            fs::remove_file(next.join("classify")).expect("a pin");
            assert!(matches!(Instance::open(&next), Ok(Usable::Broken)));
            // As it was, for what follows.
            Instance::remove(&next).expect("its remains");
            let old = open(&world.pinned());
            old.create_twin(&mut world.object(), &next).expect("a twin");
        }),
        ("whole", |world, _| {
            let [_, successor, next] = world.pins().instances(world.router);
            fs::rename(next, successor).expect("a renamed folder");
        }),
        ("on one interface", |world, _| {
            let mut new = open(&world.pins().successor(world.router));
            let link = world.pins().link(world.router, &world.netns.name(), 2);
            world.replace(&link, &mut new);
        }),
        ("on both, and the old one half gone", |world, _| {
            let mut new = open(&world.pins().successor(world.router));
            let link = world.pins().link(world.router, &world.netns.name(), 3);
            world.replace(&link, &mut new);
            fs::remove_file(world.pinned().join("classify")).expect("a pin");
        }),
        ("the old one gone", |world, _| {
            Instance::remove(&world.pinned()).expect("its remains");
        }),
    ];
    for last in 0..steps.len() {
        let mut world = Real::new(attach);
        let rules = desired([FTP.port]);
        world.reach(&rules);
        let mut old = world.instance();
        pass_packet(&mut old);
        let (maps, program) = (world.maps(), old.program_id());
        let object = [world.build.object(), b"\n"].concat();
        world.build = Build::new(world.build.abi(), object);
        for (_, step) in &steps[..=last] {
            step(&world, &mut old);
        }
        let (what, _) = steps[last];
        world.restart(world.build.clone());
        world.reach(&desired([FTP.port, 22]));
        world.assert_reached(&desired([FTP.port, 22]));
        world.assert_only_instance();
        let id = world.instance().program_id();
        assert_eq!(world.programs(), [[id], [id]], "{what}");
        assert_ne!(id, program, "{what}");
        assert_eq!(world.maps(), maps, "{what}");
        assert_eq!(world.counts().packets, 1, "{what}");
    }
}

fn a_link_that_was_given_the_program_and_not_yet_moved_is_moved(attach: Attach) {
    let mut world = Real::new(attach);
    let rules = desired([FTP.port]);
    world.reach(&rules);
    let old_link = world.pins().link(world.router, &world.netns.name(), 2);
    world.next_abi();
    let effects = diff(&world.observe(), &rules).expect("a way");
    for effect in &effects[..2] {
        world.run(effect).expect("an effect");
    }
    world.replace(&old_link, &mut world.instance());
    let on_hook = world.programs()[0].clone();

    world.restart(world.build.clone());
    world.reach(&rules);
    world.assert_reached(&rules);
    assert!(!old_link.exists());
    assert_eq!(world.programs()[0], on_hook);
    assert_eq!(world.programs()[1], on_hook);
    assert!(world.pins().older().expect("the folders").is_empty());
}

/// The link is on an interface that went elsewhere with it; the number is another
/// one's by now.
fn an_older_link_that_is_elsewhere_is_not_taken_over(attach: Attach) {
    let mut world = Real::new(attach);
    let rules = desired([FTP.port]);
    world.reach(&rules);
    let elsewhere = world.lab.netns("elsewhere");
    let at = elsewhere.path().display();
    world.netns.ip(&format!("link set qr-1 netns {at}"));
    world
        .netns
        .ip("link add qr-2 index 2 type veth peer name far-2 index 9");
    world.next_abi();
    world.reach(&rules);
    world.assert_reached(&rules);
    let id = world.instance().program_id();
    assert_eq!(ingress_programs(&world.netns, "qr-2"), [id]);
    assert!(!world.observe().has_predecessor);
    let gone = || {
        ingress_programs(&elsewhere, "qr-1")
            .is_empty()
            .then_some(())
    };
    let gone = conntrack_tests::wait::until(std::time::Duration::from_secs(10), gone);
    gone.expect("the old link is released");
}

fn another_agents_older_instance_is_neither_used_nor_removed(attach: Attach) {
    let mut world = Real::new(attach);
    let folder = world.pinned();
    fs::create_dir_all(folder.parent().expect("a folder above")).expect("folders");
    let stranger = conntrack_agent::kernel::AgentId::random();
    let bits = world.config.mark_bits;
    let shared = world.pins().shared();
    let mut object = Object::new(world.build.clone(), stranger, bits, shared);
    Instance::create(
        &mut object,
        &folder,
        world.router,
        Capacity::DEFAULT,
        Carrier::Mark,
    )
    .expect("an instance");
    world.next_abi();
    let router = world.router;
    let refused = world.kernel().observe(router).map(drop);
    let refused = refused.expect_err("it is another's").to_string();
    assert!(refused.contains(&stranger.to_string()), "{refused}");
    assert_eq!(open(&folder).owner(), stranger);
}

macro_rules! in_both_ways {
    ($($check:ident)*) => {
        mod tcx {
            $(#[test] fn $check() { super::$check(super::Attach::Tcx); })*
        }
        mod clsact {
            $(#[test] fn $check() { super::$check(super::Attach::Clsact); })*
        }
    };
}

in_both_ways! {
    another_program_works_on_the_same_maps
    what_is_counted_while_the_maps_grow_is_not_lost
    a_renewal_that_stops_anywhere_goes_on
    a_link_that_was_given_the_program_and_not_yet_moved_is_moved
    an_older_link_that_is_elsewhere_is_not_taken_over
    another_agents_older_instance_is_neither_used_nor_removed
}
