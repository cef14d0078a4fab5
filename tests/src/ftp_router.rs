//! A router with an FTP server behind it, and the one rule that its sessions need.

use conntrack_agent::kernel::Pins;

use crate::clients::ftp::{Mode, fetch};
use crate::conntrack::assert_helpers;
use crate::helpers::{Protocol, Rule, rules_file};
use crate::lab::Lab;
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
    /// The lab.
    pub lab: Lab,
}

impl FtpRouter {
    /// In a lab of its own, without an agent.
    #[must_use]
    pub fn new() -> Self {
        let lab = Lab::new();
        let site = Site::new(&lab, &Plan::new(Crossing::Snat4, &[(Protocol::Tcp, PORT)]));
        let server = FtpServer::start(&site.server, site.server_address(PORT));
        Self { server, site, lab }
    }

    /// The rules file with the rule.
    #[must_use]
    pub fn rules(&self) -> String {
        rules_file(&[(&self.site.router, &[Rule::ftp(PORT)])])
    }

    /// That an active session gets its data, by the helper.
    pub fn assert_works(&self) {
        let netns = self.site.router.netns();
        netns.tool("conntrack", ["-F"], "");
        let address = self.site.published_address(PORT);
        let came = fetch(&self.site.client, address, Mode::Active);
        assert!(came.expect("the transfer") == self.server.bytes);
        assert_helpers(netns, &[(PORT, "ftp")]);
    }

    /// The programs where the client's packets come in.
    #[must_use]
    pub fn program(&self) -> Vec<u32> {
        ingress_programs(self.site.router.netns(), self.site.router.client_side())
    }

    /// The agent's pins.
    #[must_use]
    pub fn pins(&self) -> Pins {
        Pins::new(self.lab.dir().agent_bpffs_dir())
    }
}

impl Default for FtpRouter {
    fn default() -> Self {
        Self::new()
    }
}
