//! Routers between one namespace with all clients and one with all servers.
//!
//! There are neither clients nor servers: frames are put on the wire as they are, and a
//! netdev chain takes the client's off it again, counts them and drops them.

use std::net::{Ipv4Addr, Ipv6Addr};

use conntrack_tests::lab::Lab;
use conntrack_tests::netns::Netns;
use serde_json::Value;

use crate::wire::Wire;

/// One end of a link.
pub(crate) struct Side {
    pub(crate) v4: Ipv4Addr,
    pub(crate) v6: Ipv6Addr,
    pub(crate) mac: [u8; 6],
}

/// The client.
pub(crate) const CLIENT: Side = Side::new(1, 2);
/// The router, towards the client.
pub(crate) const ROUTER_INSIDE: Side = Side::new(1, 1);
/// The router, towards the server.
pub(crate) const ROUTER_OUTSIDE: Side = Side::new(2, 1);
/// The server.
pub(crate) const SERVER: Side = Side::new(2, 2);

impl Side {
    const fn new(network: u8, host: u8) -> Self {
        Self {
            v4: Ipv4Addr::new(10, 0, network, host),
            v6: Ipv6Addr::new(0xfd00, network as u16, 0, 0, 0, 0, 0, host as u16),
            mac: [2, 0, 0, 0, network, host],
        }
    }

    fn mac(&self) -> String {
        self.mac.map(|byte| format!("{byte:02x}")).join(":")
    }
}

/// The router's interface towards the client.
pub(crate) const INSIDE: &str = "qr-1";
/// Its interface towards the server.
const OUTSIDE: &str = "qg-1";

/// What becomes of addresses in a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Translation {
    /// Nothing. Conntrack is there for the filter's sake.
    None,
    /// The client is hidden behind the router, in both families.
    Masquerade,
}

impl Translation {
    /// The smallest ruleset that makes a router so.
    fn ruleset(self) -> String {
        let chain = match self {
            Self::None => {
                "chain forward {
                    type filter hook forward priority filter
                    ct state established,related accept
                }"
            }
            Self::Masquerade => {
                "chain postrouting {
                    type nat hook postrouting priority srcnat
                    oifname qg-1 masquerade
                }"
            }
        };
        format!("table inet lab {{ {chain}\n }}")
    }
}

/// Where all clients and servers would be.
pub(crate) struct Hosts {
    clients: Netns,
    servers: Netns,
    count: usize,
}

/// A router's links.
pub(crate) struct Links {
    number: usize,
    pub(crate) client: Wire,
    pub(crate) server: Wire,
}

impl Hosts {
    /// Without any yet.
    pub(crate) fn new(lab: &Lab) -> Self {
        let [clients, servers] = ["clients", "servers"].map(|name| {
            let netns = lab.netns(name);
            // Nobody answers there, and nobody asks.
            netns.sysctl("ipv6/conf/default/disable_ipv6", "1");
            netns
        });
        Self {
            clients,
            servers,
            count: 0,
        }
    }

    /// Makes a router of a namespace, and wires it.
    pub(crate) fn connect(&mut self, router: &Netns, translation: Translation) -> Links {
        let number = self.count;
        self.count += 1;
        router.sysctl("ipv4/ip_forward", "1");
        router.sysctl("ipv6/conf/all/forwarding", "1");
        // No connection ends while it waits for its turn. TCP's live for five days.
        for timeout in ["udp_timeout", "udp_timeout_stream"] {
            router.sysctl(&format!("netfilter/nf_conntrack_{timeout}"), "3600");
        }
        let [client, server] = [format!("c{number}"), format!("s{number}")];
        wire(
            router,
            [INSIDE, &client],
            &self.clients,
            [&ROUTER_INSIDE, &CLIENT],
        );
        wire(
            router,
            [OUTSIDE, &server],
            &self.servers,
            [&ROUTER_OUTSIDE, &SERVER],
        );
        router.nft(&translation.ruleset());
        self.clients.nft(&end(&client, "drop"));
        // Neighbour discovery and multicast listeners are of no stream.
        self.servers
            .nft(&end(&server, "meta l4proto ipv6-icmp drop\n counter drop"));
        Links {
            number,
            client: self.clients.run(|| Wire::open(&client)),
            server: self.servers.run(|| Wire::open(&server)),
        }
    }

    /// How many packets have come to each router's server, by the router's number.
    pub(crate) fn arrived(&self) -> Vec<u64> {
        let listing = self
            .servers
            .tool("nft", ["--json", "list", "table", "netdev", TABLE], "");
        let listing: Value = serde_json::from_str(&listing).expect("nft's JSON");
        let objects = listing["nftables"].as_array().expect("its objects");
        let mut counts = vec![0; self.count];
        for rule in objects.iter().map(|object| &object["rule"]) {
            let expressions = rule["expr"].as_array().into_iter().flatten();
            let mut packets = expressions.filter_map(|of| of["counter"]["packets"].as_u64());
            if let Some(packets) = packets.next() {
                let chain = rule["chain"].as_str().expect("its chain");
                let number: usize = chain[1..].parse().expect("the router's number");
                counts[number] = packets;
            }
        }
        counts
    }
}

impl Links {
    /// The router's number among those that have been connected.
    pub(crate) const fn number(&self) -> usize {
        self.number
    }
}

const TABLE: &str = "ends";

/// The table that ends the way of all packets that come in by an interface.
fn end(interface: &str, rules: &str) -> String {
    format!(
        "table netdev {TABLE} {{ chain {interface} {{
            type filter hook ingress device {interface} priority 0
            {rules}
        }}\n }}"
    )
}

/// A link between a router's interface and one of the hosts, which know each other.
fn wire(router: &Netns, [near, far]: [&str; 2], hosts: &Netns, [here, there]: [&Side; 2]) {
    let place = hosts.path().display();
    let [here_mac, there_mac] = [here, there].map(Side::mac);
    router.ip(&format!(
        "link add {near} address {here_mac} type veth peer name {far} address {there_mac} netns {place}\n\
         link set {near} up\n\
         addr add {}/24 dev {near}\n\
         addr add {}/64 dev {near} nodad\n\
         neigh add {} lladdr {there_mac} nud permanent dev {near}\n\
         neigh add {} lladdr {there_mac} nud permanent dev {near}\n",
        here.v4, here.v6, there.v4, there.v6
    ));
    hosts.ip(&format!("link set {far} up"));
}
