//! A start that finds more bare interfaces than it makes links for: all are
//! served at once by tc filters, and get their links one router after the other.

use conntrack_agent::kernel::Pins;
use conntrack_tests::agent::{Agent, Config};
use conntrack_tests::durable::BareRouter;
use conntrack_tests::helpers::Rule;
use conntrack_tests::lab::Lab;
use conntrack_tests::snapshot::{filter_programs, ingress_programs};
use conntrack_tests::wait;

/// Of two interfaces each; a start makes 64 links.
const MANY: usize = 36;

struct Fixture {
    routers: Vec<BareRouter>,
    lab: Lab,
}

impl Fixture {
    fn new(count: usize) -> Self {
        let lab = Lab::new();
        let routers = (0..count).map(|_| BareRouter::new(&lab)).collect();
        Self { routers, lab }
    }

    fn start(&self, way: &str) -> Agent {
        let rules = self.routers.iter();
        let rules: String = rules
            .map(|router| router.rules_file(&[Rule::ftp(21)]))
            .collect();
        let config = Config::of(&self.lab).with("attach", format!("{way:?}"));
        Agent::start_with(&self.lab, &config, &rules)
    }

    /// How many of the interfaces have a filter, each having one program or, at
    /// the moment of its change, two.
    fn filters(&self) -> usize {
        let interfaces = self.routers.iter().flat_map(|router| {
            let netns = router.netns();
            ["qr-1", "qg-1"].map(|interface| {
                let all = ingress_programs(netns, interface);
                assert!(matches!(all.len(), 1 | 2), "{interface}: {all:?}");
                usize::from(!filter_programs(netns, interface).is_empty())
            })
        });
        interfaces.sum()
    }

    /// How many of the pins are a filter's folder.
    fn folders(&self) -> usize {
        let pins = Pins::new(self.lab.dir().agent_bpffs_dir());
        let of_routers = self.routers.iter();
        let links = of_routers.flat_map(|router| pins.links_of(router.id()).expect("the links"));
        links.filter(|pin| pin.is_dir()).count()
    }
}

#[test]
fn many_bare_interfaces_are_served_at_once_and_linked_one_router_after_the_other() {
    let fixture = Fixture::new(MANY);
    let agent = fixture.start("auto");
    let filters = fixture.folders();
    assert!((1..=2 * MANY - 64).contains(&filters), "{filters}");
    fixture.filters();

    // Whoever starts meanwhile has nothing to do at once, and goes on.
    assert_eq!(agent.kill().code, None);
    let agent = fixture.start("auto");
    agent.wait_for_log("effects=0");
    let linked = || (fixture.filters() == 0 && fixture.folders() == 0).then_some(());
    wait::until(wait::patience(), linked).expect("links alone");
    for router in &fixture.routers {
        let qdiscs = router.netns().tool("tc", ["qdisc", "show"], "");
        assert!(!qdiscs.contains("ingress"), "{qdiscs}");
    }
    assert_eq!(agent.stop().code, Some(0));
}

#[test]
fn few_or_by_choice_are_linked_at_once() {
    for (count, way) in [(4, "auto"), (MANY, "tcx")] {
        let fixture = Fixture::new(count);
        let agent = fixture.start(way);
        assert_eq!((fixture.filters(), fixture.folders()), (0, 0), "{way}");
        assert_eq!(agent.stop().code, Some(0));
    }
}
