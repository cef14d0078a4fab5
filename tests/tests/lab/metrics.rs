//! `GET /metrics`: what it says against what was sent and done, and its form.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use conntrack_tests::agent::{Agent, Config, listening};
use conntrack_tests::curl::Caller;
use conntrack_tests::helpers::{Protocol, Rule, rules_file};
use conntrack_tests::lab::Lab;
use conntrack_tests::netns::Netns;
use conntrack_tests::served::Served;
use conntrack_tests::site::{Crossing, Plan, Site};
use conntrack_tests::wait;

const FIRST: u16 = 6969;
const SECOND: u16 = 6970;
const UNRULED: u16 = 6971;
const FTP: &str = r#"{"conntrack_helper":{"protocol":"tcp","port":21,"helper":"ftp"}}"#;
/// An IPv4 header, a UDP header, a byte.
const SIZE: u64 = 20 + 8 + 1;

pub(crate) fn scrape(socket: &Path) -> String {
    let (status, text) = Caller::local(socket).text("GET", "/metrics", "");
    assert_eq!(status, 200, "{text}");
    text
}

/// The value of the one sample with this name and these labels; none if there is
/// none.
pub(crate) fn sample(text: &str, name: &str, labels: &[&str]) -> Option<u64> {
    let is_it = |line: &&str| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|label| line.contains(label))
    };
    let mut lines = text.lines().filter(is_it);
    let line = lines.next()?;
    assert_eq!(lines.next(), None, "two samples of {name} {labels:?}");
    let (_, value) = line.rsplit_once(' ').expect("a value");
    Some(value.parse().expect("a number"))
}

fn send(from: &Netns, source: SocketAddr, to: SocketAddr, count: u64) {
    from.run(|| {
        let socket = UdpSocket::bind(source).expect("a port");
        for _ in 0..count {
            // An earlier one may have been answered by ICMP.
            drop(socket.send_to(b"\0", to));
        }
    });
}

#[test]
fn every_rule_has_the_packets_that_were_sent_over_a_restart_too() {
    let lab = Lab::new();
    let ports = [FIRST, SECOND, UNRULED].map(|port| (Protocol::Udp, port));
    let site = Site::new(&lab, &Plan::new(Crossing::Routed4, &ports));
    let rules = rules_file(&[(
        &site.router,
        &[Rule::tftp(FIRST), Rule::tftp(SECOND), Rule::ftp(21)],
    )]);
    let agent = Agent::start(&lab, &rules);
    let socket = listening(&lab);
    let expect = |port: u16, protocol: &str, packets: u64| {
        let text = scrape(&socket);
        let port = format!("port=\"{port}\"");
        let protocol = format!("protocol=\"{protocol}\"");
        let router = format!("router=\"{}\"", site.router.id());
        let labels = [port.as_str(), &protocol, &router];
        let of = |name| sample(&text, name, &labels);
        let name = "conntrack_agent_rule_packets_total";
        assert_eq!(of(name), Some(packets), "{labels:?}: {text}");
        let name = "conntrack_agent_rule_bytes_total";
        assert_eq!(of(name), Some(packets * SIZE), "{labels:?}: {text}");
    };
    let client = site.client_address(0);
    let to = |port| site.server_address(port);
    expect(FIRST, "udp", 0);

    send(&site.client, client, to(FIRST), 50);
    send(&site.client, client, to(SECOND), 7);
    send(&site.client, client, to(UNRULED), 9);
    expect(FIRST, "udp", 50);
    expect(SECOND, "udp", 7);
    expect(21, "tcp", 0);
    let unruled = format!("port=\"{UNRULED}\"");
    let text = scrape(&socket);
    let name = "conntrack_agent_rule_packets_total";
    assert_eq!(sample(&text, name, &[&unruled]), None, "{text}");

    // While it is away packets are counted all the same.
    drop(agent.stop());
    send(&site.client, client, to(FIRST), 5);
    let _agent = Agent::start(&lab, &rules);
    assert_eq!(listening(&lab), socket);
    send(&site.client, client, to(SECOND), 3);
    expect(FIRST, "udp", 55);
    expect(SECOND, "udp", 10);
}

#[test]
fn work_is_counted_by_what_it_was() {
    let fixture = Served::new();
    let socket = fixture.socket();
    let now = |name: &str, labels: &[&str]| {
        let text = scrape(&socket);
        sample(&text, name, labels).unwrap_or(0)
    };
    let rules = |status| now("conntrack_agent_rules", &[status]);
    let commits = || now("conntrack_agent_store_commits_total", &["result=\"done\""]);
    let binds = || now("conntrack_agent_effects_total", &["kind=\"bind\""]);
    let repairs = || now("conntrack_agent_repairs_total", &["kind=\"bind\""]);
    let created = |outcome| {
        let labels = ["operation=\"create\"", outcome];
        now("conntrack_agent_requests_total", &labels)
    };
    let (done, refused) = ("outcome=\"done\"", "outcome=\"refused\"");
    assert_eq!((rules("status=\"active\""), commits(), binds()), (0, 0, 0));

    assert_eq!(fixture.ask("POST", &fixture.rules(), FTP).status, 201);
    assert_eq!(
        fixture.ask("POST", &fixture.rules(), FTP).status,
        400,
        "there is one"
    );
    assert_eq!((rules("status=\"active\""), commits(), binds()), (1, 1, 1));
    assert_eq!((created(done), created(refused)), (1, 1));
    assert_eq!(repairs(), 0, "it was asked for");
    let took = ["operation=\"create\""];
    assert_eq!(
        now("conntrack_agent_request_duration_seconds_count", &took),
        2
    );

    fixture.router.netns().nft("flush ruleset");
    let repaired = || (repairs() == 1).then_some(());
    wait::until(wait::patience(), repaired).expect("a repair");
    assert_eq!(binds(), 2);
}

/// Prometheus's own checker of form and names, by Debian.
fn promtool(text: &str) -> Output {
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool");
    let mut stdin = child.stdin.take().expect("its standard input");
    stdin.write_all(text.as_bytes()).expect("it reads");
    drop(stdin);
    child.wait_with_output().expect("promtool")
}

#[test]
fn promtool_accepts_the_metrics_and_openmetrics_is_there_for_who_asks() {
    let fixture = Served::new();
    assert_eq!(fixture.ask("POST", &fixture.rules(), FTP).status, 201);
    let text = scrape(&fixture.socket());
    let checked = promtool(&text);
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(
        checked.status.success() && said.is_empty(),
        "{said}\n{text}"
    );
    assert!(text.contains("# TYPE conntrack_agent_rule_packets_total counter"));

    // So would it say of a fault.
    let damaged = text.replace("# HELP conntrack_agent_rules ", "# nothing ");
    assert_ne!(damaged, text);
    assert!(!promtool(&damaged).status.success());

    let accept = "Accept: application/openmetrics-text; version=1.0.0";
    let caller = Caller::local(&fixture.socket()).with(&["--header", accept]);
    let (status, open) = caller.text("GET", "/metrics", "");
    assert_eq!(status, 200);
    assert!(open.ends_with("# EOF\n"), "{open}");
    assert!(open.contains("# TYPE conntrack_agent_rule_packets counter"));
    assert!(!text.contains("# EOF"));
}

#[test]
fn metrics_have_an_address_of_their_own_that_shows_nothing_else() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = free.local_addr().expect("its address");
    drop(free);
    let listen = format!("{{ listen = \"{address}\" }}");
    let fixture = Served::with(|config: Config| config.with("metrics", listen));
    let caller = Caller::tcp(address);
    let (status, text) = caller.text("GET", "/metrics", "");
    assert_eq!(status, 200, "{text}");
    assert!(promtool(&text).status.success());
    for (method, path, status) in [
        ("GET", "/v1/status", 404),
        ("GET", "/v2.0/routers", 404),
        ("POST", "/metrics", 405),
        ("DELETE", &fixture.rules(), 404),
    ] {
        assert_eq!(
            caller.ask(method, path, "").status,
            status,
            "{method} {path}"
        );
    }
}

/// What the dashboard shows is there, under the names that it uses.
#[test]
fn the_dashboard_asks_for_metrics_that_there_are() {
    let fixture = Served::new();
    assert_eq!(fixture.ask("POST", &fixture.rules(), FTP).status, 201);
    let text = scrape(&fixture.socket());
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../contrib/grafana/conntrack-agent.json"
    );
    let dashboard = std::fs::read_to_string(path).expect("the dashboard");
    let names = dashboard.split("conntrack_agent_").skip(1).map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_lowercase() && c != '_');
        format!("conntrack_agent_{}", &rest[..end.unwrap_or(rest.len())])
    });
    let mut count = 0;
    for name in names {
        let name = name.trim_end_matches("_bucket");
        let declared = format!("# TYPE {name} ");
        assert!(text.contains(&declared), "{name} is nowhere in\n{text}");
        count += 1;
    }
    assert!(count > 10, "{count} names");
    // And it groups by labels that they have.
    let groups = dashboard
        .split("by (")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'));
    let labels = groups.flat_map(|(labels, _)| labels.split(", "));
    let mut count = 0;
    for label in labels {
        // A connection is needed for that one; it is in followed.rs.
        if label != "has_helper" {
            assert!(
                text.contains(&format!("{label}=\"")),
                "{label} is nowhere in\n{text}"
            );
        }
        count += 1;
    }
    assert!(count > 5, "{count} labels");
}
