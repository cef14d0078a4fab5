//! What the programs tell of new connections, from real traffic to the reader.

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use conntrack_agent::kernel::{EventReader, Instance, NewConnection, Pins, Tally, Usable};
use conntrack_agent::model::{Destination, Helper, Protocol as Transport, RouterId};
use conntrack_ebpf::abi::Counters;
use conntrack_tests::agent::{Agent, Config, Reload, subcommand};
use conntrack_tests::clients;
use conntrack_tests::frames::{Sender, stay_on_one_cpu};
use conntrack_tests::helpers::{Protocol, Rule, rules_file};
use conntrack_tests::lab::Lab;
use conntrack_tests::netns::Netns;
use conntrack_tests::servers::ftp::FtpServer;
use conntrack_tests::servers::tftp::TftpServer;
use conntrack_tests::site::{Crossing, Plan, Site};
use conntrack_tests::wait;
use etherparse::PacketBuilder;
use nix::net::if_::if_nametoindex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::repair::{World, rules_of, soon};

/// More than any test here makes events, and than the ring buffer has room for.
const ALL: usize = 100_000;

fn pins(lab: &Lab) -> Pins {
    Pins::new(lab.dir().agent_bpffs_dir())
}

/// An agent that leaves the events to this test: there is to be one reader.
fn unread(lab: &Lab, rules: &str) -> Agent {
    let config = Config::of(lab).with("follow_connections", "false");
    Agent::start_with(lab, &config, rules)
}

fn reader(lab: &Lab) -> EventReader {
    let events = EventReader::open(&pins(lab)).expect("the events");
    events.expect("pinned, as a router has rules")
}

/// As poll(2) says it, which is what a reader waits by.
fn is_readable(events: &EventReader) -> bool {
    let mut one = [PollFd::new(events, PollFlags::IN)];
    let at_once = Timespec::default();
    poll(&mut one, Some(&at_once)).expect("poll") == 1
}

fn id_of(site: &Site) -> RouterId {
    site.router.id().to_string().parse().expect("a router id")
}

fn index_of(netns: &Netns, interface: &str) -> u32 {
    let index = netns.run(|| if_nametoindex(interface));
    index.expect("the interface's number")
}

fn mark_of(name: &str, protocol: Transport) -> u32 {
    Helper::new(name, protocol).expect("a helper").mark()
}

const RULED: u16 = 2121;
const UNRULED: u16 = 2122;
const TFTP: u16 = 6969;
const TFTP_UNRULED: u16 = 6970;

/// One session of each protocol on ruled ports and on others, in one router.
fn check_sessions(crossing: Crossing) {
    let lab = Lab::new();
    let control = [
        (Protocol::Tcp, RULED),
        (Protocol::Tcp, UNRULED),
        (Protocol::Udp, TFTP),
        (Protocol::Udp, TFTP_UNRULED),
    ];
    let site = Site::new(&lab, &Plan::new(crossing, &control));
    let _servers =
        [RULED, UNRULED].map(|port| FtpServer::start(&site.server, site.server_address(port)));
    let _tftp = TftpServer::start(&site.server, site.server_address(TFTP));
    let rules = [Rule::ftp(RULED), Rule::tftp(TFTP)];
    let _agent = unread(&lab, &rules_file(&[(&site.router, &rules)]));
    let mut events = reader(&lab);
    assert_eq!(events.read(ALL), [], "nothing has begun");
    assert!(!is_readable(&events));
    let check = |opened: &NewConnection, name, protocol, port| {
        assert_eq!(opened.router, id_of(&site));
        assert_eq!(opened.protocol, protocol);
        assert_eq!(opened.rule(), Destination { protocol, port });
        assert_eq!(opened.mark, mark_of(name, protocol));
        assert_eq!(opened.source.ip(), site.client_address(0).ip());
        // As the client sees it: the router hasn't translated it yet.
        assert_eq!(opened.destination, site.published_address(port));
        let router = &site.router;
        let interface = index_of(router.netns(), router.client_side());
        assert_eq!(opened.interface, interface);
    };

    // A control connection, and a data connection that the server opens.
    let mode = clients::ftp::Mode::Active;
    let session = clients::ftp::fetch(&site.client, site.published_address(RULED), mode);
    session.unwrap_or_else(|error| panic!("{error}"));
    assert!(is_readable(&events));
    let [ftp] = events.read(ALL)[..] else {
        panic!("one session is one event");
    };
    check(&ftp, "ftp", Transport::Tcp, RULED);
    assert!(!is_readable(&events), "all was read");

    // A whole transfer, to and from ports of their own choice.
    let bytes = clients::tftp::fetch(&site.client, site.published_address(TFTP));
    bytes.unwrap_or_else(|error| panic!("{error}"));
    let [tftp] = events.read(ALL)[..] else {
        panic!("one transfer is one event");
    };
    check(&tftp, "tftp", Transport::Udp, TFTP);
    assert!(tftp.at >= ftp.at);

    // One flow of many packets is one event, two are two.
    let to = site.published_address(TFTP);
    let flows = site.client.run(|| {
        stay_on_one_cpu(0);
        [(); 2].map(|()| packets_to(site.client_address(0), to, 50))
    });
    let opened = events.read(ALL);
    let sources: Vec<_> = opened.iter().map(|opened| opened.source).collect();
    assert_eq!(sources, flows);

    // Ports without a rule.
    site.client.run(|| {
        let to = site.published_address(UNRULED);
        TcpStream::connect_timeout(&to, wait::patience()).expect("the server")
    });
    let to = site.published_address(TFTP_UNRULED);
    site.client
        .run(|| packets_to(site.client_address(0), to, 3));
    assert_eq!(events.read(ALL), []);

    let expected = Tally {
        sent: 4,
        ..Tally::default()
    };
    assert_eq!(events.tally().expect("the tally"), expected);
    assert_eq!(events.unreadable(), 0);
}

/// Sends so many packets from a port of its own, which is returned.
fn packets_to(from: SocketAddr, to: SocketAddr, count: u32) -> SocketAddr {
    let socket = UdpSocket::bind(from).expect("a port");
    for _ in 0..count {
        // An earlier one may have been answered by ICMP.
        drop(socket.send_to(b"\0", to));
    }
    socket.local_addr().expect("its port")
}

#[test]
fn a_session_is_one_event_v4() {
    check_sessions(Crossing::Dnat4);
}

#[test]
fn a_session_is_one_event_v6() {
    check_sessions(Crossing::Routed6);
}

/// Bounded: what is left is there for the next time.
#[test]
fn routers_with_the_same_addresses_are_told_apart() {
    let lab = Lab::new();
    let plan = Plan::new(Crossing::Routed4, &[(Protocol::Tcp, RULED)]);
    let sites = [(); 2].map(|()| Site::new(&lab, &plan));
    let [first, second] = &sites;
    let rules = [Rule::ftp(RULED)];
    let _agent = unread(
        &lab,
        &rules_file(&[(&first.router, &rules), (&second.router, &rules)]),
    );
    let mut events = reader(&lab);
    let order = [first, second, second, first];
    for site in order {
        let server = FtpServer::start(&site.server, site.server_address(RULED));
        site.client.run(|| {
            let to = site.published_address(RULED);
            TcpStream::connect_timeout(&to, wait::patience()).expect("the server")
        });
        drop(server);
    }
    assert_eq!(events.read(0), []);
    let mut opened = events.read(3);
    assert_eq!(opened.len(), 3);
    opened.extend(events.read(3));
    let routers: Vec<_> = opened.iter().map(|opened| opened.router).collect();
    assert_eq!(routers, order.map(id_of));
    let destinations: BTreeSet<_> = opened.iter().map(|opened| opened.destination).collect();
    assert_eq!(destinations.len(), 1, "the addresses are the same");
}

/// A SYN to the rule's port of a [`World`], from port `from`.
fn syn(from: u16) -> Vec<u8> {
    let packet = PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([10, 0, 1, 2], [10, 0, 2, 2], 64)
        .tcp(from, 21, 1, 1000)
        .syn();
    let mut frame = Vec::new();
    packet.write(&mut frame, &[]).expect("a frame");
    frame
}

/// Sends so many SYNs to the router, which has none to forward them to.
fn send_syns(world: &World, count: u16) {
    world.netns.run(|| {
        let sender = Sender::new("qg-1");
        for from in 1..=count {
            wait::until(wait::patience(), || sender.send(&syn(from)).then_some(())).expect("sent");
        }
    });
}

/// What the world's rule has counted.
fn counters(world: &World) -> Counters {
    let Ok(Usable::Whole(instance)) = Instance::open(&pins(&world.lab).instance(world.id)) else {
        panic!("no instance");
    };
    let rule = Destination {
        protocol: Transport::Tcp,
        port: 21,
    };
    let counters = instance.counters(rule).expect("the counters");
    counters.expect("the rule")
}

/// Every packet that an event was due for is in one of the three counts.
#[track_caller]
fn assert_accounted(world: &World, events: &EventReader) -> Tally {
    let tally = events.tally().expect("the tally");
    let counted = counters(world).packets;
    assert_eq!(tally.sent + tally.lost(), counted, "{tally:?}");
    tally
}

#[test]
fn a_burst_is_limited_and_nothing_is_lost_without_being_counted() {
    const BURST: u16 = 5_000;
    let world = World::new();
    let _agent = unread(&world.lab, &world.rules());
    let mut events = reader(&world.lab);
    send_syns(&world, BURST);
    assert_eq!(counters(&world).packets, u64::from(BURST));
    let tally = assert_accounted(&world, &events);
    assert!(tally.limited > 0, "{tally:?}");
    let opened = events.read(ALL);
    assert_eq!(opened.len() as u64, tally.sent);
    let sources: BTreeSet<_> = opened.iter().map(|opened| opened.source).collect();
    assert_eq!(sources.len(), opened.len(), "each SYN at most once");

    // A new window, and events again.
    std::thread::sleep(Duration::from_millis(200));
    send_syns(&world, 1);
    assert_eq!(events.read(ALL).len(), 1);
    assert_accounted(&world, &events);
}

#[test]
fn a_ring_buffer_that_nobody_reads_stops_no_classification() {
    let world = World::new();
    let _agent = unread(&world.lab, &world.rules());
    let mut events = reader(&world.lab);
    let mut sent = 0;
    let filled = wait::until(wait::patience(), || {
        send_syns(&world, 200);
        sent += 200;
        assert_eq!(counters(&world).packets, sent, "each is classified");
        let tally = assert_accounted(&world, &events);
        (tally.full > 0).then_some(tally)
    });
    let filled = filled.expect("it is full some time");
    assert_eq!(events.read(ALL).len() as u64, filled.sent);

    std::thread::sleep(Duration::from_millis(200));
    send_syns(&world, 1);
    assert_eq!(events.read(ALL).len(), 1, "there is room again");
    let tally = assert_accounted(&world, &events);
    assert_eq!((tally.sent, tally.full), (filled.sent + 1, filled.full));
}

#[test]
fn events_go_on_while_no_agent_runs_and_under_the_next_one() {
    let world = World::new();
    let agent = unread(&world.lab, &world.rules());
    let mut events = reader(&world.lab);
    send_syns(&world, 1);
    assert_eq!(agent.kill().code, None);
    send_syns(&world, 1);
    let agent = unread(&world.lab, &world.rules());
    send_syns(&world, 1);
    assert!(events.is_pinned(), "the maps are adopted");
    assert_eq!(events.read(ALL).len(), 3);
    assert_accounted(&world, &events);

    // Also of an agent that gives the router a larger table.
    drop(agent);
    let many: Vec<_> = (1000..1100)
        .map(|port| format!("{{ protocol = \"tcp\", port = {port}, helper = \"ftp\" }},"))
        .collect();
    let many = many.join("\n");
    let rules = world
        .rules()
        .replace("helpers = [", &format!("helpers = [\n{many}"));
    let _agent = unread(&world.lab, &rules);
    send_syns(&world, 1);
    assert!(events.is_pinned());
    assert_eq!(events.read(ALL).len(), 1);
    assert_accounted(&world, &events);
}

#[test]
fn what_is_shared_goes_with_the_last_router() {
    let lab = Lab::new();
    let worlds = [(); 2].map(|()| World::with_id(&lab, &uuid::Uuid::new_v4().to_string()));
    let [first, second] = &worlds;
    let shared = pins(&lab).shared();
    let both = first.rules() + &second.rules();
    let mut agent = unread(&lab, &both);
    let names = || -> BTreeSet<_> {
        let entries = fs::read_dir(&shared).expect("the shared maps");
        entries
            .map(|entry| entry.expect("a pin").file_name())
            .collect()
    };
    assert_eq!(names().len(), 3);
    let events = reader(&lab);
    assert_eq!(agent.reload(&first.rules()), Reload::Done);
    assert_eq!(names().len(), 3, "one router needs them still");
    assert!(events.is_pinned());
    assert_eq!(agent.reload(""), Reload::Done);
    assert!(!shared.exists(), "nobody does");
    assert!(!events.is_pinned());
    assert!(EventReader::open(&pins(&lab)).expect("no error").is_none());

    assert_eq!(agent.reload(&both), Reload::Done);
    assert_eq!(names().len(), 3);
    assert!(!events.is_pinned(), "they are others");
    drop(agent);
    let cleanup = subcommand(&lab, "cleanup");
    assert_eq!(cleanup.code, Some(0), "{cleanup:?}");
    assert!(!lab.dir().agent_bpffs_dir().exists());
}

/// Where an agent died between the removal of the last router's pins and of
/// these.
#[test]
fn what_is_shared_by_nobody_is_removed() {
    let lab = Lab::new();
    let world = World::with_id(&lab, &uuid::Uuid::new_v4().to_string());
    let shared = pins(&lab).shared();
    let leave = || {
        let agent = unread(&lab, &world.rules());
        drop(agent);
        let away = lab.dir().bpf_dir().join("away");
        fs::rename(&shared, &away).expect("renamed");
        drop(unread(&lab, ""));
        fs::create_dir_all(shared.parent().expect("a folder")).expect("the version's folder");
        fs::rename(&away, &shared).expect("renamed");
    };
    leave();
    let agent = unread(&lab, "");
    assert!(!shared.exists(), "by the start");
    drop(agent);
    leave();
    let cleanup = subcommand(&lab, "cleanup");
    assert_eq!(cleanup.code, Some(0), "{cleanup:?}");
    assert!(!lab.dir().agent_bpffs_dir().exists(), "by cleanup");
}

struct Harm {
    name: &'static str,
    does: fn(&Path),
}

const HARMS: [Harm; 4] = [
    Harm {
        name: "the ring buffer's pin removed",
        does: |shared| fs::remove_file(shared.join("EVENTS")).expect("a pin"),
    },
    Harm {
        name: "the other two removed",
        does: |shared| {
            for name in ["LIMITER", "RECENT"] {
                fs::remove_file(shared.join(name)).expect("a pin");
            }
        },
    },
    Harm {
        name: "all shared pins removed",
        does: |shared| fs::remove_dir_all(shared).expect("pins"),
    },
    Harm {
        name: "another map in the ring buffer's place",
        does: |shared| {
            let [events, recent] = ["EVENTS", "RECENT"].map(|name| shared.join(name));
            fs::remove_file(&events).expect("a pin");
            fs::rename(recent, events).expect("renamed");
        },
    },
];

/// The routers that somebody who comes now and reads what is pinned hears of.
fn heard(worlds: &[World; 2]) -> BTreeSet<RouterId> {
    let Ok(Some(mut events)) = EventReader::open(&pins(&worlds[0].lab)) else {
        return BTreeSet::new();
    };
    for world in worlds {
        send_syns(world, 1);
    }
    let opened = events.read(ALL);
    opened.iter().map(|opened| opened.router).collect()
}

#[test]
fn shared_pins_that_somebody_takes_are_mended() {
    for Harm { name, does } in HARMS {
        let lab = Lab::new();
        let worlds = [(); 2].map(|()| World::with_id(&lab, &uuid::Uuid::new_v4().to_string()));
        let all: BTreeSet<_> = worlds.iter().map(|world| world.id).collect();
        let rules: String = all.iter().map(|id| rules_of(*id)).collect();
        let shared: PathBuf = pins(&lab).shared();
        let agent = unread(&lab, &rules);
        assert_eq!(heard(&worlds), all, "{name}: at the start");
        let counted = counters(&worlds[0]).packets;

        does(&shared);
        soon(name, "both routers heard of", || heard(&worlds) == all);
        soon(name, "all well", || worlds.iter().all(World::is_well));
        assert!(counters(&worlds[0]).packets > counted, "and counts go on");
        assert_eq!(agent.kill().code, None, "{name}");

        does(&shared);
        std::thread::sleep(Duration::from_millis(800));
        assert!(!are_whole(&lab), "{name}: nobody mends it");
        let _agent = unread(&lab, &rules);
        assert_eq!(heard(&worlds), all, "{name}: the next start does");
    }
}

/// Whether the three are there, and are what they should be.
fn are_whole(lab: &Lab) -> bool {
    let is_opened = EventReader::open(&pins(lab)).is_ok_and(|events| events.is_some());
    is_opened && pins(lab).shared().join("RECENT").exists()
}
