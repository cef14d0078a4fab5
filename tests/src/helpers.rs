//! Helper rules as a test states them, and the two ways to put them in force.

use std::fmt;
use std::fmt::Write as _;

use crate::agent::{Agent, Config};
use crate::attach::Xdp;
use crate::lab::Lab;
use crate::router::Router;
use crate::snapshot::xdp_on;

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// One helper rule of a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The control connection's protocol.
    pub protocol: Protocol,
    /// Its destination port.
    pub port: u16,
    /// The kernel's name of the helper.
    pub helper: &'static str,
}

impl Rule {
    /// FTP's helper on a port.
    #[must_use]
    pub const fn ftp(port: u16) -> Self {
        Self {
            protocol: Protocol::Tcp,
            port,
            helper: "ftp",
        }
    }

    /// TFTP's helper on a port.
    #[must_use]
    pub const fn tftp(port: u16) -> Self {
        Self {
            protocol: Protocol::Udp,
            port,
            helper: "tftp",
        }
    }

    /// IRC's helper on a port: one that the kernel has for IPv4 alone.
    #[must_use]
    pub const fn irc(port: u16) -> Self {
        Self {
            protocol: Protocol::Tcp,
            port,
            helper: "irc",
        }
    }

    /// SIP's helper over UDP on a port.
    #[must_use]
    pub const fn sip(port: u16) -> Self {
        Self {
            protocol: Protocol::Udp,
            port,
            helper: "sip",
        }
    }
}

/// The rules file that gives these routers these rules.
#[must_use]
pub fn rules_file(routers: &[(&Router, &[Rule])]) -> String {
    let parts = routers
        .iter()
        .map(|(router, rules)| rules_of(router.id(), rules));
    parts.collect()
}

/// The part of a rules file that gives one router its rules.
#[must_use]
pub fn rules_of(router: impl fmt::Display + Copy, rules: &[Rule]) -> String {
    let mut part = format!("[[router]]\nid = \"{router}\"\nhelpers = [\n");
    for Rule {
        protocol,
        port,
        helper,
    } in rules
    {
        let _infallible = writeln!(
            part,
            "  {{ protocol = \"{protocol}\", port = {port}, helper = \"{helper}\" }},"
        );
    }
    part.push_str("]\n");
    part
}

/// What puts a scenario's rules in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The agent under test.
    Agent,
    /// The same, configured to attach XDP programs too, in this way, to the
    /// interfaces towards clients.
    Xdp(Xdp),
    /// A plain nftables rule: it shows that the lab itself works, and that a
    /// scenario which fails with the agent fails because of the agent.
    PlainNft,
}

impl By {
    /// Puts the rules of one router in force, for as long as the answer lives.
    #[must_use]
    pub fn install(self, lab: &Lab, router: &Router, rules: &[Rule]) -> Option<Agent> {
        match self {
            Self::Agent => Some(Agent::start(lab, &rules_file(&[(router, rules)]))),
            Self::Xdp(xdp) => {
                let config = Config::of(lab).with_xdp(router.client_side(), xdp);
                let agent = Agent::start_with(lab, &config, &rules_file(&[(router, rules)]));
                assert_eq!(xdp_on(router.netns(), router.client_side()), Some(xdp));
                Some(agent)
            }
            Self::PlainNft => {
                router.plain_nft_helpers(rules);
                None
            }
        }
    }
}
