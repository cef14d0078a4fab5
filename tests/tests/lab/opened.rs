//! What the programs tell of new connections, from real traffic to the reader.

mod shared;

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpStream, UdpSocket};

use conntrack_agent::kernel::{EventReader, Instance, NewConnection, Pins, Tally, Usable};
use conntrack_agent::model::{Destination, Helper, Protocol as Transport};
use conntrack_ebpf::abi::Counters;
use conntrack_tests::agent::{Agent, Config};
use conntrack_tests::clients;
use conntrack_tests::frames::{Sender, stay_on_one_cpu, syn};
use conntrack_tests::helpers::{Protocol, Rule, rules_file, rules_of};
use conntrack_tests::lab::Lab;
use conntrack_tests::netns::Netns;
use conntrack_tests::servers::ftp::FtpServer;
use conntrack_tests::servers::tftp::TftpServer;
use conntrack_tests::site::{Crossing, Plan, Site};
use conntrack_tests::wait;
use nix::net::if_::if_nametoindex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::repair::World;

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
        assert_eq!(opened.router, site.router.router_id());
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
    assert_eq!(routers, order.map(|site| site.router.router_id()));
    let destinations: BTreeSet<_> = opened.iter().map(|opened| opened.destination).collect();
    assert_eq!(destinations.len(), 1, "the addresses are the same");
}

/// Sends so many SYNs to the router, which has none to forward them to.
fn send_syns(world: &World, count: u16) {
    world.netns.run(|| {
        let sender = Sender::new("qg-1");
        for from in 1..=count {
            wait::until(wait::patience(), || {
                sender.send(&syn([4; 6], from)).then_some(())
            })
            .expect("sent");
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

/// Sends SYNs until a new window of the limit has begun and one is told of.
#[track_caller]
fn assert_told_again(world: &World, events: &mut EventReader) {
    let told = wait::until(wait::patience(), || {
        send_syns(world, 1);
        let opened = events.read(ALL);
        (!opened.is_empty()).then_some(opened.len())
    });
    assert_eq!(told, Some(1));
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
    assert_told_again(&world, &mut events);
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

    // There is room again.
    assert_told_again(&world, &mut events);
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
    let rules: Vec<_> = (1000..1100).chain([21]).map(Rule::ftp).collect();
    let rules = rules_of(world.id, &rules);
    let _agent = unread(&world.lab, &rules);
    send_syns(&world, 1);
    assert!(events.is_pinned());
    assert_eq!(events.read(ALL).len(), 1);
    assert_accounted(&world, &events);
}
