//! Whether connections have their helper, as events, metrics and a rule's status
//! say it, against what conntrack has.

use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;

use conntrack_tests::agent::{Agent, binary, listening};
use conntrack_tests::clients::ftp::{Mode, fetch};
use conntrack_tests::conntrack::assert_helpers;
use conntrack_tests::curl::{Answer, curl};
use conntrack_tests::helpers::{Protocol, Rule, rules_file};
use conntrack_tests::lab::Lab;
use conntrack_tests::process::{Process, Stream};
use conntrack_tests::router_lab::RouterLab;
use conntrack_tests::served::{Served, rules_of};
use conntrack_tests::servers::ftp::FtpServer;
use conntrack_tests::site::{Crossing, Plan, Site};
use conntrack_tests::wait;
use serde_json::Value;

use crate::metrics::{sample, scrape};

const PORT: u16 = 2121;
const CHAT: u16 = 6667;

struct Fixture {
    agent: Option<Agent>,
    site: Site,
    router_lab: RouterLab,
}

impl Fixture {
    fn new(crossing: Crossing) -> Self {
        let lab = Lab::new();
        let control = [PORT, CHAT].map(|port| (Protocol::Tcp, port));
        let site = Site::new(&lab, &Plan::new(crossing, &control));
        let router_lab = site.router_lab(&lab, &[Rule::ftp(PORT), Rule::irc(CHAT)]);
        Self {
            agent: Some(router_lab.start()),
            site,
            router_lab,
        }
    }

    fn socket(&self) -> PathBuf {
        listening(&self.router_lab.lab)
    }

    fn ask(&self, path: &str) -> Answer {
        curl(&self.socket(), "GET", path, "")
    }

    /// Connects, and says what the events say of it.
    fn connect(&self, port: u16) -> Value {
        let before = self.ask("/v1/events?after=0");
        let after = before.body["last"].as_u64().expect("a number");
        let to = self.site.server_address(port);
        let listener = self.site.server.run(|| TcpListener::bind(to));
        let _listener = listener.expect("a port of the server's");
        let to = self.site.published_address(port);
        let stream = self.site.client.run(|| TcpStream::connect(to));
        let stream = stream.expect("a connection");
        let from = stream.local_addr().expect("its address").to_string();
        let told = wait::until(wait::patience(), || {
            let heard = self.ask(&format!("/v1/events?after={after}"));
            let all = heard.body["events"].as_array().expect("events").clone();
            let is_it = |event: &Value| event["kind"] == "connection" && event["source"] == *from;
            all.into_iter().find(is_it)
        });
        told.expect("an event of the connection")
    }

    fn rule(&self, port: u16) -> Value {
        let rules = rules_of(self.router_lab.id);
        let rules = self.ask(&format!("{rules}?port={port}"));
        rules.body["conntrack_helpers"][0].clone()
    }

    /// How many connections of the rule have their helper, have not, and are
    /// unknown.
    fn counted(&self, port: u16) -> [Option<u64>; 3] {
        let text = scrape(&self.socket());
        let port = format!("port=\"{port}\"");
        ["yes", "no", "unknown"].map(|has| {
            let has = format!("has_helper=\"{has}\"");
            let name = "conntrack_agent_rule_connections_total";
            sample(&text, name, &[&port, &has])
        })
    }
}

#[test]
fn a_session_that_has_its_helper_is_said_to_have_it() {
    let fixture = Fixture::new(Crossing::Snat4);
    let site = &fixture.site;
    let server = FtpServer::start(&site.server, site.server_address(PORT));
    assert_eq!(fixture.counted(PORT), [None; 3]);
    let came = fetch(&site.client, site.published_address(PORT), Mode::Active);
    assert!(came.expect("the transfer") == server.bytes);
    assert_helpers(site.router.netns(), &[(PORT, "ftp")]);
    let told = wait::until(wait::patience(), || {
        let heard = fixture.ask("/v1/events?after=0&wait=5").body["events"].clone();
        let all = heard.as_array().expect("events").clone();
        all.into_iter().find(|event| event["kind"] == "connection")
    });
    let told = told.expect("an event of the session");
    assert_eq!(told["router_id"], site.router.id().to_string());
    assert_eq!(told["has_helper"], "yes");
    assert_eq!(told["helper"], "ftp");
    assert_eq!(told["port"], PORT);
    assert_eq!(told["reason"], Value::Null);
    // As the client sees it.
    let to = site.published_address(PORT).to_string();
    assert_eq!(told["destination"], to);
    assert_eq!(fixture.counted(PORT), [Some(1), Some(0), Some(0)]);
    assert_eq!(fixture.rule(PORT)["status"], "active");
}

#[test]
fn a_helper_for_ipv4_alone_is_missed_on_ipv6_and_there_alone() {
    let fixture = Fixture::new(Crossing::Routed6);
    assert_eq!(fixture.rule(CHAT)["status"], "active");
    let told = fixture.connect(CHAT);
    assert_eq!(told["has_helper"], "no", "{told}");
    let reason = told["reason"].as_str().expect("a reason");
    assert!(reason.contains("irc is for IPv4 alone"), "{reason}");
    assert_eq!(fixture.counted(CHAT), [Some(0), Some(1), Some(0)]);
    let rule = fixture.rule(CHAT);
    assert_eq!(rule["status"], "degraded");
    let why = rule["status_reason"].as_str().expect("a reason");
    assert!(why.contains("irc is for IPv4 alone"), "{why}");
    let text = scrape(&fixture.socket());
    let degraded = sample(&text, "conntrack_agent_rules", &["status=\"degraded\""]);
    assert_eq!(degraded, Some(1));

    // The twin: a helper for both has it in the same router.
    let told = fixture.connect(PORT);
    assert_eq!(told["has_helper"], "yes", "{told}");
    assert_eq!(fixture.rule(PORT)["status"], "active");

    // And so has this one on IPv4.
    let fixture = Fixture::new(Crossing::Routed4);
    let told = fixture.connect(CHAT);
    assert_eq!(told["has_helper"], "yes", "{told}");
    assert_eq!(fixture.rule(CHAT)["status"], "active");
}

#[test]
fn another_tools_chain_that_comes_first_is_named_and_forgotten_when_it_is_gone() {
    let fixture = Fixture::new(Crossing::Routed4);
    let netns = fixture.site.router.netns();
    netns.nft(&format!(
        "table ip another {{
            ct helper chat {{ type \"irc\" protocol tcp; }}
            chain first {{
                type filter hook prerouting priority -170;
                tcp dport {PORT} ct helper set \"chat\"
            }}
        }}"
    ));
    let told = fixture.connect(PORT);
    assert_eq!(told["has_helper"], "no", "{told}");
    let reason = told["reason"].as_str().expect("a reason");
    assert!(reason.contains("has helper irc"), "{reason}");
    assert_eq!(fixture.counted(PORT), [Some(0), Some(1), Some(0)]);
    assert_eq!(fixture.rule(PORT)["status"], "degraded");

    netns.nft("delete table ip another");
    let told = fixture.connect(PORT);
    assert_eq!(told["has_helper"], "yes", "{told}");
    assert_eq!(fixture.counted(PORT), [Some(1), Some(1), Some(0)]);
    let rule = fixture.rule(PORT);
    assert_eq!(
        (&rule["status"], &rule["status_reason"]),
        (&"active".into(), &Value::Null)
    );
}

#[test]
fn what_conntrack_does_not_have_is_unknown() {
    let fixture = Fixture::new(Crossing::Routed4);
    let netns = fixture.site.router.netns();
    netns.nft(&format!(
        "table ip another {{
            chain raw {{
                type filter hook prerouting priority -300;
                tcp dport {PORT} notrack
                tcp sport {PORT} notrack
            }}
        }}
        insert rule inet lab forward tcp dport {PORT} accept
        insert rule inet lab forward tcp sport {PORT} accept"
    ));
    let told = fixture.connect(PORT);
    assert_eq!(told["has_helper"], "unknown", "{told}");
    let reason = told["reason"].as_str().expect("a reason");
    assert!(reason.contains("not tracked"), "{reason}");
    assert_eq!(fixture.counted(PORT), [Some(0), Some(0), Some(1)]);
    assert_eq!(fixture.rule(PORT)["status"], "active");
}

#[test]
fn fullness_is_that_of_the_namespace() {
    let fixture = Fixture::new(Crossing::Routed4);
    let namespace = format!("namespace=\"qrouter-{}\"", fixture.site.router.id());
    let of = |name: &str, labels: &[&str]| sample(&scrape(&fixture.socket()), name, labels);
    let tracked = || of("conntrack_agent_tracked_connections", &[&namespace]);
    let expected = || of("conntrack_agent_expectations", &[&namespace]);
    let in_namespace = || {
        let table = fixture.site.router.netns().tool("conntrack", ["-C"], "");
        table.trim().parse().ok()
    };
    assert_eq!(tracked(), in_namespace());
    assert_eq!(expected(), Some(0));
    let limit = of("conntrack_agent_tracked_connections_limit", &[]);
    let netns = fixture.site.router.netns();
    let most = netns.tool("cat", ["/proc/sys/net/netfilter/nf_conntrack_max"], "");
    assert_eq!(limit, most.trim().parse().ok());
    assert!(of("conntrack_agent_expectations_limit", &[]).is_some_and(|most| most > 0));
    drop(fixture.connect(PORT));
    assert_eq!(tracked(), in_namespace());
    assert!(tracked() > Some(0));
}

/// All events that are kept. An answer has 500 of them.
fn all_events(socket: &Path) -> Vec<Value> {
    let mut all = Vec::new();
    let mut after = 0;
    loop {
        let path = format!("/v1/events?after={after}");
        let answer = curl(socket, "GET", &path, "").body;
        let events = answer["events"].as_array().expect("events");
        if events.is_empty() {
            return all;
        }
        all.extend_from_slice(events);
        after = answer["last"].as_u64().expect("a number");
    }
}

/// More than the programs tell of, or the agent has room for; of those that came to
/// the router, as a burst can be too much for the network as well.
#[test]
fn of_a_burst_each_is_told_of_or_counted() {
    const BURST: usize = 2_000;
    const TFTP: u16 = 6969;
    let lab = Lab::new();
    let control = [(Protocol::Udp, TFTP)];
    let site = Site::new(&lab, &Plan::new(Crossing::Routed4, &control));
    let _agent = Agent::start(&lab, &rules_file(&[(&site.router, &[Rule::tftp(TFTP)])]));
    // Each from a port of its own, and so a connection. Nobody need listen yet.
    let mut ports = 10_000..60_000;
    let mut burst = || {
        site.client.run(|| {
            for port in ports.by_ref().take(BURST) {
                let from = UdpSocket::bind(site.client_address(port)).expect("a port");
                let sent = from.send_to(b"\0", site.published_address(TFTP));
                assert_eq!(sent.ok(), Some(1));
            }
        });
    };
    burst();
    let socket = listening(&lab);
    // How many came, were told of, and were not.
    let accounts = || {
        let untold: u64 = all_events(&socket)
            .iter()
            .filter(|event| event["kind"] == "untold")
            .map(|event| event["count"].as_u64().expect("a count"))
            .sum();
        let text = scrape(&socket);
        let told = ["yes", "no", "unknown"].map(|has| {
            let has = format!("has_helper=\"{has}\"");
            let name = "conntrack_agent_rule_connections_total";
            sample(&text, name, &[&has]).unwrap_or(0)
        });
        let came = sample(&text, "conntrack_agent_rule_packets_total", &[]);
        (came.unwrap_or(0), told.iter().sum::<u64>(), untold)
    };
    let settled = || {
        let whole = wait::until(wait::patience(), || {
            let (came, told, untold) = accounts();
            (came == told + untold).then_some((told, untold))
        });
        whole.unwrap_or_else(|| panic!("not all: {:?}", accounts()))
    };
    let (told, untold) = wait::until(wait::patience(), || {
        let (told, untold) = settled();
        if untold == 0 {
            burst();
        }
        (untold > 0).then_some((told, untold))
    })
    .expect("too many at once some time");
    assert!(told > 0, "{untold}");
}

/// `events` as somebody leaves it running while the agent is restarted.
#[test]
fn the_command_follows_over_a_restart() {
    let mut fixture = Fixture::new(Crossing::Routed4);
    let mut command = Command::new(binary());
    let socket = fixture.socket();
    command.args(["events", "--socket"]).arg(&socket);
    let events = Process::start(None, command);
    let lines = || -> Vec<String> {
        let text = events.text(Stream::Out);
        text.lines().map(str::to_owned).collect()
    };
    let has = |words: &[&str]| {
        wait::until(wait::patience(), || {
            let is_it = |line: &String| words.iter().all(|word| line.contains(word));
            lines().into_iter().find(is_it)
        })
        .unwrap_or_else(|| panic!("{words:?}: {:?} {:?}", lines(), events.text(Stream::Err)))
    };
    // What comes before it listens is not told.
    wait::until(wait::patience(), || {
        drop(fixture.connect(CHAT));
        (!lines().is_empty()).then_some(())
    })
    .expect("a first line");
    drop(fixture.connect(PORT));
    let port = format!("ftp tcp/{PORT}");
    has(&["connection", &port, "has its helper"]);
    let ended = fixture.agent.take().map(Agent::stop);
    assert_eq!(ended.and_then(|exit| exit.code), Some(0));
    wait::until(wait::patience(), || {
        let said = events.text(Stream::Err);
        said.contains("waiting for it").then_some(())
    })
    .expect("that the daemon is away");
    let count = lines().len();
    fixture.agent = Some(fixture.router_lab.start());
    drop(fixture.connect(PORT));
    wait::until(wait::patience(), || {
        let now = lines();
        let mut new = now.iter().skip(count);
        new.any(|line| line.contains(&port)).then_some(())
    })
    .expect("a line of the new run");

    let mut once = Command::new(binary());
    once.args(["events", "--once", "-o", "json", "--socket"])
        .arg(&socket);
    let output = once.output().expect("the command");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    let kinds: Vec<_> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["kind"].clone())
        .collect();
    assert!(kinds.contains(&"connection".into()), "{text}");
    // Nobody can ask that of a daemon that isn't there.
    drop(fixture.agent.take().map(Agent::stop));
    let output = once.output().expect("the command");
    assert_eq!(output.status.code(), Some(69), "{output:?}");
}

/// One who waits is no reason for the agent not to end.
#[test]
fn an_agent_that_ends_answers_those_who_wait() {
    let fixture = Served::new();
    let socket = fixture.socket();
    let usage = fixture.usage();
    // Connections that have ended are let go of a moment later.
    let before = wait::until(wait::patience(), || usage.steady_descriptors(1));
    let before = before.expect("an agent at rest");
    let mut command = Command::new("curl");
    command
        .args(["--silent", "--unix-socket"])
        .arg(&socket)
        .arg("http://localhost/v1/events?after=0&wait=20");
    let mut waiting = Process::start(None, command);
    let waits = || usage.steady_descriptors(1).filter(|now| *now == before + 1);
    wait::until(wait::patience(), waits).expect("one who waits");
    let Served { agent, .. } = fixture;
    assert_eq!(agent.stop().code, Some(0));
    let ended = waiting.wait(wait::patience()).expect("an answer");
    assert!(ended.success(), "{ended:?}");
}
