//! An agent that runs out of descriptors stays, says so, and recovers.

use std::fs;

use conntrack_tests::connection::Connection;
use conntrack_tests::curl::Answer;
use conntrack_tests::served::Served;
use conntrack_tests::wait;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::json;

struct Fixture(Served);

impl Fixture {
    fn new(launcher: &[&str]) -> Self {
        Self(Served::builder().launcher(launcher).start())
    }

    fn connect(&self) -> Connection {
        self.0.connect()
    }

    /// So many connections at once; none if one is refused.
    fn hold(&self, number: usize) -> Option<Vec<Connection>> {
        let mut held: Vec<_> = (0..number).map(|_| self.connect()).collect();
        // One that was turned away has its answer already.
        wait::for_nothing();
        let all = held.iter_mut().all(Connection::is_silent);
        let ask = |connection: &mut Connection| connection.ask("GET", "/v1/status", None);
        let all = all && held.iter_mut().all(|one| ask(one).status == 200);
        all.then_some(held)
    }

    /// As a new connection is told.
    fn status(&self) -> u16 {
        self.0.ask("GET", "/v1/status", "").status
    }

    /// What comes of a new rule for this port.
    fn create(&self, connection: &mut Connection, port: u16) -> Answer {
        let rule = json!({"protocol": "tcp", "port": port, "helper": "ftp"});
        let body = json!({ "conntrack_helper": rule });
        connection.ask("POST", &self.0.rules(), Some(&body))
    }
}

#[test]
fn with_64_descriptors_connections_leave_room_for_the_agents_work() {
    let fixture = Fixture::new(&["prlimit", "--nofile=64:64"]);
    // A connection that has just been given back may still have its place.
    let held = wait::until(wait::patience(), || fixture.hold(16));
    let mut held = held.expect("a quarter of them");
    for _ in 0..100 {
        let answer = fixture.connect().receive();
        assert_eq!(answer.status, 503, "{answer:?}");
        assert_eq!(
            answer.message(),
            "16 connections are open already; try again"
        );
    }
    // All of them taken, a change is made: maps, links, nft.
    let answer = fixture.create(&mut held[0], 21);
    assert_eq!(answer.status, 201, "{answer:?}");
    fixture.0.assert_settled(1);
    drop(held);
    let again = wait::until(wait::patience(), || (fixture.status() == 200).then_some(()));
    assert!(again.is_some(), "places that were given back are taken");
    assert_eq!(fixture.0.agent.stop().code, Some(0));
}

/// Leaves the process the descriptors that it has; gives the limit it had.
fn exhaust(pid: Pid) -> Rlimit {
    let taken: Vec<u64> = fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero()))
        .expect("its descriptors")
        .map(|entry| entry.expect("one").file_name())
        .map(|name| name.to_str().and_then(|name| name.parse().ok()))
        .map(|number| number.expect("a number"))
        .collect();
    // The kernel gives the lowest that is free.
    let free = (0..u64::from(u16::MAX)).find(|number| !taken.contains(number));
    let had = getrlimit_of(pid);
    set(
        pid,
        Rlimit {
            current: free,
            maximum: had.maximum,
        },
    );
    had
}

fn getrlimit_of(pid: Pid) -> Rlimit {
    let limits = fs::read_to_string(format!("/proc/{}/limits", pid.as_raw_nonzero()));
    let limits = limits.expect("its limits");
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let words: Vec<_> = line.expect("a line").split_whitespace().collect();
    Rlimit {
        current: words[3].parse().ok(),
        maximum: words[4].parse().ok(),
    }
}

fn set(pid: Pid, limit: Rlimit) {
    prlimit(Some(pid), Resource::Nofile, limit).expect("its limit");
}

#[test]
fn without_a_descriptor_who_knocks_is_told_so_and_a_change_is_refused_whole() {
    let fixture = Fixture::new(&[]);
    let (pid, usage) = (fixture.0.agent.pid(), fixture.0.usage());
    let mut held = fixture.connect();
    assert_eq!(fixture.create(&mut held, 21).status, 201);
    // After a change its router is looked at once more: what that has open is
    // free afterwards.
    let is_quiet = || usage.steady_descriptors(3).map(drop);
    wait::until(wait::patience(), is_quiet).expect("an agent that has nothing to do");
    let limit = exhaust(pid);

    for _ in 0..20 {
        let answer = fixture.connect().receive();
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(
            answer.message().contains("no file descriptor left"),
            "{answer:?}"
        );
    }
    // One that was let in before is answered; what it wants can't be done.
    let answer = fixture.create(&mut held, 2121);
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(
        answer.message().contains("Too many open files"),
        "{answer:?}"
    );
    // It waits for a descriptor, and goes round in no loop: that would never rest.
    let rests = || {
        let before = usage.ticks();
        wait::for_nothing();
        (usage.ticks() == before).then_some(())
    };
    wait::until(wait::patience(), rests).expect("an agent that rests");

    set(pid, limit);
    let again = wait::until(wait::patience(), || {
        let answer = fixture.create(&mut held, 2121);
        (answer.status == 201).then_some(())
    });
    assert!(again.is_some(), "with descriptors, it is made");
    assert_eq!(fixture.status(), 200);
    fixture.0.assert_settled(2);
    let exit = fixture.0.agent.stop();
    assert_eq!(exit.code, Some(0), "{exit:?}");
    let said = exit
        .stderr
        .matches("connections cannot be accepted")
        .count();
    assert!((1..=3).contains(&said), "said {said} times");
}
