//! Limits that are near.

use super::*;

#[test]
fn a_limit_of_the_configuration_that_is_near() {
    let fixture = Fixture::new();
    let with = |limit: &str, count: u32| {
        let limits = format!("{{ {limit} = {count} }}");
        let config = Config::of(&fixture.lab).with("limits", limits);
        ask_with(&fixture.lab, &config)
    };
    let words = ["1 of 1 (limits.rules_per_router)", "[limits]"];
    // What is there works on.
    with("rules_per_router", 1).assert_found("limits", "warn", &words);
    with("rules_per_router", 1000).assert_ok("limits");
    let words = ["1 of 1 (limits.routers", "that are here", "restart"];
    with("routers", 1).assert_found("limits", "warn", &words);
    with("routers", 2).assert_ok("limits");
}

/// Really near: a flow for each of so many connections, which live until they are
/// flushed. They are those of this namespace: a router beside it has none.
#[test]
fn a_connection_table_that_is_nearly_full_is_warned_of() {
    let fixture = Fixture::new();
    let netns = fixture.netns();
    netns.ip("link set lo up");
    netns.sysctl("netfilter/nf_conntrack_udp_timeout", "3600");
    let number = |name: &str| -> usize {
        let path = format!("/proc/sys/net/netfilter/{name}");
        let text = netns.tool("cat", [path.as_str()], "");
        text.trim().parse().expect("a number")
    };
    let most = number("nf_conntrack_max");
    let fill = |hundredths: usize, from: u8| {
        let wanted = most * hundredths / 100;
        netns.run(|| {
            let mut sockets = (1..=u8::MAX).map(|host| {
                let socket = UdpSocket::bind(SocketAddr::from(([127, 0, from, host], 0)));
                socket.expect("a socket")
            });
            while number("nf_conntrack_count") < wanted {
                let socket = sockets.next().expect("one more address");
                let missing = wanted - number("nf_conntrack_count");
                for port in (1_024..=u16::MAX).take(missing) {
                    // Nobody is there, which an earlier packet's ICMP may say.
                    drop(socket.send_to(b"\0", SocketAddr::from(([127, 0, 0, 1], port))));
                }
            }
        });
    };
    let bare = BareRouter::new(&fixture.lab);
    fixture.ask().assert_ok("limits");
    fill(81, 1);
    let words = ["nf_conntrack_max", &netns.name(), "raise"];
    let said = fixture.ask();
    said.assert_found("limits", "warn", &words);
    let beside = bare.netns().name();
    let of_it = |finding: &&Value| finding["place"] == beside.as_str();
    let found: Vec<_> = said.of("limits").filter(of_it).collect();
    assert_eq!(found.len(), 2, "{said:?}");
    assert!(
        found.iter().all(|finding| finding["result"] == "ok"),
        "{said:?}"
    );
    fill(96, 2);
    fixture.ask().assert_found("limits", "wrong", &words);
    netns.tool("conntrack", ["-F"], "");
    fixture.ask().assert_ok("limits");
}

/// Really near, too: each TFTP request announces a transfer.
#[test]
fn expectations_that_are_nearly_too_many_are_warned_of() {
    const PORT: u16 = 6969;
    const REQUEST: &[u8] = b"\0\x01file\0octet\0";
    let lab = Lab::new();
    let control = [(Protocol::Udp, PORT)];
    let site = Site::new(&lab, &Plan::new(Crossing::Routed4, &control));
    let netns = site.router.netns();
    let _agent = Agent::start(&lab, &rules_file(&[(&site.router, &[Rule::tftp(PORT)])]));
    let most = "/proc/sys/net/netfilter/nf_conntrack_expect_max";
    let most: u16 = netns
        .tool("cat", [most], "")
        .trim()
        .parse()
        .expect("a limit that ports do for");
    let request = |hundredths: u16, from: u16| {
        let until = from + most / 100 * hundredths;
        site.client.run(|| {
            for port in from..until {
                let socket = UdpSocket::bind(site.client_address(port)).expect("a port");
                let sent = socket.send_to(REQUEST, site.published_address(PORT));
                assert_eq!(sent.ok(), Some(REQUEST.len()));
            }
        });
    };
    ask(&lab).assert_ok("limits");
    request(83, 10_000);
    let name = netns.name();
    let words = ["nf_conntrack_expect_max", name.as_str(), "raise"];
    ask(&lab).assert_found("limits", "warn", &words);
    request(15, 20_000);
    ask(&lab).assert_found("limits", "wrong", &words);
    netns.tool("conntrack", ["-F"], "");
    ask(&lab).assert_ok("limits");
}
