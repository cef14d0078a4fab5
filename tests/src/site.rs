//! A client, a router and a server, wired together.

use std::net::{IpAddr, SocketAddr};

use uuid::Uuid;

use crate::helpers::{Protocol, Rule};
use crate::lab::Lab;
use crate::netns::Netns;
use crate::router::{Policy, Router};
use crate::router_lab::RouterLab;

/// How a client's packets cross the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crossing {
    /// IPv4, addresses unchanged.
    Routed4,
    /// IPv4, the client behind the router's address.
    Snat4,
    /// IPv4, the server behind the router's address.
    Dnat4,
    /// IPv6, addresses unchanged.
    Routed6,
}

/// What to wire.
#[derive(Clone, Debug)]
pub struct Plan<'a> {
    /// How packets cross the router.
    pub crossing: Crossing,
    /// The control ports that the router lets new connections go to.
    pub control: &'a [(Protocol, u16)],
    /// The ifindex of the router's interface towards the client, where it
    /// matters; the one towards the server gets the next.
    pub ifindex: Option<u32>,
    /// Whether the router's interface towards the client is a macvlan, on
    /// [`LOWER`].
    pub stacked: bool,
}

/// The interface below a stacked one, in the router.
pub const LOWER: &str = "lower0";

impl<'a> Plan<'a> {
    /// A plain site.
    #[must_use]
    pub fn new(crossing: Crossing, control: &'a [(Protocol, u16)]) -> Self {
        Self {
            crossing,
            control,
            ifindex: None,
            stacked: false,
        }
    }
}

/// The three namespaces.
pub struct Site {
    /// Where clients run.
    pub client: Netns,
    /// What is between them.
    pub router: Router,
    /// Where servers run.
    pub server: Netns,
    crossing: Crossing,
}

const CLIENT: [&str; 2] = ["10.0.1.2", "fd00:1::2"];
const ROUTER_CLIENT_SIDE: [&str; 2] = ["10.0.1.1", "fd00:1::1"];
const ROUTER_SERVER_SIDE: [&str; 2] = ["10.0.2.1", "fd00:2::1"];
const SERVER: [&str; 2] = ["10.0.2.2", "fd00:2::2"];

impl Site {
    /// Makes the namespaces of a plan and wires them.
    #[must_use]
    pub fn new(lab: &Lab, plan: &Plan<'_>) -> Self {
        let id = Uuid::new_v4();
        let client = lab.netns(&format!("client-{id}"));
        let server = lab.netns(&format!("server-{id}"));
        let netns = lab.netns(&format!("qrouter-{id}"));

        // Neutron's names: `qr-` inside, `qg-` outside, then the port's UUID.
        let outside_is_client = plan.crossing == Crossing::Dnat4;
        let (towards_client, towards_server) = if outside_is_client {
            ("qg", "qr")
        } else {
            ("qr", "qg")
        };
        let client_side = interface(towards_client);
        let server_side = interface(towards_server);
        wire(&netns, &client_side, &client, plan.stacked, plan.ifindex);
        wire(
            &netns,
            &server_side,
            &server,
            false,
            plan.ifindex.map(|i| i + 1),
        );

        address(&client, HOST_INTERFACE, CLIENT);
        address(&server, HOST_INTERFACE, SERVER);
        address(&netns, &client_side, ROUTER_CLIENT_SIDE);
        address(&netns, &server_side, ROUTER_SERVER_SIDE);
        default_route(&client, ROUTER_CLIENT_SIDE);
        default_route(&server, ROUTER_SERVER_SIDE);

        let site = Self {
            client,
            router: Router::new(id, netns, client_side, server_side),
            server,
            crossing: plan.crossing,
        };
        site.router.enforce(&Policy {
            control: plan.control,
            masquerade: plan.crossing == Crossing::Snat4,
            publish: outside_is_client.then(|| site.server_address(0).ip()),
        });
        site
    }

    /// The router with these rules, for an agent.
    #[must_use]
    pub fn router_lab(&self, lab: &Lab, rules: &[Rule]) -> RouterLab {
        let router = &self.router;
        RouterLab::of(lab, router.router_id(), router.netns(), rules)
    }

    /// Where a server on `port` listens.
    #[must_use]
    pub fn server_address(&self, port: u16) -> SocketAddr {
        self.of_family(SERVER, port)
    }

    /// Where a client goes to reach the server on `port`.
    #[must_use]
    pub fn published_address(&self, port: u16) -> SocketAddr {
        match self.crossing {
            Crossing::Dnat4 => self.of_family(ROUTER_CLIENT_SIDE, port),
            Crossing::Routed4 | Crossing::Snat4 | Crossing::Routed6 => self.server_address(port),
        }
    }

    /// The client's own address.
    #[must_use]
    pub fn client_address(&self, port: u16) -> SocketAddr {
        self.of_family(CLIENT, port)
    }

    fn of_family(&self, addresses: [&str; 2], port: u16) -> SocketAddr {
        let [v4, v6] = addresses;
        let text = match self.crossing {
            Crossing::Routed4 | Crossing::Snat4 | Crossing::Dnat4 => v4,
            Crossing::Routed6 => v6,
        };
        let ip: IpAddr = text.parse().expect("an address of the lab");
        SocketAddr::new(ip, port)
    }
}

/// The only interface of clients and servers.
const HOST_INTERFACE: &str = "eth0";

fn interface(prefix: &str) -> String {
    let port = Uuid::new_v4().to_string();
    format!("{prefix}-{}", &port[..11])
}

/// Connects the router's interface `name` with `host`.
///
/// Made in the router's namespace, because an ifindex can only be asked for
/// where the interface is made.
fn wire(router: &Netns, name: &str, host: &Netns, stacked: bool, ifindex: Option<u32>) {
    let index = ifindex.map_or_else(String::new, |index| format!("index {index}"));
    let at = host.path().display();
    let lower = if stacked { LOWER } else { name };
    let lower_index = if stacked { "" } else { &index };
    router.ip(&format!(
        "link add {lower} {lower_index} type veth peer name {HOST_INTERFACE} netns {at}\n"
    ));
    if stacked {
        // The lower interface itself takes no part: it answers for no address.
        router.sysctl(&format!("ipv4/conf/{lower}/arp_ignore"), "8");
        router.sysctl(&format!("ipv6/conf/{lower}/disable_ipv6"), "1");
        router.ip(&format!(
            "link set {lower} up\n\
             link add link {lower} name {name} {index} type macvlan\n"
        ));
    }
}

fn address(netns: &Netns, interface: &str, [v4, v6]: [&str; 2]) {
    netns.ip(&format!(
        "link set {interface} up\n\
         addr add {v4}/24 dev {interface}\n\
         addr add {v6}/64 dev {interface} nodad\n"
    ));
}

fn default_route(netns: &Netns, [v4, v6]: [&str; 2]) {
    netns.ip(&format!(
        "route add default via {v4}\n\
         route add ::/0 via {v6}\n"
    ));
}
