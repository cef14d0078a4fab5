//! A router's namespace, as Neutron makes it.

use std::fmt::Write as _;
use std::net::IpAddr;

use conntrack_agent::model::RouterId;
use uuid::Uuid;

use crate::helpers::{Protocol, Rule};
use crate::netns::Netns;

/// A router between a client's and a server's side.
pub struct Router {
    id: Uuid,
    netns: Netns,
    client_side: String,
    server_side: String,
}

/// What a router lets through and translates.
pub(crate) struct Policy<'a> {
    /// The control ports that new connections may go to.
    pub(crate) control: &'a [(Protocol, u16)],
    /// Whether IPv4 connections leave with the router's own address.
    pub(crate) masquerade: bool,
    /// The server that the router's own IPv4 address stands for.
    pub(crate) publish: Option<IpAddr>,
}

impl Router {
    pub(crate) fn new(id: Uuid, netns: Netns, client_side: String, server_side: String) -> Self {
        netns.sysctl("ipv4/ip_forward", "1");
        netns.sysctl("ipv6/conf/all/forwarding", "1");
        Self {
            id,
            netns,
            client_side,
            server_side,
        }
    }

    /// Its UUID.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Its id, as the agent has it.
    #[must_use]
    pub fn router_id(&self) -> RouterId {
        let id = self.id.to_string();
        id.parse().expect("a router id")
    }

    /// Its namespace.
    #[must_use]
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The interface towards the client.
    #[must_use]
    pub fn client_side(&self) -> &str {
        &self.client_side
    }

    /// The interface towards the server.
    #[must_use]
    pub fn server_side(&self) -> &str {
        &self.server_side
    }

    /// Drops what is forwarded, except new connections to the control ports
    /// and what conntrack knows to belong to one: a data connection passes
    /// only if a helper has announced it.
    pub(crate) fn enforce(&self, policy: &Policy<'_>) {
        let client_side = &self.client_side;
        assert!(!policy.control.is_empty(), "nft has no empty sets");
        let control = port_set(policy.control);
        let mut ruleset = format!(
            r#"
            table inet lab {{
                chain forward {{
                    type filter hook forward priority filter; policy drop;
                    ct state established,related accept
                    meta l4proto {{ icmp, ipv6-icmp }} accept
                    iifname "{client_side}" ct state new meta l4proto . th dport {control} accept
                }}
            "#
        );
        if policy.masquerade {
            let server_side = &self.server_side;
            let _infallible = writeln!(
                ruleset,
                r#"chain postrouting {{
                    type nat hook postrouting priority srcnat;
                    meta nfproto ipv4 oifname "{server_side}" masquerade
                }}"#
            );
        }
        if let Some(server) = policy.publish {
            let _infallible = writeln!(
                ruleset,
                r#"chain prerouting {{
                    type nat hook prerouting priority dstnat;
                    iifname "{client_side}" fib daddr type local meta l4proto . th dport {control} dnat ip to {server}
                }}"#
            );
        }
        ruleset.push_str("}\n");
        self.netns.nft(&ruleset);
    }

    /// Gives connections their helpers by plain nftables rules, where the
    /// agent's binding would be.
    pub fn plain_nft_helpers(&self, rules: &[Rule]) {
        let mut ruleset = String::from("table inet plain {\n");
        for (at, rule) in rules.iter().enumerate() {
            let Rule {
                protocol, helper, ..
            } = rule;
            let _infallible = writeln!(
                ruleset,
                r#"ct helper helper{at} {{ type "{helper}" protocol {protocol}; }}"#
            );
        }
        ruleset.push_str("chain prerouting { type filter hook prerouting priority -160;\n");
        for (at, rule) in rules.iter().enumerate() {
            let Rule { protocol, port, .. } = rule;
            let _infallible = writeln!(
                ruleset,
                r#"{protocol} dport {port} ct helper set "helper{at}""#
            );
        }
        ruleset.push_str("}\n}\n");
        self.netns.nft(&ruleset);
    }
}

fn port_set(ports: &[(Protocol, u16)]) -> String {
    let ports: Vec<_> = ports
        .iter()
        .map(|(l4, port)| format!("{l4} . {port}"))
        .collect();
    format!("{{ {} }}", ports.join(", "))
}
