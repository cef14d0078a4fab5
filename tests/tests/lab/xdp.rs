//! XDP in front of the tc program, in a driver and in the network stack.

use std::fs;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::ops::Deref;
use std::path::PathBuf;

use conntrack_agent::kernel::Pins;
use conntrack_tests::agent::Reload;
use conntrack_tests::attach::Xdp::{self, Generic, Native};
use conntrack_tests::clients::ftp::{Mode::Active, fetch};
use conntrack_tests::conntrack::assert_helpers;
use conntrack_tests::counters::rule_counters;
use conntrack_tests::foreign::{ForeignXdp, token_of};
use conntrack_tests::helpers::{By, Protocol, Rule};
use conntrack_tests::lab::Lab;
use conntrack_tests::netns::Netns;
use conntrack_tests::router_lab::{RouterLab, any_router};
use conntrack_tests::scenario::ftp::{self, assert_no_data};
use conntrack_tests::servers::ftp::FtpServer;
use conntrack_tests::site::{
    Crossing::{Routed6, Snat4},
    Plan, Site,
};
use conntrack_tests::snapshot::{assert_same, ingress_programs, xdp_on};
use conntrack_tests::wait;

#[test]
fn active_ftp_through_snat_by_native_xdp() {
    let case = ftp::Case {
        crossing: Snat4,
        mode: Active,
        port: 2121,
        unruled: 21,
    };
    ftp::check(By::Xdp(Native), case);
}

#[test]
fn active_ftp_through_snat_by_generic_xdp() {
    let case = ftp::Case {
        crossing: Snat4,
        mode: Active,
        port: 21,
        unruled: 2121,
    };
    ftp::check(By::Xdp(Generic), case);
}

#[test]
fn active_ftp_over_ipv6_by_native_xdp() {
    let case = ftp::Case {
        crossing: Routed6,
        mode: Active,
        port: 21,
        unruled: 2121,
    };
    ftp::check(By::Xdp(Native), case);
}

/// What an XDP program other than the agent's hands over: that no packet has a
/// rule. The tc program believes it if it has the instance's token, and only
/// then. So what the agent's own XDP program finds is what counts.
///
/// Not in generic mode on a veth: there the tc program does not get to see the
/// metadata since Linux 6.9 (`conntrack_ebpf::skb::network`).
fn check_who_is_believed(mode: Xdp, tokens: impl Fn(u64) -> Vec<(u64, bool)>) {
    let lab = Lab::new();
    let site = Site::new(&lab, &Plan::new(Snat4, &[(Protocol::Tcp, 21)]));
    let server = FtpServer::start(&site.server, site.server_address(21));
    let router = &site.router;
    let _agent = By::Agent.install(&lab, router, &[Rule::ftp(21)]);
    let id = router.router_id();
    let instance = Pins::new(lab.dir().agent_bpffs_dir()).instance(id);
    for (token, is_believed) in tokens(token_of(&instance)) {
        let foreign = ForeignXdp::attach(router.netns(), router.client_side(), mode, token);
        let fetched = fetch(&site.client, site.published_address(21), Active);
        if is_believed {
            assert_no_data(&fetched);
            assert_helpers(router.netns(), &[]);
        } else {
            let bytes = fetched.unwrap_or_else(|error| panic!("token {token:#x}: {error}"));
            assert!(bytes == server.bytes, "the file arrives as it is");
            assert_helpers(router.netns(), &[(21, "ftp")]);
        }
        drop(foreign);
        router.netns().tool("conntrack", ["-F"], "");
    }
}

#[test]
fn only_what_carries_the_instances_token_is_believed() {
    let tokens = |own| vec![(own, true), (own ^ 1, false), (0, false)];
    check_who_is_believed(Native, tokens);
}

#[test]
fn what_others_hand_over_by_generic_xdp_is_not_believed() {
    check_who_is_believed(Generic, |own| vec![(own ^ 1, false), (0, false)]);
}

/// Metadata of each size that there can be, and what looks like a hand-over in all
/// but one thing: packets are classified as ever. And one that is right in all,
/// whose word is taken that there is no rule.
#[test]
fn metadata_of_any_size_and_content_is_not_mistaken_for_a_hand_over() {
    let lab = Lab::new();
    let site = Site::new(&lab, &Plan::new(Snat4, &[(Protocol::Tcp, 21)]));
    let router = &site.router;
    let rule = Rule::ftp(21);
    let _agent = By::Agent.install(&lab, router, &[rule]);
    let id = router.router_id();
    let token = token_of(&Pins::new(lab.dir().agent_bpffs_dir()).instance(id));
    let index = interface_number(router.netns(), router.client_side());
    let handover = |token: u64, key: u64, interface: u32| {
        let mut bytes = [token, key].map(u64::to_ne_bytes).as_flattened().to_vec();
        bytes.extend(interface.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes
    };
    let right = handover(token, 0, index);
    let mut cases = vec![
        ("another instance's", handover(!token, 0, index), true),
        ("another interface's", handover(token, 0, index + 1), true),
        ("no token", handover(0, 0, index), true),
        (
            "longer, with ours at its end",
            [&[0; 8], &right[..]].concat(),
            true,
        ),
        ("right", right.clone(), false),
        (
            "a slot of another destination",
            handover(token, 0x0006_0016_0000_0001, index),
            false,
        ),
    ];
    for size in [4, 8, 12, 16, 20] {
        cases.push(("shorter", right[..size].to_vec(), true));
    }
    for size in [4, 8, 24, 32] {
        let random = uuid::Uuid::new_v4().into_bytes().repeat(2);
        cases.push(("random", random[..size].to_vec(), true));
    }
    for (what, bytes, is_classified) in cases {
        let (words, _) = bytes.as_chunks();
        let name = router.client_side();
        let foreign = ForeignXdp::leaving(router.netns(), name, Native, words);
        let counted = || {
            rule_counters(lab.dir(), router, rule)
                .expect("its counters")
                .packets
        };
        let before = counted();
        site.client.run(|| {
            let to = site.published_address(21);
            let refused = TcpStream::connect_timeout(&to, wait::patience());
            assert!(refused.is_err(), "nobody listens there");
        });
        assert_eq!(
            counted() - before,
            u64::from(is_classified),
            "{what}: {bytes:02x?}"
        );
        drop(foreign);
    }
}

fn interface_number(netns: &Netns, name: &str) -> u32 {
    let listing = netns.tool("ip", ["-oneline", "link", "show", name], "");
    let number = listing.split(':').next().expect("its number");
    number.parse().expect("a number")
}

/// A packet to UDP port 262, of which an observer who takes the IP header for an
/// Ethernet header sees one to TCP port 21. Counted it must not be, whoever's
/// generic XDP program has had the skb copied.
#[test]
fn a_forged_header_is_not_read_behind_generic_xdp() {
    let lab = Lab::new();
    let site = Site::new(&lab, &Plan::new(Snat4, &[(Protocol::Tcp, 21)]));
    let router = &site.router;
    let rule = Rule::ftp(21);
    let _agent = By::Agent.install(&lab, router, &[rule]);
    let _foreign = ForeignXdp::attach(router.netns(), router.client_side(), Generic, 0);
    site.client.ip("addr add 10.0.69.2/32 dev eth0");
    let to = SocketAddr::from(([10, 0, 1, 1], 262));
    let payload = [&[0; 6][..], &[1, 1, 0, 21], &[0; 40]].concat();
    site.client.run(|| {
        let socket = UdpSocket::bind(("10.0.69.2", 0x4000)).expect("a socket");
        socket.send_to(&payload, to).expect("a packet");
    });
    let counted = || {
        rule_counters(lab.dir(), router, rule)
            .expect("the rule's counters")
            .packets
    };
    assert_eq!(counted(), 0);
    // Its twin is what it pretends to be.
    site.client.run(|| {
        let to = site.published_address(21);
        let refused = TcpStream::connect_timeout(&to, wait::patience());
        assert!(refused.is_err(), "nobody listens there");
    });
    assert_eq!(counted(), 1);
}

/// A router of two interfaces that are each other's peer, and a macvlan on one,
/// whose driver has no XDP.
struct Fixture(RouterLab);

impl Deref for Fixture {
    type Target = RouterLab;

    fn deref(&self) -> &RouterLab {
        &self.0
    }
}

impl Fixture {
    fn new() -> Self {
        let interfaces = "link add qr-1 type veth peer name qg-1\n\
                          link add link qr-1 name qr-2 type macvlan";
        Self(RouterLab::make(&Lab::new(), any_router(), interfaces))
    }

    fn xdp(&self) -> [Option<Xdp>; 3] {
        ["qr-1", "qg-1", "qr-2"].map(|name| xdp_on(&self.netns, name))
    }

    fn wait_for(&self, expected: [Option<Xdp>; 3]) {
        let reached = || (self.xdp() == expected).then_some(());
        wait::until(wait::patience(), reached)
            .unwrap_or_else(|| panic!("{:?} is not {expected:?}", self.xdp()));
    }

    fn pin(&self, index: u32) -> PathBuf {
        self.pins().xdp_link(self.id, &self.netns.name(), index)
    }
}

#[test]
fn what_can_not_have_xdp_is_said_once_and_served_by_tc() {
    let fixture = Fixture::new();
    let before = fixture.snapshot();
    let config = fixture.config().with_xdp("*", Native);
    let foreign = ForeignXdp::attach(&fixture.netns, "qg-1", Generic, 0);
    let mut agent = fixture.start_with(&config);
    assert_eq!(fixture.xdp(), [Some(Native), Some(Generic), None]);
    for _ in 0..3 {
        assert_eq!(agent.reload(&fixture.rules()), Reload::Done);
    }
    assert_eq!(
        agent.log_count("another XDP program is on the interface"),
        1
    );
    assert_eq!(agent.log_count("can't have XDP in this mode"), 1);
    assert_eq!(agent.log_count("is not as it should be"), 0);
    for name in ["qr-1", "qg-1", "qr-2"] {
        assert_eq!(ingress_programs(&fixture.netns, name).len(), 1, "{name}");
    }
    // Where the way is free, the next look goes it.
    drop(foreign);
    fixture.wait_for([Some(Native), None, None]);
    assert_eq!(agent.reload(&fixture.rules()), Reload::Done);
    fixture.wait_for([Some(Native), Some(Native), None]);
    assert_eq!(agent.stop().code, Some(0));
    assert_eq!(fixture.xdp(), [Some(Native), Some(Native), None], "kept");

    // By name, in the network stack, whatever the driver.
    let agent = fixture.start_with(&fixture.config().with_xdp("qr-2", Generic));
    assert_eq!(fixture.xdp(), [None, None, Some(Generic)]);
    assert_eq!(agent.kill().code, None);
    fixture.assert_cleans_up();
    assert_same(&before, &fixture.snapshot());
}

#[test]
fn an_xdp_link_that_is_taken_away_is_there_again() {
    let fixture = Fixture::new();
    let before = fixture.snapshot();
    let expected = [Some(Native), Some(Native), None];
    let config = fixture
        .config()
        .with_xdp("q?-1", Native)
        .with("on_stop", "\"cleanup\"");
    let agent = fixture.start_with(&config);
    assert_eq!(fixture.xdp(), expected);
    // Its pin; the agent holds the link.
    let pin = fixture.pin(2);
    fs::remove_file(&pin).expect("a pin");
    let is_back = || pin.exists().then_some(());
    wait::until(wait::patience(), is_back).expect("it is pinned again");
    assert_eq!(fixture.xdp(), expected);
    // The link itself, which nothing tells of.
    let pin = pin.to_str().expect("a path of the lab");
    fixture
        .netns
        .tool("bpftool", ["link", "detach", "pinned", pin], "");
    fixture.wait_for(expected);
    assert_eq!(agent.stop().code, Some(0));
    assert_eq!(fixture.xdp(), [None; 3]);
    fixture.assert_cleans_up();
    assert_same(&before, &fixture.snapshot());
}
