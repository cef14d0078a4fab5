//! A router with an FTP server behind it, and the one rule that its sessions need.

use std::ops::Deref;

use conntrack_ebpf::abi::Counters;

use crate::clients::ftp::{Mode, fetch};
use crate::conntrack::assert_helpers;
use crate::counters::rule_counters;
use crate::helpers::{Protocol, Rule};
use crate::lab::Lab;
use crate::router_lab::RouterLab;
use crate::servers::ftp::FtpServer;
use crate::site::{Crossing, Plan, Site};
use crate::snapshot::ingress_programs;

/// The server's, which the rule is for.
pub const PORT: u16 = 2121;

/// A router that masquerades, between a client and a server.
pub struct FtpRouter {
    /// The server.
    pub server: FtpServer,
    /// The router, client and server.
    pub site: Site,
    router_lab: RouterLab,
}

impl Deref for FtpRouter {
    type Target = RouterLab;

    fn deref(&self) -> &RouterLab {
        &self.router_lab
    }
}

impl FtpRouter {
    /// In a lab of its own, without an agent.
    #[must_use]
    pub fn new() -> Self {
        let lab = Lab::new();
        let site = Site::new(&lab, &Plan::new(Crossing::Snat4, &[(Protocol::Tcp, PORT)]));
        let server = FtpServer::start(&site.server, site.server_address(PORT));
        let router_lab = site.router_lab(&lab, &[Rule::ftp(PORT)]);
        Self {
            server,
            site,
            router_lab,
        }
    }

    /// That an active session gets its data, by the helper.
    pub fn assert_works(&self) {
        self.netns.tool("conntrack", ["-F"], "");
        let address = self.site.published_address(PORT);
        let came = fetch(&self.site.client, address, Mode::Active);
        assert!(came.expect("the transfer") == self.server.bytes);
        assert_helpers(&self.netns, &[(PORT, "ftp")]);
    }

    /// The programs where the client's packets come in.
    #[must_use]
    pub fn program(&self) -> Vec<u32> {
        ingress_programs(&self.netns, self.site.router.client_side())
    }

    /// What the rule has counted.
    #[must_use]
    pub fn counted(&self) -> Counters {
        rule_counters(self.lab.dir(), &self.site.router, Rule::ftp(PORT)).expect("counters")
    }
}

impl Default for FtpRouter {
    fn default() -> Self {
        Self::new()
    }
}
