//! How the agent's program gets onto interfaces: by tcx, by tc filters, and
//! from one to the other; on which interfaces; beside whom.

use std::fs;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use conntrack_agent::kernel::{Hooks, NetnsFolder};
use conntrack_tests::agent::{Agent, Config, Reload};
use conntrack_tests::foreign::ForeignProgram;
use conntrack_tests::lab::Lab;
use conntrack_tests::router_lab::{RouterLab, any_router};
use conntrack_tests::snapshot::{assert_same, filter_programs, ingress_programs};
use conntrack_tests::wait;

const INTERFACES: [&str; 2] = ["qr-1", "qg-1"];

/// A router of two interfaces that are each other's peer, by tc filters.
struct Fixture(RouterLab);

impl Deref for Fixture {
    type Target = RouterLab;

    fn deref(&self) -> &RouterLab {
        &self.0
    }
}

impl Fixture {
    fn new() -> Self {
        let [one, other] = INTERFACES;
        let interfaces = format!("link add {one} type veth peer name {other}");
        Self(RouterLab::make(&Lab::new(), any_router(), &interfaces))
    }

    fn by(&self, way: &str) -> Config {
        self.config().with("attach", format!("{way:?}"))
    }

    fn start(&self, way: &str) -> Agent {
        self.start_with(&self.by(way))
    }

    fn program(&self) -> u32 {
        self.instance().expect("an instance").program_id()
    }

    fn tc(&self, command: &str) -> String {
        self.netns.tool("tc", command.split_whitespace(), "")
    }

    /// The programs on the interface, when those are this many: the kernel lets
    /// go of a link some time after its pin is removed.
    fn programs(&self, interface: &str, count: usize) -> Vec<u32> {
        let found = || {
            let found = ingress_programs(&self.netns, interface);
            (found.len() == count).then_some(found)
        };
        wait::until(wait::patience(), found)
            .unwrap_or_else(|| panic!("{:?}", ingress_programs(&self.netns, interface)))
    }
}

#[test]
fn filters_survive_the_agent_and_are_taken_over_as_they_are() {
    let fixture = Fixture::new();
    let before = fixture.snapshot();
    let agent = fixture.start("clsact");
    let program = fixture.program();
    for interface in INTERFACES {
        assert_eq!(filter_programs(&fixture.netns, interface), [program]);
    }
    assert!(fixture.links().iter().all(|pin| pin.is_dir()));
    assert_eq!(agent.kill().code, None);
    let listing = || INTERFACES.map(|name| fixture.tc(&format!("filter show dev {name} ingress")));
    let filters = listing();
    assert!(filters.iter().all(|text| text.contains("conntrack-agent-")));

    let agent = fixture.start("clsact");
    agent.wait_for_log("effects=0");
    assert_eq!(listing(), filters);
    assert_eq!(agent.kill().code, None);
    fixture.assert_cleans_up();
    assert_same(&before, &fixture.snapshot());
}

/// At no moment is an interface without one of the two, and in the end there
/// is one.
#[test]
fn another_way_at_the_next_start_leaves_no_gap() {
    let fixture = Fixture::new();
    let before = fixture.snapshot();
    assert_eq!(fixture.start("tcx").kill().code, None);
    let instance = fixture.instance().expect("an instance");
    let program = instance.program_id();
    let hooks = Hooks::probe(instance.owner()).expect("a kernel that can be asked");
    let folder = NetnsFolder::new(fixture.lab.dir().netns_dir());
    let opened = folder.open(&fixture.netns.name());
    let netns = opened.expect("a namespace").expect("one");
    let bare = || {
        let found = hooks.look(&netns).expect("the interfaces");
        let mut real = found
            .iter()
            .filter(|ingress| INTERFACES.contains(&ingress.interface.name.as_str()));
        real.any(|ingress| !ingress.programs().any(|id| id == program))
    };
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let stopped = Stop(&stop);
        let watch = scope.spawn(|| {
            let mut looks = 0_u32;
            while !stop.load(Ordering::Relaxed) {
                // One look asks for links first and then for filters: the
                // change may happen in between, but not in two at once.
                assert!(!bare() || !bare(), "an interface has neither");
                looks += 1;
            }
            looks
        });
        for way in ["clsact", "tcx", "clsact", "tcx", "clsact", "auto"] {
            let agent = fixture.start(way);
            for interface in INTERFACES {
                // A start of the agent's own choice takes its time.
                let by_filter = || !filter_programs(&fixture.netns, interface).is_empty();
                let settled = || (by_filter() == (way == "clsact")).then_some(());
                wait::until(wait::patience(), settled).expect(way);
                assert_eq!(fixture.programs(interface, 1), [program], "{way}");
            }
            assert_eq!(fixture.links().len(), INTERFACES.len());
            assert_eq!(agent.kill().code, None);
        }
        drop(stopped);
        assert!(watch.join().expect("the watch") > 100);
    });
    assert!(!fixture.tc("qdisc show").contains("ingress"));
    fixture.assert_cleans_up();
    assert_same(&before, &fixture.snapshot());
}

/// Stops the watch when a test fails, too: its scope waits for it.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The twin of the test above: its watch sees an interface that has neither.
#[test]
fn an_interface_with_neither_is_seen() {
    let fixture = Fixture::new();
    // It would put back what is taken away here, and may be faster than a look.
    assert_eq!(fixture.start("clsact").kill().code, None);
    let instance = fixture.instance().expect("an instance");
    let hooks = Hooks::probe(instance.owner()).expect("a kernel that can be asked");
    let folder = NetnsFolder::new(fixture.lab.dir().netns_dir());
    let opened = folder.open(&fixture.netns.name());
    let netns = opened.expect("a namespace").expect("one");
    let with_one = || {
        let found = hooks.look(&netns).expect("the interfaces");
        found.iter().filter(|on| on.programs().count() == 1).count()
    };
    assert_eq!(with_one(), 2);
    fixture.tc("filter del dev qr-1 ingress");
    assert_eq!(with_one(), 1);
}

/// Somebody else's filters in front of ours and behind it run as before, and
/// stay with their qdisc.
#[test]
fn foreign_filters_and_their_qdisc_stay() {
    for kind in ["clsact", "ingress"] {
        let fixture = Fixture::new();
        fixture.tc(&format!("qdisc add dev qr-1 {kind}"));
        let _first = ForeignProgram::attach_filter(&fixture.netns, "qr-1", 1);
        let _last = ForeignProgram::attach_filter(&fixture.netns, "qr-1", 7);
        let before = fixture.snapshot();
        let [first, last] = fixture.programs("qr-1", 2)[..] else {
            panic!("two filters");
        };
        let mut agent = fixture.start("clsact");
        let program = fixture.program();
        assert_eq!(fixture.programs("qr-1", 3), [first, program, last]);
        // Without rules the agent has nothing there.
        assert_eq!(agent.reload(""), Reload::Done);
        assert_eq!(fixture.programs("qr-1", 2), [first, last]);
        assert_eq!(agent.reload(&fixture.rules()), Reload::Done);
        assert_eq!(fixture.programs("qr-1", 3).len(), 3);
        assert_eq!(agent.kill().code, None);
        fixture.assert_cleans_up();
        assert_same(&before, &fixture.snapshot());
    }
}

/// Neutron limits floating IPs by u32 filters of priority 1 on a qdisc of the
/// kind `ingress`, which it makes if there is none, before us or after.
#[test]
fn neutrons_limits_of_floating_ips_find_their_place() {
    let limit = "filter add dev qr-1 parent ffff: protocol ip prio 1 \
                 u32 match ip dst 192.0.2.1 flowid :1";
    let fixture = Fixture::new();
    let mut agent = fixture.start("clsact");
    assert!(fixture.tc("qdisc show dev qr-1").contains("qdisc ingress"));
    fixture.tc(limit);
    assert_eq!(agent.reload(""), Reload::Done);
    // Neutron's filter needs the qdisc that was ours.
    let filters = fixture.tc("filter show dev qr-1 ingress");
    assert!(
        filters.contains("192.0.2.1") || filters.contains("c0000201"),
        "{filters}"
    );
    assert!(!filters.contains("conntrack-agent"), "{filters}");
    assert_eq!(
        fixture.tc("qdisc show dev qg-1").matches("ingress").count(),
        0
    );
    assert_eq!(agent.reload(&fixture.rules()), Reload::Done);
    fixture.programs("qr-1", 1);
}

#[test]
fn a_qdisc_of_ours_is_gone_after_the_filter_was_removed_by_hand() {
    let fixture = Fixture::new();
    let before = fixture.snapshot();
    let mut agent = fixture.start("clsact");
    fixture.tc("filter del dev qr-1 ingress");
    fixture.tc("qdisc del dev qg-1 ingress");
    assert_eq!(agent.reload(&fixture.rules()), Reload::Done);
    for interface in INTERFACES {
        fixture.programs(interface, 1);
    }
    assert_eq!(agent.kill().code, None);
    fixture.assert_cleans_up();
    assert_same(&before, &fixture.snapshot());
}

/// Filters carry the agent's id, so they are found again without any pin.
#[test]
fn filters_whose_pins_are_lost_are_taken_over_or_cleaned_up() {
    let fixture = Fixture::new();
    let before = fixture.snapshot();
    let lose = || {
        let agent = fixture.lab.dir().agent_bpffs_dir();
        fs::remove_dir_all(agent).expect("the pins");
    };
    assert_eq!(fixture.start("clsact").kill().code, None);
    let old = fixture.programs("qr-1", 1);
    lose();
    let mut agent = fixture.start("clsact");
    assert_ne!(
        fixture.programs("qr-1", 1),
        old,
        "a new program in its place"
    );
    assert_eq!(agent.reload(""), Reload::Done);
    fixture.programs("qr-1", 0);
    assert_eq!(agent.reload(&fixture.rules()), Reload::Done);
    fixture.programs("qr-1", 1);
    assert_eq!(agent.kill().code, None);
    lose();
    // Now by tcx: what the old filter says must not come after it.
    let agent = fixture.start("tcx");
    let program = fixture.program();
    assert_eq!(fixture.programs("qr-1", 1), [program]);
    assert_eq!(agent.kill().code, None);
    assert_eq!(fixture.start("clsact").kill().code, None);
    lose();
    fixture.assert_cleans_up();
    assert_same(&before, &fixture.snapshot());
}

/// The kernel takes an interface's qdiscs away when it moves.
#[test]
fn an_interface_that_moves_leaves_its_filter_behind() {
    let fixture = Fixture::new();
    let _agent = fixture.start("clsact");
    let elsewhere = fixture.lab.netns("elsewhere");
    let to = elsewhere.path().display();
    fixture.netns.ip(&format!("link set qr-1 netns {to}"));
    assert_eq!(ingress_programs(&elsewhere, "qr-1"), [0; 0]);
    let reaped = || (fixture.links().len() == 1).then_some(());
    wait::until(wait::patience(), reaped).expect("its folder is reaped");
    fixture.programs("qg-1", 1);
}

#[test]
fn a_pin_that_somebody_removed_is_there_again() {
    let fixture = Fixture::new();
    for way in ["tcx", "clsact"] {
        let mut agent = fixture.start(way);
        let pins = fixture.links();
        let pin = pins.first().expect("two pins");
        // Somebody holds what is pinned: the program stays on the hook.
        let held = (way == "tcx")
            .then(|| aya::programs::links::PinnedLink::from_pin(pin).expect("the link"));
        if pin.is_dir() {
            fs::remove_dir_all(pin).expect("the filter's folder");
        } else {
            fs::remove_file(pin).expect("the link's pin");
        }
        assert_eq!(agent.reload(&fixture.rules()), Reload::Done);
        agent.wait_for_log("effects=1");
        assert_eq!(fixture.links(), pins, "{way}");
        drop(held);
        for interface in INTERFACES {
            fixture.programs(interface, 1);
        }
        // What is there now is kept by the pin alone.
        assert_eq!(agent.stop().code, Some(0));
        wait::for_nothing();
        for interface in INTERFACES {
            fixture.programs(interface, 1);
        }
    }
}

#[test]
fn only_the_interfaces_that_match_are_classified() {
    let fixture = Fixture::new();
    for way in ["tcx", "clsact"] {
        let config = fixture.by(way).with("interfaces", "[\"qr-*\"]");
        let mut agent = fixture.start_with(&config);
        fixture.programs("qr-1", 1);
        fixture.programs("qg-1", 0);
        fixture
            .netns
            .ip("link set qr-1 name tap1\nlink set qg-1 name qr-9");
        assert_eq!(agent.reload(&fixture.rules()), Reload::Done);
        fixture.programs("tap1", 0);
        fixture.programs("qr-9", 1);
        fixture
            .netns
            .ip("link set tap1 name qr-1\nlink set qr-9 name qg-1");
        assert_eq!(agent.stop().code, Some(0));
    }
    let config = fixture.by("auto").with("interfaces", "[\"qr-[\"]");
    let before = fixture.snapshot();
    let refused = fixture.run_to_exit(&config);
    assert_eq!(refused.code, Some(78), "{refused:?}");
    assert!(refused.stderr.contains("\"qr-[\""), "{refused:?}");
    assert_same(&before, &fixture.snapshot());
}
