//! A bpffs that is unmounted lazily takes all pins away at once. The agent holds the
//! programs meanwhile, so that no packet passes without its helper mark.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use conntrack_agent::kernel::PinnedLinks;
use conntrack_tests::agent::Agent;
use conntrack_tests::attach;
use conntrack_tests::frames::{Sender, syn};
use conntrack_tests::netns::Netns;
use conntrack_tests::snapshot::{ingress_programs, interfaces};
use conntrack_tests::wait;
use rustix::mount::{UnmountFlags, unmount};

use crate::repair::World;

/// How often it is unmounted.
const UNMOUNTS: usize = 100;
/// Between two packets: the other tests want the processors too.
const PAUSE: Duration = Duration::from_micros(100);
/// The address of the router's interface, without which it would take no packet for its own.
const ROUTER: [u8; 6] = [4; 6];

#[test]
fn no_packet_loses_its_mark_when_the_bpffs_is_unmounted_lazily() {
    let world = World::new();
    watch(&world.netns);
    let agent = world.start();

    let seen = beside_packets(&world, || {
        for number in 0..UNMOUNTS {
            unmount_lazily(&world);
            let repaired = wait::until(wait::patience(), || world.is_well().then_some(()));
            assert!(repaired.is_some(), "unmounted {number} times: not repaired");
        }
    });
    eprintln!(
        "{UNMOUNTS} unmounts: {} packets, {} without mark",
        seen.all, seen.unmarked
    );
    assert!(seen.all > UNMOUNTS as u64, "a stream: {seen:?}");
    assert_eq!(seen.unmarked, 0, "{seen:?}");

    // Without an agent nobody holds the programs, but for a filter, which holds its own.
    assert_eq!(agent.kill().code, None);
    let seen = beside_packets(&world, || {
        unmount_lazily(&world);
        if attach::is_by_filters() {
            let filters = ["filter", "del", "dev", "qr-1", "ingress"];
            world.netns.tool("tc", filters, "");
        }
        let gap = wait::until(wait::patience(), || {
            (seen_in(&world.netns).unmarked > 0).then_some(())
        });
        assert!(gap.is_some(), "every packet still has its mark");
    });
    assert!(seen.unmarked > 0);
    let _agent = Agent::start(&world.lab, &world.rules());
    assert!(world.is_well(), "the next start repairs it");
}

fn unmount_lazily(world: &World) {
    unmount(world.lab.dir().bpf_dir(), UnmountFlags::DETACH).expect("unmounted");
}

/// What arrived at the rule's port.
#[derive(Clone, Copy, Debug)]
struct Seen {
    all: u64,
    unmarked: u64,
}

/// Counts, where the agent's own table reads the mark, packets to the rule's port.
fn watch(netns: &Netns) {
    netns.ip("link set qr-1 address 04:04:04:04:04:04");
    netns.nft(
        "table inet watch {
            counter arrived { }
            counter unmarked { }
            chain prerouting {
                type filter hook prerouting priority -165;
                iifname qr-1 tcp dport 21 counter name arrived
                iifname qr-1 tcp dport 21 meta mark and 0xff000000 == 0 counter name unmarked
            }
        }",
    );
}

fn seen_in(netns: &Netns) -> Seen {
    let packets = |counter: &str| {
        let listing = netns.tool("nft", ["list", "counter", "inet", "watch", counter], "");
        let mut words = listing.split_whitespace();
        words.find(|word| *word == "packets").expect("a counter");
        let number = words.next().expect("a number");
        number.parse().expect("a number")
    };
    Seen {
        all: packets("arrived"),
        unmarked: packets("unmarked"),
    }
}

/// Does something while packets arrive, and says what arrived.
fn beside_packets(world: &World, does: impl FnOnce()) -> Seen {
    /// However the work ends, the packets do too.
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            world.netns.run(|| {
                let sender = Sender::new("qg-1");
                let mut ports = (1..=u16::MAX).cycle();
                while !is_over.load(Ordering::Relaxed) {
                    // One that finds the queue full is followed by the next.
                    let _room = sender.send(&syn(ROUTER, ports.next().unwrap_or(1)));
                    thread::sleep(PAUSE);
                }
            });
        });
        let _over = Over(&is_over);
        does();
    });
    seen_in(&world.netns)
}

/// The pins were listed, and are gone when the first of them is opened: what is held
/// already is the last that the programs run by.
#[test]
fn a_link_that_is_held_is_not_let_go_of_for_a_pin_that_is_gone() {
    let world = World::new();
    let config = world.config().with("attach", "\"tcx\"");
    let agent = world.start_with(&config);
    assert_eq!(agent.kill().code, None);
    let pins = world.links();
    let programs = || -> usize {
        let interfaces = interfaces(&world.netns).into_iter();
        interfaces
            .map(|name| ingress_programs(&world.netns, &name).len())
            .sum()
    };
    assert_eq!(programs(), pins.len());

    let pinned_links = PinnedLinks::new();
    pinned_links.keep(world.id, &pins);
    unmount_lazily(&world);
    pinned_links.keep(world.id, &pins);
    assert_eq!(programs(), pins.len(), "held, though no pin is left");

    drop(pinned_links);
    let gone = wait::until(wait::patience(), || (programs() == 0).then_some(()));
    assert!(gone.is_some(), "nobody holds them");
}
