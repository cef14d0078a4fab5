//! XDP in front of the tc program, in a driver and in the network stack.

use conntrack_agent::kernel::Pins;
use conntrack_tests::attach::Xdp::{self, Generic, Native};
use conntrack_tests::clients::ftp::{Mode::Active, fetch};
use conntrack_tests::conntrack::assert_helpers;
use conntrack_tests::foreign::{ForeignXdp, token_of};
use conntrack_tests::helpers::{By, Protocol, Rule};
use conntrack_tests::lab::Lab;
use conntrack_tests::scenario::ftp::{self, assert_no_data};
use conntrack_tests::servers::ftp::FtpServer;
use conntrack_tests::site::{
    Crossing::{Routed6, Snat4},
    Plan, Site,
};

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
fn check_who_is_believed(mode: Xdp) {
    let lab = Lab::new();
    let site = Site::new(&lab, &Plan::new(Snat4, &[(Protocol::Tcp, 21)]));
    let server = FtpServer::start(&site.server, site.server_address(21));
    let router = &site.router;
    let _agent = By::Agent.install(&lab, router, &[Rule::ftp(21)]);
    let id = router.id().to_string().parse().expect("a router's id");
    let instance = Pins::new(lab.dir().agent_bpffs_dir()).instance(id);
    let token = token_of(&instance);
    for (other, is_believed) in [(0, false), (token, true), (token ^ 1, false)] {
        let foreign = ForeignXdp::attach(router.netns(), router.client_side(), mode, other);
        let fetched = fetch(&site.client, site.published_address(21), Active);
        if is_believed {
            assert_no_data(&fetched);
            assert_helpers(router.netns(), &[]);
        } else {
            let bytes = fetched.unwrap_or_else(|error| panic!("token {other:#x}: {error}"));
            assert!(bytes == server.bytes, "the file arrives as it is");
            assert_helpers(router.netns(), &[(21, "ftp")]);
        }
        drop(foreign);
        router.netns().tool("conntrack", ["-F"], "");
    }
}

#[test]
fn only_what_carries_the_instances_token_is_believed_by_native_xdp() {
    check_who_is_believed(Native);
}

#[test]
fn only_what_carries_the_instances_token_is_believed_by_generic_xdp() {
    check_who_is_believed(Generic);
}
