//! Counts are exact, however fast packets come, on however many processors, and
//! while one instance takes another's place.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use conntrack_agent::kernel::Instance;
use conntrack_agent::model::Protocol;
use conntrack_agent::port_table::Capacity;
use conntrack_ebpf::abi::{Counters, Destination};
use conntrack_tests::agent::{Agent, Reload};
use conntrack_tests::frames::{Sender, stay_on_one_cpu};
use conntrack_tests::helpers::{Rule, rules_of};
use conntrack_tests::netns::Netns;
use conntrack_tests::wait;
use etherparse::PacketBuilder;

use crate::repair::World;

const TFTP: Destination = Destination {
    protocol: Protocol::Udp,
    port: 69,
};

/// What each of the two senders sends at the least.
const EACH: u64 = 200_000;
/// How many rules there are, one time after the other: an instance with twice as
/// many rules is another one.
const GROWING: [u16; 4] = [40, 80, 160, 320];
const MOST: u16 = 640;

/// Counts what comes out of the classifier, by the netdev ingress hook, which is
/// behind tcx and tc (`__netif_receive_skb_core`, net/core/dev.c), and ends its
/// way there.
const COUNT: &str = "
table netdev count {
    counter ruled {}
    chain ingress {
        type filter hook ingress devices = { qr-1, qr-2 } priority 0;
        ether saddr 02:02:02:02:02:02 meta l4proto udp udp dport 69 counter name ruled drop
    }
}";

fn counted_by_nft(netns: &Netns) -> Counters {
    let arguments = ["list", "counter", "netdev", "count", "ruled"];
    let listing = netns.tool("nft", arguments, "");
    let number = |name: &str| {
        let mut words = listing.split_whitespace();
        words.find(|word| *word == name).expect("a count");
        words
            .next()
            .and_then(|word| word.parse().ok())
            .expect("a number")
    };
    Counters {
        packets: number("packets"),
        bytes: number("bytes"),
    }
}

fn rules(world: &World, count: u16) -> String {
    let others = (2..=count).map(|nth| Rule::tftp(1000 + nth));
    let rules: Vec<_> = [Rule::tftp(TFTP.port)].into_iter().chain(others).collect();
    rules_of(world.id, &rules)
}

fn instance(world: &World) -> Instance {
    world.instance().expect("an instance")
}

fn frame(payload: usize) -> Vec<u8> {
    let packet = PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([10, 0, 1, 2], [10, 0, 2, 2], 64)
        .udp(40_000, TFTP.port);
    let mut frame = Vec::new();
    packet
        .write(&mut frame, &vec![7; payload])
        .expect("a frame");
    frame
}

/// Sends on one processor until it is told to stop; what got through.
fn send(interface: &str, nth: usize, sent: &AtomicU64, stop: &AtomicBool) -> Counters {
    stay_on_one_cpu(nth);
    let sender = Sender::new(interface);
    let frames = [1, 100, 1400].map(frame);
    let mut through = Counters::default();
    while !stop.load(Ordering::Relaxed) {
        for frame in &frames {
            if sender.send(frame) {
                through.packets += 1;
                through.bytes += frame.len() as u64 - 14;
            }
        }
        sent.store(through.packets, Ordering::Relaxed);
    }
    through
}

/// Tells the senders to stop when it is dropped: a test that fails is over too.
struct Stopping<'a>(&'a AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn counts_are_exact_at_high_rates_and_across_instances() {
    let world = World::new();
    world.netns.nft(COUNT);
    let mut agent = Agent::start(&world.lab, &rules(&world, 1));
    assert_eq!(instance(&world).capacity(), Capacity::DEFAULT);
    let (stop, sent) = (
        AtomicBool::new(false),
        [AtomicU64::new(0), AtomicU64::new(0)],
    );
    let both_sent = |least: u64| {
        let enough = || {
            let all = sent
                .iter()
                .all(|sent| sent.load(Ordering::Relaxed) >= least);
            all.then_some(())
        };
        wait::until(wait::patience(), enough).expect("packets");
    };

    let (through, agent) = thread::scope(|scope| {
        let stopping = Stopping(&stop);
        let senders: Vec<_> = (0..2)
            .map(|nth| {
                let (world, stop, sent) = (&world, &stop, &sent[nth]);
                scope.spawn(move || {
                    let out = format!("qg-{}", nth + 1);
                    world.netns.run(|| send(&out, nth, sent, stop))
                })
            })
            .collect();
        both_sent(EACH / 2);
        // Half-way: larger and larger tables, in maps of their own each time, made
        // by this agent and by the next one.
        let mut slots = Capacity::DEFAULT.slots;
        for count in GROWING {
            assert_eq!(agent.reload(&rules(&world, count)), Reload::Done);
            let grown = instance(&world).capacity().slots;
            assert!(grown > slots, "{count} rules: {grown} slots");
            slots = grown;
        }
        assert_eq!(agent.kill().code, None);
        let agent = Agent::start(&world.lab, &rules(&world, MOST));
        assert!(instance(&world).capacity().slots > slots, "{MOST} rules");
        let before = sent.each_ref().map(|sent| sent.load(Ordering::Relaxed));
        both_sent(before.into_iter().max().unwrap_or_default() + EACH / 2);
        drop(stopping);
        let through = senders
            .into_iter()
            .map(|sender| sender.join().expect("a sender"));
        (through.collect::<Vec<_>>(), agent)
    });
    let through = through
        .iter()
        .fold(Counters::default(), |sum, one| Counters {
            packets: sum.packets + one.packets,
            bytes: sum.bytes + one.bytes,
        });

    // What was sent may still be on its way: the receiving side has a queue.
    let arrived = || (counted_by_nft(&world.netns) == through).then_some(());
    assert_eq!(
        wait::until(wait::patience(), arrived),
        Some(()),
        "nft counts what got through"
    );
    let counted = instance(&world).counters(TFTP).expect("the counters");
    assert_eq!(counted, Some(through));
    assert!(through.packets >= 2 * EACH, "{through:?}");
    println!("counting | {through:?}");
    drop(agent);
}
