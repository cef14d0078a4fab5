//! skb->mark is Neutron's after prerouting, whatever the agent does before.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use conntrack_tests::agent::Agent;
use conntrack_tests::conntrack::assert_helpers;
use conntrack_tests::helpers::{Protocol, Rule, rules_file};
use conntrack_tests::lab::Lab;
use conntrack_tests::marks::{
    EXTERNAL, METADATA, METADATA_ADDRESS, SCOPE, forge, neutron_mangle, seen, watch,
};
use conntrack_tests::netns::Netns;
use conntrack_tests::site::Crossing::{self, Routed4, Routed6};
use conntrack_tests::site::{Plan, Site};

use Outside::{Client, Server};

const RULES: [Rule; 2] = [Rule::ftp(2121), Rule::tftp(6969)];
const CONTROL: [(Protocol, u16); 4] = [
    (Protocol::Tcp, 21),
    (Protocol::Tcp, 2121),
    (Protocol::Udp, 69),
    (Protocol::Udp, 6969),
];

/// What somebody else has written: in the agent's bits the helper mark of ftp,
/// and something in both halves of the rest.
const FORGED: u32 = 0x0120_0034;

/// Which of the router's interfaces Neutron takes for the outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outside {
    Client,
    Server,
}

/// `forged` is what packets from the client arrive with, the last two are the marks on
/// packets from the client and on those from the server.
fn check(
    crossing: Crossing,
    outside: Outside,
    forged: Option<u32>,
    has_agent: bool,
    from_client: &[u32],
    from_server: &[u32],
) {
    let lab = Lab::new();
    let mut plan = Plan::new(crossing, &CONTROL);
    plan.stacked = forged.is_some();
    let site = Site::new(&lab, &plan);
    let router = &site.router;
    let netns = router.netns();
    let (client_side, server_side) = (router.client_side(), router.server_side());
    match outside {
        Client => neutron_mangle(netns, client_side, server_side),
        Server => neutron_mangle(netns, server_side, client_side),
    }
    if let Some(mark) = forged {
        forge(router, mark);
    }
    let _agent = has_agent.then(|| Agent::start(&lab, &rules_file(&[(router, &RULES)])));
    // What passed while things were being set up doesn't count.
    netns.tool("conntrack", ["-F"], "");
    watch(netns);

    // A refused connection would be gone from conntrack at once.
    let _listeners = site.server.run(|| {
        [21, 2121].map(|port| TcpListener::bind(site.server_address(port)).expect("a listener"))
    });
    send_everything(&site.client, |port| site.server_address(port));
    if crossing == Routed4 {
        knock(
            &site.client,
            SocketAddr::new(METADATA_ADDRESS.parse().expect("an address"), 80),
        );
    }
    send_everything(&site.server, |port| site.client_address(port));

    let expected = |side: &str, marks: &[u32]| -> BTreeSet<_> {
        marks.iter().map(|mark| (side.to_owned(), *mark)).collect()
    };
    let mut all = expected(client_side, from_client);
    all.extend(expected(server_side, from_server));
    assert_eq!(seen(netns), all);
    if has_agent {
        // A forged helper mark is no claim to a helper.
        assert_helpers(netns, &[(2121, "ftp"), (6969, "tftp")]);
    }
}

/// Packets to ports with and without a rule, in one piece and in fragments.
fn send_everything(from: &Netns, to: impl Fn(u16) -> SocketAddr) {
    for (protocol, port) in CONTROL {
        let to = to(port);
        match protocol {
            Protocol::Tcp => knock(from, to),
            Protocol::Udp => from.run(|| {
                let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any).expect("a socket");
                for size in [1, 4000] {
                    socket.send_to(&vec![0; size], to).expect("a datagram");
                }
            }),
        }
    }
}

/// A connection attempt, whatever comes of it.
fn knock(from: &Netns, to: SocketAddr) {
    from.run(|| drop(TcpStream::connect_timeout(&to, Duration::from_millis(200))));
}

#[rustfmt::skip]
cases! {
    // name                            crossing outside forged        agent  marks from the client          from the server
    neutrons_own:                      Routed4, Server, None,         false, &[SCOPE, SCOPE | METADATA],    &[EXTERNAL];
    neutrons_own_v6:                   Routed6, Server, None,         false, &[SCOPE],                      &[EXTERNAL];
    same_with_rules:                   Routed4, Server, None,         true,  &[SCOPE, SCOPE | METADATA],    &[EXTERNAL];
    same_with_rules_v6:                Routed6, Server, None,         true,  &[SCOPE],                      &[EXTERNAL];
    same_with_rules_inside_out:        Routed4, Client, None,         true,  &[EXTERNAL, METADATA],         &[SCOPE];
    same_with_rules_inside_out_v6:     Routed6, Client, None,         true,  &[EXTERNAL],                   &[SCOPE];
    forged_stays_without_the_agent:    Routed4, Client, Some(FORGED), false, &[0x0120_0002, 0x0120_0001],   &[SCOPE];
    forged_stays_without_the_agent_v6: Routed6, Client, Some(FORGED), false, &[0x0120_0002],                &[SCOPE];
    // Our bits, and nothing else, are gone.
    forged_is_cleared:                 Routed4, Client, Some(FORGED), true,  &[0x0020_0002, 0x0020_0001],   &[SCOPE];
    forged_is_cleared_v6:              Routed6, Client, Some(FORGED), true,  &[0x0020_0002],                &[SCOPE];
}
