//! An agent that runs out of descriptors stays, says so, and recovers.

use std::fs;
use std::time::{Duration, Instant};

use conntrack_tests::agent::{Agent, Config};
use conntrack_tests::connection::Connection;
use conntrack_tests::curl::{Answer, curl};
use conntrack_tests::durable::{BareRouter, stored};
use conntrack_tests::lab::Lab;
use conntrack_tests::usage::Usage;
use conntrack_tests::wait;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::json;

struct Fixture {
    agent: Agent,
    router: BareRouter,
    lab: Lab,
}

impl Fixture {
    fn new(launcher: &[&str]) -> Self {
        let lab = Lab::new();
        let router = BareRouter::new(&lab);
        let agent = Agent::launch(&lab, &Config::of(&lab), None, launcher);
        let agent = agent.ready().unwrap_or_else(|exit| panic!("{exit:?}"));
        Self { agent, router, lab }
    }

    fn connect(&self) -> Connection {
        let socket = self.lab.dir().run_dir().join("agent.sock");
        Connection::open(&socket)
    }

    /// So many connections at once; none if one is refused.
    fn hold(&self, number: usize) -> Option<Vec<Connection>> {
        let mut held: Vec<_> = (0..number).map(|_| self.connect()).collect();
        // One that was turned away has its answer already.
        std::thread::sleep(Duration::from_millis(100));
        let all = held.iter_mut().all(Connection::is_silent);
        let ask = |connection: &mut Connection| connection.ask("GET", "/v1/status", None);
        let all = all && held.iter_mut().all(|one| ask(one).status == 200);
        all.then_some(held)
    }

    /// As a new connection is told.
    fn status(&self) -> u16 {
        let socket = self.lab.dir().run_dir().join("agent.sock");
        curl(&socket, "GET", "/v1/status", "").status
    }

    fn pid(&mut self) -> Pid {
        self.agent.process().pid()
    }

    /// What comes of a new rule for this port.
    fn create(&self, connection: &mut Connection, port: u16) -> Answer {
        let path = format!("/v2.0/routers/{}/conntrack_helpers", self.router.id());
        let rule = json!({"protocol": "tcp", "port": port, "helper": "ftp"});
        connection.ask("POST", &path, Some(&json!({ "conntrack_helper": rule })))
    }

    fn assert_in_force(&self, rules: usize) {
        let mapping = stored(self.lab.dir()).expect("the store");
        assert_eq!(mapping.len(), rules);
        self.router.assert_has(&mapping);
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
    fixture.assert_in_force(1);
    drop(held);
    let again = wait::until(wait::patience(), || (fixture.status() == 200).then_some(()));
    assert!(again.is_some(), "places that were given back are taken");
    assert_eq!(fixture.agent.stop().code, Some(0));
}

/// After a change its router is looked at once more: what that has open is free
/// afterwards.
fn wait_for_quiet(pid: Pid) {
    let usage = Usage::of(u64::from(pid.as_raw_nonzero().get().cast_unsigned()));
    let mut last = (usage.descriptors(), Instant::now());
    let quiet = || {
        let now = usage.descriptors();
        if now != last.0 {
            last = (now, Instant::now());
        }
        (last.1.elapsed() > Duration::from_secs(2)).then_some(())
    };
    wait::until(wait::patience(), quiet).expect("an agent that has nothing to do");
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

/// Ticks of the processor that it has taken (proc(5), stat).
fn ticks(pid: Pid) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).expect("stat");
    let fields = stat.rsplit_once(')').expect("a name").1;
    let fields: Vec<_> = fields.split_whitespace().collect();
    let number = |place: usize| fields[place].parse::<u64>().expect("ticks");
    number(11) + number(12)
}

#[test]
fn without_a_descriptor_who_knocks_is_told_so_and_a_change_is_refused_whole() {
    let mut fixture = Fixture::new(&[]);
    let pid = fixture.pid();
    let mut held = fixture.connect();
    assert_eq!(fixture.create(&mut held, 21).status, 201);
    wait_for_quiet(pid);
    let limit = exhaust(pid);

    let begun = ticks(pid);
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
    std::thread::sleep(Duration::from_secs(2));
    let taken = ticks(pid) - begun;
    println!("{taken} ticks of 100 a second, in more than two seconds");
    assert!(taken < 100, "it goes round in a loop: {taken} ticks");

    set(pid, limit);
    let again = wait::until(wait::patience(), || {
        let answer = fixture.create(&mut held, 2121);
        (answer.status == 201).then_some(())
    });
    assert!(again.is_some(), "with descriptors, it is made");
    assert_eq!(fixture.status(), 200);
    fixture.assert_in_force(2);
    let exit = fixture.agent.stop();
    assert_eq!(exit.code, Some(0), "{exit:?}");
    let said = exit
        .stderr
        .matches("connections cannot be accepted")
        .count();
    assert!((1..=3).contains(&said), "said {said} times");
}
