//! TFTP through a router.

use std::thread;

use crate::clients::tftp::fetch;
use crate::conntrack::assert_helpers;
use crate::helpers::{By, Protocol, Rule};
use crate::lab::Lab;
use crate::servers::tftp::TftpServer;
use crate::site::{Crossing, Plan, Site};

/// One way to transfer a file.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// How the client's packets cross the router.
    pub crossing: Crossing,
    /// The control port that has a rule.
    pub port: u16,
    /// One that hasn't.
    pub unruled: u16,
}

/// The transfer works on the ruled port with the rule, and on neither port
/// without one: the server answers from a port of its own choice.
pub fn check(by: By, case: Case) {
    let Case {
        crossing,
        port,
        unruled,
    } = case;
    let lab = Lab::new();
    let control = [(Protocol::Udp, port), (Protocol::Udp, unruled)];
    let site = Site::new(&lab, &Plan::new(crossing, &control));
    let ruled_server = TftpServer::start(&site.server, site.server_address(port));
    let _unruled_server = TftpServer::start(&site.server, site.server_address(unruled));
    let fetch = |port| fetch(&site.client, site.published_address(port));
    let assert_no_data = |port| {
        let transfer = fetch(port).map(|bytes| bytes.len());
        assert!(
            transfer.is_err(),
            "port {port} has no rule: {transfer:?} bytes came"
        );
    };

    thread::scope(|scope| {
        scope.spawn(|| assert_no_data(port));
        scope.spawn(|| assert_no_data(unruled));
    });
    assert_helpers(site.router.netns(), &[]);
    site.router.netns().tool("conntrack", ["-F"], "");

    let _agent = by.install(&lab, &site.router, &[Rule::tftp(port)]);
    thread::scope(|scope| {
        scope.spawn(|| {
            let bytes = fetch(port).unwrap_or_else(|e| panic!("with a rule on {port}: {e}"));
            assert!(bytes == ruled_server.bytes, "the file arrives as it is");
        });
        scope.spawn(|| assert_no_data(unruled));
    });
    assert_helpers(site.router.netns(), &[(port, "tftp")]);
}
