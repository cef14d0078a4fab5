//! What becomes of links, maps and counts while one instance takes another's
//! place, and of each moment at which the agent can die.

use std::{fs, path::Path};

use aya::maps::MapData;
use conntrack_agent::{
    kernel::{AgentId, Carrier, Hooks, Instance, NetnsFolder, Object, Usable},
    model::Destination,
    port_table::Capacity,
};
use conntrack_ebpf::abi::Counters;
use conntrack_tests::snapshot::ingress_programs;

use super::host::{Real, open, wait_until};
use super::{Act, INTERFACES, World, tcp};

const FTP: Destination = tcp(21);

impl Real {
    fn instance(&self) -> Instance {
        open(&self.pinned())
    }

    /// The programs on its interfaces.
    fn programs(&self) -> [Vec<u32>; INTERFACES.len()] {
        INTERFACES.map(|(_, name)| ingress_programs(&self.netns, name))
    }

    fn object(&self, agent: AgentId) -> Object {
        let shared = self.pins().shared();
        Object::new(self.build.clone(), agent, self.config.mark_bits, shared)
    }

    /// Makes an instance of an agent's in a folder.
    fn create(&self, agent: AgentId, folder: &Path, capacity: Capacity) {
        let mut object = self.object(agent);
        Instance::create(&mut object, folder, self.router, capacity, Carrier::Mark)
            .expect("an instance");
    }

    fn create_twin(&self, old: &Instance) {
        let next = self.pins().next_instance(self.router);
        let twin = old.create_twin(&mut self.object(self.agent), &next);
        twin.expect("a twin");
    }

    /// Makes the link on an interface run the successor's program.
    fn move_link(&self, index: u32) {
        let mut new = open(&self.pins().successor(self.router));
        let link = self.pins().link(self.router, &self.netns.name(), index);
        self.replace(&link, &mut new);
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

    /// Makes the link at this pin run an instance's program.
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

fn another_program_works_on_the_same_maps(mut world: Real) {
    world.settle("at first", [FTP.port]);
    pass_packet(&mut world.instance());
    let (maps, programs, counts) = (world.maps(), world.programs(), world.counts());
    assert_eq!(counts.packets, 1);

    // The same program is no reason to do anything.
    world.restart();
    assert_eq!(world.missing([FTP.port]), []);
    assert_eq!(world.programs(), programs);

    world.change(Act::Rebuild);
    world.settle("another program", [FTP.port]);
    assert_eq!(world.maps(), maps);
    assert_eq!(world.counts(), counts);
    let now = world.programs();
    let id = world.instance().program_id();
    assert_eq!(now, [[id], [id]], "on both interfaces");
    assert_ne!(now, programs);
    world.assert_only_instance();

    // The twin: more room needs other maps.
    world.change(Act::Rebuild);
    world.settle("more rules", 1..=200);
    assert!(world.maps().iter().all(|id| !maps.contains(id)));
    assert_eq!(world.counts(), counts);
}

fn what_is_counted_while_the_maps_grow_is_not_lost(mut world: Real) {
    world.reach([FTP.port]);
    let mut old = world.instance();
    pass_packet(&mut old);

    // The agent dies where each program has some of the links.
    let [_, successor, next] = world.pins().instances(world.router);
    let (pages, slots) = (24, 128);
    world.create(world.agent, &next, Capacity { pages, slots });
    open(&next).take_over(&old).expect("a copy");
    fs::rename(&next, &successor).expect("a renamed folder");
    pass_packet(&mut old);
    world.move_link(2);
    let mut new = open(&successor);
    pass_packet(&mut new);
    pass_packet(&mut old);

    world.restart();
    assert_eq!(world.missing([FTP.port]), []);
    assert_eq!(world.instance().program_id(), new.program_id());
    assert_eq!(world.counts().packets, 4);
    world.assert_only_instance();
}

fn a_renewal_that_stops_anywhere_goes_on(mut world: Real) {
    type Step = fn(&Real, &Instance);
    let steps: [(&str, Step); 6] = [
        ("made", Real::create_twin),
        ("damaged while it was made", |world, old| {
            let next = world.pins().next_instance(world.router);
            fs::remove_file(next.join("classify")).expect("a pin");
            assert!(matches!(Instance::open(&next), Ok(Usable::Broken)));
            // As it was, for what follows.
            Instance::remove(&next).expect("its remains");
            world.create_twin(old);
        }),
        ("whole", |world, _| {
            let [_, successor, next] = world.pins().instances(world.router);
            fs::rename(next, successor).expect("a renamed folder");
        }),
        ("on one interface", |world, _| world.move_link(2)),
        ("on both, and the old one half gone", |world, _| {
            world.move_link(3);
            fs::remove_file(world.pinned().join("classify")).expect("a pin");
        }),
        ("the old one gone", |world, _| {
            Instance::remove(&world.pinned()).expect("its remains");
        }),
    ];
    for (last, (what, _)) in steps.iter().enumerate() {
        world = Real::new(world.config.attach);
        world.reach([FTP.port]);
        let mut old = world.instance();
        pass_packet(&mut old);
        let (maps, program) = (world.maps(), old.program_id());
        world.rebuild();
        for (_, step) in &steps[..=last] {
            step(&world, &old);
        }
        world.restart();
        world.settle(what, [FTP.port, 22]);
        world.assert_only_instance();
        let id = world.instance().program_id();
        assert_eq!(world.programs(), [[id], [id]], "{what}");
        assert_ne!(id, program, "{what}");
        assert_eq!(world.maps(), maps, "{what}");
        assert_eq!(world.counts().packets, 1, "{what}");
    }
}

fn a_link_that_was_given_the_program_and_not_yet_moved_is_moved(mut world: Real) {
    world.reach([FTP.port]);
    let old_link = world.pins().link(world.router, &world.netns.name(), 2);
    world.change(Act::NextAbi);
    for effect in &world.missing([FTP.port])[..2] {
        world.run(effect).expect("an effect");
    }
    world.replace(&old_link, &mut world.instance());
    let [on_hook, _] = world.programs();

    world.restart();
    world.settle("moved", [FTP.port]);
    assert!(!old_link.exists());
    assert_eq!(world.programs(), [on_hook.clone(), on_hook]);
    assert!(world.pins().older().expect("the folders").is_empty());
}

/// The link is on an interface that went elsewhere with it; the number is another
/// one's by now.
fn an_older_link_that_is_elsewhere_is_not_taken_over(mut world: Real) {
    world.reach([FTP.port]);
    let elsewhere = world.lab.netns("elsewhere");
    let at = elsewhere.path().display();
    world.netns.ip(&format!("link set qr-1 netns {at}"));
    let other = "link add qr-2 index 2 type veth peer name far-2 index 9";
    world.netns.ip(other);
    world.change(Act::NextAbi);
    world.settle("another ABI", [FTP.port]);
    let id = world.instance().program_id();
    assert_eq!(ingress_programs(&world.netns, "qr-2"), [id]);
    assert!(!world.observe().has_predecessor);
    wait_until(|| ingress_programs(&elsewhere, "qr-1").is_empty());
}

fn another_agents_older_instance_is_neither_used_nor_removed(mut world: Real) {
    let folder = world.pinned();
    fs::create_dir_all(folder.parent().expect("a folder above")).expect("folders");
    let stranger = AgentId::random();
    world.create(stranger, &folder, Capacity::DEFAULT);
    world.change(Act::NextAbi);
    let (kernel, router) = world.kernel();
    let refused = kernel.observe(router).map(drop);
    let refused = refused.expect_err("it is another's").to_string();
    assert!(refused.contains(&stranger.to_string()), "{refused}");
    assert_eq!(open(&folder).owner(), stranger);
}

on_host! {
    another_program_works_on_the_same_maps
    what_is_counted_while_the_maps_grow_is_not_lost
    a_renewal_that_stops_anywhere_goes_on
    a_link_that_was_given_the_program_and_not_yet_moved_is_moved
    an_older_link_that_is_elsewhere_is_not_taken_over
    another_agents_older_instance_is_neither_used_nor_removed
}
