//! Many clients at once, and bad ones among them: who behaves is answered.
#![expect(
    clippy::expect_used,
    reason = "tests panic, where and with what they found"
)]

#[path = "load/good.rs"]
mod good;
#[path = "load/raw.rs"]
mod raw;
#[path = "load/slow.rs"]
mod slow;

use std::process::Command;
use std::time::Instant;

use conntrack_tests::served::Served;
use conntrack_tests::usage::Usage;
use conntrack_tests::wait;
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::json;

use good::{ANSWERS, CHANGES, all_ask};
use raw::{RawConnection, head};
use slow::{SLOW, SlowOnes};

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

/// Waits until the agent has no more descriptors than this.
#[track_caller]
fn assert_descriptors_back(agent: Usage, most: usize) {
    let back = wait::until(wait::patience(), || {
        (agent.descriptors() <= most).then_some(())
    });
    assert!(back.is_some(), "{} of {most}", agent.descriptors());
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
    let descriptors = agent.descriptors();
    let (resident_before, peak_before) = agent.resident_and_peak();

    let slow = SlowOnes::start(&socket, &rules);
    // What they only announce takes no room from who sends a lot.
    let large = format!(r#"{{"routers":[]}}{}"#, " ".repeat(5 << 20));
    let mut connection = RawConnection::open(&socket).expect("a connection");
    let applied = connection.ask("PUT", "/v1/conntrack_helpers?dry_run=true", &large);
    let nothing = json!({ "added": [], "removed": [], "unchanged": 0 });
    assert_eq!(applied.expect("an answer"), (200, nothing));
    drop(connection);

    let begun = Instant::now();
    let (mut took, wrong) = all_ask(&socket, &served.router.id().to_string());
    let all = begun.elapsed();
    let (some, count) = (&wrong[..wrong.len().min(10)], wrong.len());
    assert_eq!(count, 0, "wrong ones of {} answers: {some:#?}", took.len());
    assert_eq!(took.len(), ANSWERS, "answers");

    // The slow ones go on until the agent has had enough of each of them.
    let closed = wait::until(wait::patience(), || (slow.closed() == SLOW).then_some(()));
    assert!(closed.is_some(), "{} of {SLOW} were closed", slow.closed());
    let full = wait::until(wait::patience(), || {
        let now = agent.descriptors();
        (now > descriptors + SLOW * 3 / 4).then_some(now)
    });
    let full = full.expect("descriptors of the slow ones, who have all come back");
    slow.end();
    let (resident, peak) = agent.resident_and_peak();
    took.sort_unstable();
    let quantile = |percent: usize| took[(took.len() - 1) * percent / 100];
    println!(
        "{ANSWERS} answers in {all:?} beside {SLOW} slow clients: p50 {:?}, p99 {:?}, the longest \
         {:?}; {CHANGES} rules made, moved and removed",
        quantile(50),
        quantile(99),
        quantile(100),
    );
    println!(
        "memory in KiB: VmRSS {resident_before} before, {resident} after; VmHWM {peak_before} \
         before, {peak} after; descriptors: {descriptors} before, {full} with the slow ones"
    );
    assert!(peak < MOST_MEMORY, "{peak} KiB at the peak");
    assert_descriptors_back(agent, descriptors);
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
    let open = || RawConnection::open(&socket).expect("a connection");
    let is_served = |connection: &mut RawConnection| {
        let answer = connection.ask("GET", "/v2.0", "");
        matches!(answer, Ok((200, _)))
    };
    // The one of `usage` may not be gone yet.
    let begun = wait::until(wait::patience(), || {
        let mut connections: Vec<_> = (0..MOST).map(|_| open()).collect();
        let all = connections.iter_mut().all(is_served);
        all.then_some(connections)
    });
    let mut connections = begun.expect("as many connections as are allowed");
    let descriptors = agent.descriptors();
    let message = format!("{MOST} connections of this peer are open already; try again");
    for _ in 0..100 {
        // It is told before it has asked.
        let (status, body) = open().answer().expect("an answer");
        let error = &body["NeutronError"];
        assert_eq!(
            (status, &error["type"]),
            (503, &json!("TooManyConnections"))
        );
        assert_eq!(error["message"], message);
    }
    for connection in &mut connections {
        let (status, _) = connection.ask("GET", "/v1/status", "").expect("an answer");
        assert_eq!(status, 200, "those that were there go on");
    }
    // Another user is another peer.
    let other = Command::new("setpriv")
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
    assert_descriptors_back(agent, descriptors);
    connections.pop();
    let next = wait::until(wait::patience(), || is_served(&mut open()).then_some(()));
    assert!(next.is_some(), "a place that was given back is taken");
    drop(connections);
    assert_descriptors_back(agent, descriptors - 1);
    assert_unharmed(served);
}

#[test]
fn a_body_of_100_mb_is_refused_without_being_held() {
    const HUGE: usize = 100 << 20;
    let served = Served::new();
    let (socket, rules) = (served.socket(), served.rules());
    let agent = served.usage();
    let piece = vec![b' '; 64 << 10];
    let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), &piece, b"\r\n"].concat();
    let (_, before) = agent.resident_and_peak();
    let announced = format!("content-length: {HUGE}");
    #[rustfmt::skip]
    let rows = [
        // Refused for what it says that it is.
        ("announced", announced.as_str(), &piece, 4 << 20, 4 << 10),
        // It doesn't say: refused when it is too much.
        ("in chunks", "transfer-encoding: chunked", &chunk, 12 << 20, 40 << 10),
    ];
    for (what, header, piece, most_taken, most_held) in rows {
        let head = head("POST", &rules, header);
        let (written, status, body) = RawConnection::pour(&socket, &head, piece, HUGE);
        assert_eq!(status, 413, "{what}: {body}");
        assert!(written < most_taken, "{what}: {written} bytes were taken");
        let (_, peak) = agent.resident_and_peak();
        println!("VmHWM in KiB: {before} before, {peak} with 100 MB {what}");
        assert!(
            peak < before + most_held,
            "{what}: {before} KiB, then {peak}"
        );
    }
    // What fits is read to its end.
    let fits = head("POST", &rules, &format!("content-length: {}", 4 << 20));
    let (written, status, body) = RawConnection::pour(&socket, &fits, &piece, 4 << 20);
    assert_eq!((written, status), (4 << 20, 400), "{body}");
    assert_unharmed(served);
}

#[test]
fn deep_nesting_is_refused() {
    let served = Served::new();
    let mut connection = RawConnection::open(&served.socket()).expect("a connection");
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
