//! Many clients at once, and bad ones among them: who behaves is answered.
#![expect(
    clippy::expect_used,
    reason = "tests panic, where and with what they found"
)]

use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use conntrack_tests::served::{Served, rules_of};
use conntrack_tests::wait;
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use uuid::Uuid;

/// Clients that behave.
const GOOD: usize = 1000;
/// One of so many of them also makes changes.
const CHANGER: usize = 5;
/// How often each one asks the same again.
const ROUNDS: usize = 3;
/// Clients that send a byte a second.
const SLOW: usize = 500;
/// What the agent may hold at its peak, in KiB.
const MOST_MEMORY: u64 = 256 << 10;

/// That it has no rule any more, ends as it should, and never panicked.
fn assert_unharmed(served: Served) {
    let all = served.ask("GET", "/v1/conntrack_helpers", "");
    assert_eq!(all.body, json!({ "conntrack_helpers": [] }));
    served.assert_settled(0);
    let exit = served.agent.stop();
    assert_eq!(exit.code, Some(0), "{exit:?}");
    assert!(!exit.stderr.contains("panicked"), "{}", exit.stderr);
}

/// A connection that is kept.
struct Connection(BufReader<UnixStream>);

impl Connection {
    fn open(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(wait::patience()))?;
        stream.set_write_timeout(Some(wait::patience()))?;
        Ok(Self(BufReader::new(stream)))
    }

    fn ask(&mut self, method: &str, path: &str, body: &str) -> io::Result<(u16, Value)> {
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: agent\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n{body}"
        );
        self.0.get_mut().write_all(request.as_bytes())?;
        self.answer()
    }

    fn answer(&mut self) -> io::Result<(u16, Value)> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            lines.push(line);
        }
        let status = lines[0]
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(lines[0].clone()))?;
        let length = lines
            .iter()
            .find_map(|line| line.strip_prefix("content-length: "));
        let length = length.and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        if body.is_empty() {
            return Ok((status, Value::Null));
        }
        Ok((status, serde_json::from_slice(&body)?))
    }
}

/// A client that behaves: its connection, how long its answers took, and what
/// was wrong with them.
struct Good {
    connection: Connection,
    took: Vec<Duration>,
    wrong: Vec<String>,
}

impl Good {
    /// Asks, and expects this status. None if there is no answer at all.
    fn ask(&mut self, method: &str, path: &str, body: &str, status: u16) -> Option<Value> {
        let begun = Instant::now();
        match self.connection.ask(method, path, body) {
            Ok((given, answer)) => {
                self.took.push(begun.elapsed());
                if given != status {
                    let wrong = format!("{method} {path}: {given}, not {status}: {answer}");
                    self.wrong.push(wrong);
                }
                Some(answer)
            }
            Err(error) => {
                self.wrong.push(format!("{method} {path}: {error}"));
                None
            }
        }
    }

    /// That it is the answer to this client's request and to nobody else's.
    fn expect(&mut self, what: &str, given: Option<&Value>, wanted: &Value) {
        if given != Some(wanted) {
            self.wrong.push(format!("{what}: {given:?}, not {wanted}"));
        }
    }

    fn read(&mut self, router: &str) {
        self.ask("GET", "/v1/status", "", 200);
        let one = self.ask("GET", &format!("/v2.0/routers/{router}"), "", 200);
        let id = one.as_ref().map(|one| &one["router"]["id"]);
        self.expect("the router", id, &json!(router));
        let filtered = format!("{}?port=1", rules_of(router));
        let none = self.ask("GET", &filtered, "", 200);
        let nothing = json!({ "conntrack_helpers": [] });
        self.expect("its rules on port 1", none.as_ref(), &nothing);
        let unknown = format!("{}/{}", rules_of(router), Uuid::new_v4());
        self.ask("GET", &unknown, "", 404);
    }

    /// Makes a rule that nobody else makes, moves it, and removes it.
    fn change(&mut self, router: &str, port: usize) {
        let rules = rules_of(router);
        let rule = json!({ "protocol": "tcp", "port": port, "helper": "ftp" });
        let body = json!({ "conntrack_helper": rule }).to_string();
        let made = self.ask("POST", &rules, &body, 201);
        let made = made.as_ref().map(|made| &made["conntrack_helper"]);
        self.expect(
            "the new rule's port",
            made.map(|made| &made["port"]),
            &json!(port),
        );
        let Some(id) = made.and_then(|made| made["id"].as_str()) else {
            return;
        };
        let path = format!("{rules}/{id}");
        let moved = json!({ "conntrack_helper": { "port": port + 10_000 } }).to_string();
        let changed = self.ask("PUT", &path, &moved, 200);
        let changed = changed.as_ref().map(|changed| &changed["conntrack_helper"]);
        let given = changed.map(|rule| json!([rule["id"], rule["port"]]));
        self.expect(
            "the moved rule",
            given.as_ref(),
            &json!([id, port + 10_000]),
        );
        self.ask("DELETE", &path, "", 204);
        self.ask("GET", &path, "", 404);
    }
}

/// Clients that never come to an end, all by one thread.
struct SlowOnes {
    stop: Arc<AtomicBool>,
    /// Says how often the agent closed each of their connections.
    thread: thread::JoinHandle<Vec<usize>>,
}

impl SlowOnes {
    /// Some never end their head, some never their body; of these, some
    /// announce the largest that there may be.
    fn start(socket: &Path, rules: &str) -> Self {
        let scripts = [
            format!("GET {rules} HTTP/1.1\r\nhost: {}", "a".repeat(1000)),
            post(rules, "content-length: 1000") + &" ".repeat(1000),
            post(rules, &format!("content-length: {}", 8 << 20)) + &" ".repeat(1000),
            post(rules, "transfer-encoding: chunked") + &"1\r\n \r\n".repeat(200),
        ];
        let stop = Arc::new(AtomicBool::new(false));
        let (socket, stopped) = (socket.to_owned(), Arc::clone(&stop));
        let ready = Arc::new(Barrier::new(2));
        let connected = Arc::clone(&ready);
        let thread = thread::spawn(move || {
            let connect = |number: usize| Slow::connect(&socket, &scripts[number % scripts.len()]);
            let mut slow: Vec<_> = (0..SLOW).map(connect).collect();
            let mut closed = vec![0; SLOW];
            connected.wait();
            let begun = Instant::now();
            for second in 1.. {
                if stopped.load(Ordering::Relaxed) || begun.elapsed() > 2 * wait::patience() {
                    break;
                }
                for (number, client) in slow.iter_mut().enumerate() {
                    if !client.send_a_byte() {
                        closed[number] += 1;
                        *client = connect(number);
                    }
                }
                let next = begun + Duration::from_secs(second);
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            closed
        });
        ready.wait();
        Self { stop, thread }
    }

    fn end(self) -> Vec<usize> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the slow ones' thread")
    }
}

fn post(rules: &str, header: &str) -> String {
    format!(
        "POST {rules} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n{header}\r\n\r\n"
    )
}

struct Slow {
    stream: UnixStream,
    rest: std::vec::IntoIter<u8>,
}

impl Slow {
    /// The head comes at once if it has an end: the body is what is slow.
    fn connect(socket: &Path, script: &str) -> Self {
        let mut stream = UnixStream::connect(socket).expect("a connection");
        let (head, rest) = script
            .split_once("\r\n\r\n")
            .map_or(("", script.to_owned()), |(head, body)| {
                (head, body.to_owned())
            });
        if !head.is_empty() {
            let head = format!("{head}\r\n\r\n");
            stream.write_all(head.as_bytes()).expect("a head");
        }
        stream.set_nonblocking(true).expect("its mode");
        Self {
            stream,
            rest: rest.into_bytes().into_iter(),
        }
    }

    /// Whether the agent still wants it.
    fn send_a_byte(&mut self) -> bool {
        let mut answer = [0; 1024];
        match self.stream.read(&mut answer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // An answer, or the end.
            _ => return false,
        }
        let Some(byte) = self.rest.next() else {
            return false;
        };
        self.stream.write_all(&[byte]).is_ok()
    }
}

/// As many as this process may have: more than what is usual at first.
fn take_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("as many descriptors as are allowed");
    let enough = limit.maximum.is_none_or(|most| most >= 4096);
    assert!(
        enough,
        "this test needs 4096 descriptors: raise `ulimit -Hn`"
    );
}

#[test]
fn a_thousand_good_clients_are_answered_beside_five_hundred_slow_ones() {
    take_descriptors();
    let served = Served::new();
    let (socket, rules) = (served.socket(), served.rules());
    let agent = served.usage();
    let before = (agent.descriptors(), agent.resident_and_peak());

    let slow = SlowOnes::start(&socket, &rules);
    // What they only announce takes no room from who sends a lot.
    let large = format!(r#"{{"routers":[]}}{}"#, " ".repeat(5 << 20));
    let mut connection = Connection::open(&socket).expect("a connection");
    let applied = connection.ask("PUT", "/v1/conntrack_helpers?dry_run=true", &large);
    let nothing = json!({ "added": [], "removed": [], "unchanged": 0 });
    assert_eq!(applied.expect("an answer"), (200, nothing));
    drop(connection);

    let here = served.router.id().to_string();
    let elsewhere = Uuid::new_v4().to_string();
    let all_connected = Arc::new(Barrier::new(GOOD));
    let begun = Instant::now();
    let threads: Vec<_> = (0..GOOD)
        .map(|number| {
            let (socket, all_connected) = (socket.clone(), Arc::clone(&all_connected));
            let (here, elsewhere) = (here.clone(), elsewhere.clone());
            let client = move || {
                let connection = Connection::open(&socket);
                all_connected.wait();
                let mut good = Good {
                    connection: connection.expect("a connection"),
                    took: Vec::new(),
                    wrong: Vec::new(),
                };
                for round in 0..ROUNDS {
                    good.read(&here);
                    if number % CHANGER == 0 && round == 1 {
                        // Every other one on a router that isn't on this host.
                        let is_here = number % (2 * CHANGER) == 0;
                        let router = if is_here { &here } else { &elsewhere };
                        good.change(router, 1000 + number);
                    }
                }
                (good.took, good.wrong)
            };
            let thread = thread::Builder::new().stack_size(256 << 10);
            thread.spawn(client).expect("a thread")
        })
        .collect();
    let (mut took, mut wrong) = (Vec::new(), Vec::new());
    for thread in threads {
        let (some, more) = thread.join().expect("a client");
        took.extend(some);
        wrong.extend(more);
    }
    let all = begun.elapsed();
    assert!(
        wrong.is_empty(),
        "{} of {} are wrong: {:#?}",
        wrong.len(),
        took.len(),
        &wrong[..wrong.len().min(10)]
    );
    let changes = GOOD / CHANGER;
    assert_eq!(took.len(), ROUNDS * 4 * GOOD + 4 * changes, "answers");

    // The slow ones go on until the agent has had enough of each of them.
    thread::sleep(Duration::from_secs(13).saturating_sub(begun.elapsed()));
    let full = agent.descriptors();
    let closed = slow.end();
    let (resident, peak) = agent.resident_and_peak();
    took.sort_unstable();
    let quantile = |percent: usize| took[(took.len() - 1) * percent / 100];
    println!(
        "{} answers in {all:?} beside {SLOW} slow clients: p50 {:?}, p99 {:?}, the longest {:?}; \
         {changes} rules made, moved and removed",
        took.len(),
        quantile(50),
        quantile(99),
        quantile(100),
    );
    println!(
        "memory in KiB: VmRSS {} before, {resident} after; VmHWM {} before, {peak} after; \
         descriptors: {} before, {full} with the slow ones",
        before.1.0, before.1.1, before.0
    );
    assert!(
        closed.iter().all(|times| *times > 0),
        "slow ones that were never closed: {}",
        closed.iter().filter(|times| **times == 0).count()
    );
    assert!(peak < MOST_MEMORY, "{peak} KiB at the peak");
    assert!(full > before.0 + SLOW * 3 / 4, "{full} descriptors");
    let back = wait::until(wait::patience(), || {
        (agent.descriptors() <= before.0).then_some(())
    });
    assert!(
        back.is_some(),
        "{} descriptors, {} before",
        agent.descriptors(),
        before.0
    );
    assert_unharmed(served);
}

#[test]
fn who_has_too_many_connections_is_told_so_and_the_others_go_on() {
    const MOST: usize = 20;
    let served = Served::with(|config| {
        let limits = format!("{{ connections_per_peer = {MOST} }}");
        let api = format!("{{ socket_group = \"nogroup\", limits = {limits} }}");
        let grant = "[{ users = [\"nobody\"], role = \"reader\" }]";
        config.with("api", api).with("grant", grant)
    });
    let socket = served.socket();
    let agent = served.usage();
    let open = || Connection::open(&socket).expect("a connection");
    let one_more = |connection: &mut Connection| {
        // It is told before it has asked.
        let (status, body) = connection.answer().expect("an answer");
        let message = &body["NeutronError"]["message"];
        let kind = &body["NeutronError"]["type"];
        (
            status,
            kind.clone(),
            message.as_str().unwrap_or("").to_owned(),
        )
    };
    // The one of `process` may not be gone yet.
    let begun = wait::until(wait::patience(), || {
        let mut connections: Vec<_> = (0..MOST).map(|_| open()).collect();
        let all = connections
            .iter_mut()
            .all(|connection| matches!(connection.ask("GET", "/v2.0", ""), Ok((200, _))));
        all.then_some(connections)
    });
    let mut connections = begun.expect("as many connections as are allowed");
    let descriptors = agent.descriptors();
    for _ in 0..100 {
        let (status, kind, message) = one_more(&mut open());
        assert_eq!((status, &kind), (503, &json!("TooManyConnections")));
        let wanted = format!("{MOST} connections of this peer are open already; try again");
        assert_eq!(message, wanted);
    }
    for connection in &mut connections {
        let (status, _) = connection.ask("GET", "/v1/status", "").expect("an answer");
        assert_eq!(status, 200, "those that were there go on");
    }
    // Another user is another peer.
    let other = std::process::Command::new("setpriv")
        .args(["--reuid", "nobody", "--regid", "nogroup", "--clear-groups"])
        .args(["curl", "--silent"])
        .args(["--max-time", "60", "--output", "/dev/null"])
        .args(["--write-out", "%{http_code}", "--unix-socket"])
        .arg(&socket)
        .arg("http://agent/v2.0")
        .output()
        .expect("setpriv and curl");
    assert_eq!(String::from_utf8_lossy(&other.stdout), "200", "{other:?}");
    // None of those that were turned away is still held.
    let back = wait::until(wait::patience(), || {
        (agent.descriptors() <= descriptors).then_some(())
    });
    assert!(back.is_some(), "{} of {descriptors}", agent.descriptors());
    connections.pop();
    let next = wait::until(wait::patience(), || {
        let answer = open().ask("GET", "/v2.0", "");
        matches!(answer, Ok((200, _))).then_some(())
    });
    assert!(next.is_some(), "a place that was given back is taken");
    drop(connections);
    let gone = wait::until(wait::patience(), || {
        (agent.descriptors() < descriptors).then_some(())
    });
    assert!(gone.is_some(), "{} descriptors", agent.descriptors());
    assert_unharmed(served);
}

/// Writes until the agent takes no more; how much it took, and its answer.
fn pour(socket: &Path, head: &str, piece: &[u8], most: usize) -> (usize, u16, Value) {
    let mut connection = Connection::open(socket).expect("a connection");
    let stream = connection.0.get_mut();
    stream.write_all(head.as_bytes()).expect("a head");
    let mut written = 0;
    while written < most && stream.write_all(piece).is_ok() {
        written += piece.len();
    }
    let (status, body) = connection.answer().expect("an answer");
    (written, status, body)
}

#[test]
fn a_body_of_100_mb_is_refused_without_being_held() {
    const HUGE: usize = 100 << 20;
    let served = Served::new();
    let (socket, rules) = (served.socket(), served.rules());
    let agent = served.usage();
    let piece = vec![b' '; 64 << 10];
    let (_, before) = agent.resident_and_peak();

    // Refused for what it says that it is.
    let declared = post(&rules, &format!("content-length: {HUGE}"));
    let (written, status, body) = pour(&socket, &declared, &piece, HUGE);
    assert_eq!(status, 413, "{body}");
    assert!(written < 4 << 20, "{written} bytes were taken");
    let (_, peak) = agent.resident_and_peak();
    println!("VmHWM in KiB: {before} before, {peak} with 100 MB announced");
    assert!(peak < before + (4 << 10), "{before} KiB, then {peak}");

    // It doesn't say: refused when it is too much.
    let chunked = post(&rules, "transfer-encoding: chunked");
    let mut chunk = format!("{:x}\r\n", piece.len()).into_bytes();
    chunk.extend_from_slice(&piece);
    chunk.extend_from_slice(b"\r\n");
    let (written, status, body) = pour(&socket, &chunked, &chunk, HUGE);
    assert_eq!(status, 413, "{body}");
    assert!(written < 12 << 20, "{written} bytes were taken");
    let (_, peak) = agent.resident_and_peak();
    println!("VmHWM in KiB: {peak} with 100 MB in chunks");
    assert!(peak < before + (40 << 10), "{before} KiB, then {peak}");

    // What fits is read to its end.
    let fits = post(&rules, &format!("content-length: {}", 4 << 20));
    let (written, status, body) = pour(&socket, &fits, &piece, 4 << 20);
    assert_eq!((written, status), (4 << 20, 400), "{body}");
    assert_unharmed(served);
}

#[test]
fn deep_nesting_is_refused() {
    let served = Served::new();
    let mut connection = Connection::open(&served.socket()).expect("a connection");
    for depth in [10_000, 1_000_000] {
        for (open, close) in [("[", "]"), (r#"{"conntrack_helper":"#, "}")] {
            let depth = depth / open.len();
            let body = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            for method in ["POST", "PUT"] {
                let answer = connection.ask(method, &served.rules(), &body);
                let (status, body) = answer.expect("an answer");
                assert_eq!(status, 400, "{body}");
            }
        }
    }
    assert_unharmed(served);
}
