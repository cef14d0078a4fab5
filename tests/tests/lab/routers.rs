//! Routers beside each other.

use std::thread;

use conntrack_tests::agent::Agent;
use conntrack_tests::clients::ftp::{Mode, fetch};
use conntrack_tests::conntrack::assert_helpers;
use conntrack_tests::helpers::{Protocol, Rule, rules_file};
use conntrack_tests::lab::Lab;
use conntrack_tests::netns::Netns;
use conntrack_tests::scenario::ftp::assert_no_data;
use conntrack_tests::servers::ftp::FtpServer;
use conntrack_tests::site::{Crossing, Plan, Site};

const PORTS: [u16; 2] = [21, 2121];
const IFINDEX: u32 = 1000;

#[test]
fn routers_with_the_same_ifindex_classify_each_by_its_own_rules() {
    let lab = Lab::new();
    let control = PORTS.map(|port| (Protocol::Tcp, port));
    let sites = [(); 2].map(|()| {
        let mut plan = Plan::new(Crossing::Routed4, &control);
        plan.ifindex = Some(IFINDEX);
        Site::new(&lab, &plan)
    });
    let indexes = sites.each_ref().map(|site| {
        let router = &site.router;
        [router.client_side(), router.server_side()].map(|side| ifindex(router.netns(), side))
    });
    assert_eq!(indexes, [[IFINDEX, IFINDEX + 1]; 2]);

    let rules = PORTS.map(|port| [Rule::ftp(port)]);
    let [first, second] = &sites;
    let _agent = Agent::start(
        &lab,
        &rules_file(&[(&first.router, &rules[0]), (&second.router, &rules[1])]),
    );
    thread::scope(|scope| {
        for (site, ruled) in sites.iter().zip(PORTS) {
            for port in PORTS {
                scope.spawn(move || check(site, port, port == ruled));
            }
        }
    });
    for (site, ruled) in sites.iter().zip(PORTS) {
        assert_helpers(site.router.netns(), &[(ruled, "ftp")]);
    }
}

fn check(site: &Site, port: u16, ruled: bool) {
    let server = FtpServer::start(&site.server, site.server_address(port));
    let session = fetch(&site.client, site.published_address(port), Mode::Active);
    if ruled {
        let bytes = session.unwrap_or_else(|e| panic!("with a rule on {port}: {e}"));
        assert!(bytes == server.bytes, "the file arrives as it is");
    } else {
        assert_no_data(&session);
    }
}

fn ifindex(netns: &Netns, interface: &str) -> u32 {
    let line = netns.tool("ip", ["-oneline", "link", "show", "dev", interface], "");
    let index = line.split(':').next().expect("its number");
    index.parse().expect("a number")
}
