//! What carries the helper mark: each carrier gives helpers to the same
//! connections, and the agent chooses by what the namespace has.

use std::net::{TcpListener, TcpStream};
use std::ops::Deref;

use conntrack_tests::agent::{Agent, Config, Reload, run_to_exit};
use conntrack_tests::clients::ftp::{Failure, Mode, fetch};
use conntrack_tests::conntrack::{assert_helpers, connections};
use conntrack_tests::helpers::{Protocol, Rule};
use conntrack_tests::lab::Lab;
use conntrack_tests::netns::Netns;
use conntrack_tests::router_lab::RouterLab;
use conntrack_tests::servers::ftp::FtpServer;
use conntrack_tests::site::Crossing::{self, Dnat4, Routed4, Routed6, Snat4};
use conntrack_tests::site::{LOWER, Plan, Site};

const PORT: u16 = 2121;
const UNRULED: u16 = 21;
const CONTROL: [(Protocol, u16); 2] = [(Protocol::Tcp, PORT), (Protocol::Tcp, UNRULED)];

/// A binding's chain for each carrier, as nft lists it.
const BY_MARK: &str = "chain bind {\n\t\ttype filter hook prerouting";
const BY_PRIORITY: &str = "chain bind-first {\n\t\ttype nat hook prerouting";

struct Fixture {
    site: Site,
    router_lab: RouterLab,
}

impl Deref for Fixture {
    type Target = RouterLab;

    fn deref(&self) -> &RouterLab {
        &self.router_lab
    }
}

impl Fixture {
    fn new(plan: &Plan<'_>) -> Self {
        let lab = Lab::new();
        let site = Site::new(&lab, plan);
        let router_lab = site.router_lab(&lab, &[Rule::ftp(PORT)]);
        Self { site, router_lab }
    }

    fn crossing(crossing: Crossing) -> Self {
        Self::new(&Plan::new(crossing, &CONTROL))
    }

    fn start(&self, carrier: &str) -> Agent {
        let carrier = format!("{carrier:?}");
        self.start_with(&self.config().with("carrier", carrier))
    }

    #[track_caller]
    fn assert_reads(&self, chain: &str) {
        let ruleset = self.netns.ruleset();
        for each in [BY_MARK, BY_PRIORITY] {
            assert_eq!(ruleset.contains(each), each == chain, "{each}: {ruleset}");
        }
    }

    /// A connection to a server's port, which stays open with both of its ends.
    fn connect(&self, listener: &TcpListener) -> (TcpStream, TcpStream) {
        let port = listener.local_addr().expect("its address").port();
        let to = self.site.published_address(port);
        let client = self.site.client.run(|| TcpStream::connect(to));
        let (server, _) = listener.accept().expect("the connection");
        (client.expect("a connection"), server)
    }

    fn listen(&self, port: u16) -> TcpListener {
        let address = self.site.server_address(port);
        let listener = self.site.server.run(|| TcpListener::bind(address));
        listener.expect("a listener")
    }

    /// The helper of the connection of which this is the client's end.
    fn helper_of(&self, client: &TcpStream) -> Option<String> {
        let from = client.local_addr().expect("its address").port();
        let all = connections(&self.netns);
        let found = all.iter().find(|connection| connection.source_port == from);
        found.expect("the connection").helper.clone()
    }
}

/// With a rule the transfer works, without one it doesn't, by this carrier.
fn check(crossing: Crossing, carrier: &str, chain: &str) {
    let fixture = Fixture::crossing(crossing);
    let site = &fixture.site;
    let server = FtpServer::start(&site.server, site.server_address(PORT));
    let _unruled = FtpServer::start(&site.server, site.server_address(UNRULED));
    let _agent = fixture.start(carrier);
    fixture.assert_reads(chain);
    let come = |port| fetch(&site.client, site.published_address(port), Mode::Active);
    assert!(come(PORT).expect("with a rule") == server.bytes);
    let without = come(UNRULED);
    assert!(matches!(without, Err(Failure::Data(_))), "{without:?}");
    assert_helpers(&fixture.netns, &[(PORT, "ftp")]);
}

#[rustfmt::skip]
cases! {
    priority_through_snat:                Snat4,   "priority", BY_PRIORITY;
    priority_through_dnat:                Dnat4,   "priority", BY_PRIORITY;
    priority_without_nat:                 Routed4, "priority", BY_PRIORITY;
    priority_over_ipv6:                   Routed6, "priority", BY_PRIORITY;
    mark_through_snat:                    Snat4,   "mark",     BY_MARK;
    mark_through_dnat:                    Dnat4,   "mark",     BY_MARK;
    by_itself_it_is_priority_beside_snat: Snat4,   "auto",     BY_PRIORITY;
    by_itself_it_is_priority_beside_dnat: Dnat4,   "auto",     BY_PRIORITY;
    by_itself_it_is_mark_without_nat:     Routed4, "auto",     BY_MARK;
    by_itself_it_is_mark_over_ipv6_alone: Routed6, "auto",     BY_MARK;
}

/// NAT of nftables or of legacy iptables, which comes after the agent.
#[test]
fn it_follows_nat_and_no_connection_changes() {
    for (come, go) in [
        (
            &[
                "nft",
                "add table ip somebodys; add chain ip somebodys c { type nat hook prerouting priority dstnat; }",
            ][..],
            Some(&["nft", "delete table ip somebodys"][..]),
        ),
        // Its table stays for as long as the namespace does.
        (&["iptables-legacy", "-t", "nat", "-L", "-n"], None),
    ] {
        let run = |command: &[&str], netns: &Netns| {
            netns.tool(command[0], &command[1..], "");
        };
        let fixture = Fixture::crossing(Routed4);
        let mut agent = fixture.start("auto");
        fixture.assert_reads(BY_MARK);
        let (ruled, unruled) = (fixture.listen(PORT), fixture.listen(UNRULED));
        let before = [fixture.connect(&ruled), fixture.connect(&unruled)];

        run(come, &fixture.netns);
        assert_eq!(agent.reload(&fixture.rules()), Reload::Done);
        fixture.assert_reads(BY_PRIORITY);
        let after = [fixture.connect(&ruled), fixture.connect(&unruled)];
        for [with, without] in [&before, &after] {
            assert_eq!(fixture.helper_of(&with.0).as_deref(), Some("ftp"));
            assert_eq!(fixture.helper_of(&without.0), None);
        }
        if let Some(go) = go {
            run(go, &fixture.netns);
            assert_eq!(agent.reload(&fixture.rules()), Reload::Done);
            fixture.assert_reads(BY_MARK);
        }
        assert_eq!(agent.stop().code, Some(0));
    }
}

/// Rules say what becomes of new connections, by either carrier.
#[test]
fn connections_keep_what_they_began_with_when_rules_change() {
    for carrier in ["mark", "priority"] {
        let fixture = Fixture::crossing(Snat4);
        let mut agent = fixture.start(carrier);
        let listener = fixture.listen(PORT);
        let first = fixture.connect(&listener);
        assert_eq!(agent.reload(""), Reload::Done);
        let second = fixture.connect(&listener);
        assert_eq!(agent.reload(&fixture.rules()), Reload::Done);
        let third = fixture.connect(&listener);
        let helpers = [&first, &second, &third].map(|(client, _)| fixture.helper_of(client));
        let ftp = Some("ftp".to_owned());
        assert_eq!(helpers, [ftp.clone(), None, ftp], "{carrier}");
    }
}

/// What a VLAN's ingress `QoS` map, or anybody else before the agent, has written
/// into the priority stays in packets of no rule. Of those that have one, IPv4
/// forwarding takes the agent's value away, and IPv6 forwarding doesn't.
#[test]
fn others_priorities_stay_and_a_forged_one_is_no_claim() {
    for (crossing, forged, unruled_leaves, ruled_leaves) in [
        (Routed6, 5, 5, Some(0xc000_0010)),
        (Routed6, 0xc000_0010_u32, 0, Some(0xc000_0010)),
        (Routed4, 5, 0, None),
        (Routed4, 0xc000_0010, 0, None),
    ] {
        let mut plan = Plan::new(crossing, &CONTROL);
        plan.stacked = true;
        let fixture = Fixture::new(&plan);
        let _agent = fixture.start("priority");
        // A priority doesn't survive the way from one namespace to another
        // (`____dev_forward_skb`, `include/linux/netdevice.h`), so it is written
        // on the interface below the one that the packet then arrives on.
        fixture.netns.nft(&format!(
            r#"table netdev forge {{
                chain ingress {{
                    type filter hook ingress device "{LOWER}" priority 0;
                    meta priority set {forged:#x}
                }}
            }}
            table inet watch {{
                set seen {{ type inet_service . classid; flags dynamic; size 64; }}
                chain postrouting {{
                    type filter hook postrouting priority 200;
                    ct direction original update @seen {{ tcp dport . meta priority }}
                }}
            }}"#
        ));
        let (ruled, unruled) = (fixture.listen(PORT), fixture.listen(UNRULED));
        let (with, without) = (fixture.connect(&ruled), fixture.connect(&unruled));
        assert_eq!(fixture.helper_of(&with.0).as_deref(), Some("ftp"));
        assert_eq!(fixture.helper_of(&without.0), None, "{forged:#x}");
        let seen = fixture
            .netns
            .tool("nft", ["list", "set", "inet", "watch", "seen"], "");
        let left = |port: u16, priority: u32| {
            let handle = match priority {
                0 => "none".to_owned(),
                _ => format!("{:x}:{:x}", priority >> 16, priority & 0xffff),
            };
            seen.contains(&format!("{port} . {handle}"))
        };
        assert!(
            left(UNRULED, unruled_leaves),
            "{crossing:?} {forged:#x}: {seen}"
        );
        assert!(
            left(PORT, ruled_leaves.unwrap_or(0)),
            "{crossing:?} {forged:#x}: {seen}"
        );
    }
}

#[test]
fn another_word_is_refused() {
    let lab = Lab::new();
    let config = Config::of(&lab).with("carrier", "\"skb\"");
    let exit = run_to_exit(&lab, &config, "", &[]);
    assert_eq!(exit.code, Some(78), "{exit:?}");
    for word in ["carrier", "auto", "mark", "priority"] {
        assert!(exit.stderr.contains(word), "{exit:?}");
    }
}
