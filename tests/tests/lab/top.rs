//! `top`, in a real terminal, with traffic running, against what was sent.

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use conntrack_tests::agent::{Agent, binary, listening};
use conntrack_tests::helpers::{Protocol, Rule, rules_file};
use conntrack_tests::lab::Lab;
use conntrack_tests::site::{Crossing, Plan, Site};
use conntrack_tests::tmux::Tmux;
use serde_json::Value;

const FTP: u16 = 2121;
const TFTP: u16 = 6969;
const CHAT: u16 = 6667;
const SMALL: (u16, u16) = (80, 24);
const LARGE: (u16, u16) = (200, 50);

/// Two routers, one with traffic.
struct Fixture {
    agent: Option<Agent>,
    rules: String,
    busy: Site,
    quiet: Site,
    lab: Lab,
}

impl Fixture {
    fn new(crossing: Crossing) -> Self {
        let lab = Lab::new();
        let ports = [
            (Protocol::Tcp, FTP),
            (Protocol::Udp, TFTP),
            (Protocol::Tcp, CHAT),
        ];
        let [busy, quiet] = [(); 2].map(|()| Site::new(&lab, &Plan::new(crossing, &ports)));
        let rules = rules_file(&[
            (
                &busy.router,
                &[Rule::ftp(FTP), Rule::tftp(TFTP), Rule::irc(CHAT)],
            ),
            (&quiet.router, &[Rule::ftp(FTP)]),
        ]);
        let mut fixture = Self {
            agent: None,
            rules,
            busy,
            quiet,
            lab,
        };
        fixture.start();
        fixture
    }

    fn start(&mut self) {
        self.agent = Some(Agent::start(&self.lab, &self.rules));
        let _socket = listening(&self.lab);
    }

    fn socket(&self) -> PathBuf {
        self.lab.dir().socket()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.arg("top").args(arguments);
        command.arg("--socket").arg(self.socket());
        command
    }

    fn top(&self, size: (u16, u16), variables: &[(&str, &str)]) -> Tmux {
        Tmux::start(
            &self.lab,
            size,
            variables,
            &self.command(&["--interval", "1"]),
        )
    }

    fn id(&self) -> String {
        self.busy.router.id().to_string()
    }

    /// Connections that stay open while they are held.
    fn connect(&self, port: u16, count: usize) -> Vec<(TcpListener, TcpStream)> {
        let to = self.busy.server_address(port);
        let listener = self.busy.server.run(|| TcpListener::bind(to));
        let listener = listener.expect("a port of the server's");
        let connect = |_| {
            let stream = self.busy.client.run(|| TcpStream::connect(to));
            let listener = listener.try_clone().expect("the listener");
            (listener, stream.expect("a connection"))
        };
        (0..count).map(connect).collect()
    }

    /// Sends packets to a ruled port until it is told to stop; their number.
    fn send(&self, stop: &AtomicBool, sent: &AtomicU64) {
        const EACH: Duration = Duration::from_millis(5);
        let (from, to): (SocketAddr, _) =
            (self.busy.client_address(0), self.busy.server_address(TFTP));
        self.busy.client.run(|| {
            let socket = UdpSocket::bind(from).expect("a port");
            while !stop.load(Ordering::Relaxed) {
                // One before it may have been answered by ICMP.
                if socket.send_to(b"\0", to).is_ok() {
                    sent.fetch_add(1, Ordering::Relaxed);
                }
                thread::sleep(EACH);
            }
        });
    }
}

/// Ends the sending, also where a test fails in between: the sender is waited for.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The columns of the first line that begins so.
fn columns(screen: &[String], beginning: &str) -> Option<Vec<String>> {
    let line = screen.iter().find(|line| line.starts_with(beginning))?;
    Some(line.split_whitespace().map(str::to_owned).collect())
}

/// Nothing is drawn over the edge: the terminal would show it on the next line.
fn assert_fits(screen: &[String], (width, height): (u16, u16)) {
    assert!(screen.len() <= usize::from(height), "{screen:?}");
    for line in screen {
        assert!(line.chars().count() <= usize::from(width), "{line:?}");
    }
}

/// Types a filter that leaves one of two routers.
fn filter(terminal: &Tmux, left: &str, gone: &str) {
    terminal.keys(&["/"]);
    terminal.keys(&[&left[..8]]);
    terminal.keys(&["Enter"]);
    terminal.wait_for("the filtered list", |screen| {
        let has = |id: &str| screen.iter().any(|line| line.starts_with(id));
        (has(left) && !has(gone)).then_some(())
    });
}

fn check(size: (u16, u16)) {
    let fixture = Fixture::new(Crossing::Routed4);
    let terminal = fixture.top(size, &[("LC_ALL", "C.UTF-8")]);
    let id = fixture.id();
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let begun = Instant::now();
        let _stop = Stop(&stop);
        scope.spawn(|| fixture.send(&stop, &sent));
        // As many as were sent, by the time that it took: the whole of it against
        // one second of it, on a machine that does other work.
        let rate = terminal.wait_for("traffic", |screen| {
            let columns = columns(screen, &id)?;
            assert_eq!(columns[1..3], ["ACTIVE", "3"]);
            let rate: f64 = columns[3].parse().ok()?;
            // From the second full second on.
            (rate > 10.0 && begun.elapsed() > Duration::from_secs(3)).then_some(rate)
        });
        #[expect(clippy::cast_precision_loss, reason = "some hundreds")]
        let mean = sent.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
        assert!((mean / 3.0..mean * 3.0).contains(&rate), "{rate} of {mean}");
        let screen = terminal.screen();
        assert_fits(&screen, size);
        let quiet = fixture.quiet.router.id().to_string();
        let [first, second] = [&id, &quiet].map(|id| {
            let place = screen.iter().position(|line| line.starts_with(id));
            place.expect("both routers")
        });
        assert!(first < second, "most traffic first: {screen:?}");
        assert!(screen[first].contains('█'), "{:?}", screen[first]);
    });

    // Into the router: exact numbers, and the connections by their ends.
    let held = fixture.connect(FTP, 3);
    // Without traffic either may be the first of the list by now.
    filter(&terminal, &id, &fixture.quiet.router.id().to_string());
    terminal.keys(&["Enter"]);
    terminal.wait_for_line(&["qrouter-", &id, "tracked of", "0 expected"]);
    let packets = sent.load(Ordering::Relaxed).to_string();
    terminal.wait_for("all packets", |screen| {
        let columns = columns(screen, &format!("udp/{TFTP}"))?;
        (columns[1..3] == ["tftp", "active"] && columns[3] == packets).then_some(())
    });
    terminal.wait_for("all connections with their helper", |screen| {
        let columns = columns(screen, &format!("tcp/{FTP}"))?;
        // PACKETS, PKT/S, BYTE/S, HELPED, LACK
        (columns[6..8] == ["3", "0"]).then_some(())
    });
    for (_, stream) in &held {
        let from = stream.local_addr().expect("its address").to_string();
        terminal.wait_for_line(&[
            "ftp tcp",
            &from,
            &format!("-> {}", fixture.busy.server_address(FTP)),
        ]);
    }
    assert_fits(&terminal.screen(), size);
    terminal.keys(&["Escape"]);
    terminal.wait_for_line(&["ROUTER", "STATUS", "PKT/S"]);

    // The filter is as it was, and is dropped, and another leaves the other.
    let quiet = fixture.quiet.router.id().to_string();
    terminal.keys(&["Escape"]);
    terminal.wait_for_line(&[&quiet]);
    filter(&terminal, &quiet, &id);
    terminal.keys(&["Escape"]);
    terminal.wait_for_line(&[&id]);
    terminal.keys(&["s"]);
    terminal.wait_for_line(&["by lacking"]);
    terminal.keys(&["q"]);
    assert_eq!(terminal.exit_code(), 0);
    let screen = terminal.screen();
    let is_there = screen.iter().any(|line| line.starts_with("ROUTER"));
    assert!(!is_there, "the screen is not given back: {screen:?}");
}

#[test]
fn on_a_small_screen() {
    check(SMALL);
}

#[test]
fn on_a_large_screen() {
    check(LARGE);
}

#[test]
fn another_size_is_taken_at_once_and_ascii_is_enough() {
    let fixture = Fixture::new(Crossing::Routed4);
    let terminal = fixture.top(SMALL, &[("LC_ALL", "C")]);
    let keys = |height: u16| {
        let place = usize::from(height) - 1;
        terminal.wait_for("the last line", |screen| {
            let line = screen.get(place)?;
            line.starts_with("q quit").then_some(())
        });
    };
    keys(24);
    terminal.resize(LARGE);
    keys(50);
    terminal.resize((60, 12));
    keys(12);
    terminal.resize((20, 5));
    terminal.wait_for("something", |screen| {
        screen
            .iter()
            .any(|line| line.starts_with("conntrack-agent"))
            .then_some(())
    });
    terminal.resize(SMALL);
    keys(24);
    let screen = terminal.screen();
    assert!(screen.iter().all(|line| line.is_ascii()), "{screen:?}");
}

#[test]
fn what_is_wrong_is_red_but_not_without_colour() {
    let fixture = Fixture::new(Crossing::Routed6);
    let held = fixture.connect(CHAT, 1);
    for (variables, has_colour) in [
        (&[("LC_ALL", "C.UTF-8")][..], true),
        (&[("LC_ALL", "C.UTF-8"), ("NO_COLOR", "1")], false),
    ] {
        let terminal = fixture.top(SMALL, variables);
        terminal.wait_for_line(&["4 rules: 3 active, 1 degraded"]);
        terminal.wait_for_line(&["NO HELPER", &fixture.id()[..8], "irc tcp/6667"]);
        let escapes = terminal.with_escapes();
        // The foreground in colour 1 of 256, red (xterm's form of SGR 38).
        assert_eq!(escapes.contains("38;5;1m"), has_colour, "{escapes:?}");
    }
    drop(held);
}

#[test]
fn a_daemon_that_goes_away_and_comes_back_is_waited_for() {
    let mut fixture = Fixture::new(Crossing::Routed4);
    let terminal = fixture.top(SMALL, &[("LC_ALL", "C.UTF-8")]);
    let id = fixture.id();
    terminal.wait_for_line(&[&id, "ACTIVE"]);
    drop(fixture.agent.take().map(Agent::stop));
    terminal.wait_for_line(&["waiting for the daemon: ", "cannot be reached"]);
    terminal.wait_for_line(&[&id]);
    fixture.start();
    terminal.wait_for("all well again", |screen| {
        let is_away = screen
            .iter()
            .any(|line| line.contains("waiting for the daemon"));
        (!is_away).then_some(())
    });
    drop(fixture.connect(FTP, 1));
    terminal.keys(&["/"]);
    terminal.keys(&[&id[..8]]);
    terminal.keys(&["Enter", "Enter"]);
    terminal.wait_for("the connection", |screen| {
        let columns = columns(screen, &format!("tcp/{FTP}"))?;
        (columns[6] == "1").then_some(())
    });
}

#[test]
fn one_frame_is_printed_for_scripts() {
    let fixture = Fixture::new(Crossing::Routed4);
    let output = fixture.command(&["--once"]).output().expect("top");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    let lines: Vec<_> = text.lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 24, "{text}");
    assert_fits(&lines, SMALL);
    let columns = columns(&lines, &fixture.id()).expect("the router");
    assert_eq!(columns[1..6], ["ACTIVE", "3", "0", "0", "0"]);
    assert!(!text.contains('\u{1b}'), "{text:?}");

    let id = fixture.id();
    let output = fixture.command(&["--once", "--router", &id]).output();
    let text = String::from_utf8(output.expect("top").stdout).expect("text");
    assert!(text.contains("udp/6969") && text.contains("tftp"), "{text}");

    // As data.
    let ask = |arguments: &[&str]| {
        let output = fixture.command(arguments).args(["-o", "json"]).output();
        output.expect("top")
    };
    let data = |arguments: &[&str]| -> Value {
        serde_json::from_slice(&ask(arguments).stdout).expect("JSON")
    };
    let routers = data(&["--once"]);
    let routers = routers.as_array().expect("routers");
    assert_eq!(routers.len(), 2);
    let busy = routers.iter().find(|router| router["id"] == *id);
    assert_eq!(busy.expect("the router")["packets"], 0);
    let router = data(&["--once", "--router", &id]);
    let rules = router["conntrack_helpers"].as_array();
    assert_eq!(rules.map(Vec::len), Some(3), "{router}");
    let live = ask(&[]);
    assert_eq!(live.status.code(), Some(2), "{live:?}");

    let mut command = fixture.command(&[]);
    let output = command.stdin(Stdio::null()).output().expect("top");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(said.contains("top --once"), "{said}");
    let output = fixture.command(&["--interval", "0"]).output().expect("top");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}
