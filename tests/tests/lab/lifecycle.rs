//! The agent comes, changes its rules, dies and goes.

use std::thread;

use conntrack_tests::agent::{Agent, Reload, subcommand};
use conntrack_tests::clients::ftp::{Mode, fetch};
use conntrack_tests::conntrack::assert_helpers;
use conntrack_tests::foreign::ForeignProgram;
use conntrack_tests::helpers::{Protocol, Rule, rules_file};
use conntrack_tests::lab::Lab;
use conntrack_tests::scenario::ftp::assert_no_data;
use conntrack_tests::servers::ftp::FtpServer;
use conntrack_tests::site::{Crossing, Plan, Site};
use conntrack_tests::snapshot::{Loaded, Snapshot, assert_same};
use conntrack_tests::wait;

const PORTS: [u16; 2] = [21, 2121];

/// A lab with one router and an FTP server on both ports.
struct Fixture {
    _servers: [FtpServer; 2],
    bytes: [Vec<u8>; 2],
    site: Site,
    lab: Lab,
}

impl Fixture {
    fn new() -> Self {
        let lab = Lab::new();
        let control = PORTS.map(|port| (Protocol::Tcp, port));
        let site = Site::new(&lab, &Plan::new(Crossing::Snat4, &control));
        let servers = PORTS.map(|port| FtpServer::start(&site.server, site.server_address(port)));
        let bytes = servers.each_ref().map(|server| server.bytes.clone());
        Self {
            _servers: servers,
            bytes,
            site,
            lab,
        }
    }

    fn rules(&self, port: u16) -> String {
        rules_file(&[(&self.site.router, &[Rule::ftp(port)])])
    }

    /// Asserts that new sessions get their data on one port only.
    fn assert_works_only_on(&self, ruled: u16) {
        let netns = self.site.router.netns();
        netns.tool("conntrack", ["-F"], "");
        thread::scope(|scope| {
            for (port, bytes) in PORTS.iter().zip(&self.bytes) {
                scope.spawn(move || {
                    let server = self.site.published_address(*port);
                    let session = fetch(&self.site.client, server, Mode::Active);
                    if *port == ruled {
                        let came = session.unwrap_or_else(|e| panic!("on {port}: {e}"));
                        assert!(came == *bytes, "the file arrives as it is");
                    } else {
                        assert_no_data(&session);
                    }
                });
            }
        });
        assert_helpers(netns, &[(ruled, "ftp")]);
    }
}

#[test]
fn a_killed_agent_leaves_a_working_datapath_and_cleanup_leaves_nothing() {
    let fixture = Fixture::new();
    let router = fixture.site.router.netns();
    let namespaces = [router, &fixture.site.client, &fixture.site.server];
    // Somebody else's, on the same hooks.
    router.nft(
        "table inet foreign {
            chain prerouting { type filter hook prerouting priority -160; counter; }
        }",
    );
    let _foreign = ForeignProgram::attach(router, fixture.site.router.client_side());
    let before = Snapshot::take(&fixture.lab, &namespaces);
    let foreign = Loaded::in_namespaces(&namespaces);

    let agent = Agent::start(&fixture.lab, &fixture.rules(2121));
    fixture.assert_works_only_on(2121);
    let ours = Loaded::in_namespaces(&namespaces).without(&foreign);
    assert!(!ours.is_empty(), "the agent's programs are seen");
    assert_eq!(agent.kill().code, None, "a signal ended it");
    fixture.assert_works_only_on(2121);

    let cleanup = subcommand(&fixture.lab, "cleanup");
    assert_eq!(cleanup.code, Some(0), "{cleanup:?}");
    assert_same(&before, &Snapshot::take(&fixture.lab, &namespaces));
    // The kernel frees programs and maps some time after their last user.
    let freed = || ours.still().is_empty().then_some(());
    let freed = wait::until(wait::patience(), freed);
    assert!(freed.is_some(), "still loaded: {:?}", ours.still());

    // Nothing to clean up is no failure.
    let again = subcommand(&fixture.lab, "cleanup");
    assert_eq!(again.code, Some(0), "{again:?}");
    assert_same(&before, &Snapshot::take(&fixture.lab, &namespaces));
}

#[test]
fn a_stopped_agent_leaves_a_working_datapath_that_the_next_one_takes_over() {
    let fixture = Fixture::new();
    let netns = [fixture.site.router.netns()];
    let agent = Agent::start(&fixture.lab, &fixture.rules(2121));
    let loaded = Loaded::in_namespaces(&netns);

    let exit = agent.stop();
    assert_eq!(exit.code, Some(0), "{exit:?}");
    fixture.assert_works_only_on(2121);

    let mut agent = Agent::start(&fixture.lab, &fixture.rules(2121));
    assert_eq!(Loaded::in_namespaces(&netns), loaded, "the same programs");
    fixture.assert_works_only_on(2121);
    assert_eq!(agent.reload(&fixture.rules(21)), Reload::Done);
    fixture.assert_works_only_on(21);
}

#[test]
fn a_reload_applies_the_difference_or_nothing() {
    let fixture = Fixture::new();
    let mut agent = Agent::start(&fixture.lab, &fixture.rules(2121));
    fixture.assert_works_only_on(2121);

    assert_eq!(agent.reload(&fixture.rules(21)), Reload::Done);
    fixture.assert_works_only_on(21);

    let bad = fixture.rules(2121).replace("2121", "65536");
    assert_eq!(agent.reload(&bad), Reload::Refused);
    agent.wait_for_log("65536");
    fixture.assert_works_only_on(21);

    assert_eq!(agent.reload(&fixture.rules(2121)), Reload::Done);
    fixture.assert_works_only_on(2121);
}
