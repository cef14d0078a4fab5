//! Clients that behave.

use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use conntrack_tests::served::rules_of;
use serde_json::{Value, json};
use uuid::Uuid;

use super::raw::RawConnection;

/// How many there are.
pub(super) const GOOD: usize = 1000;
/// One of so many of them also makes changes.
const CHANGER: usize = 5;
/// How many of them make changes.
pub(super) const CHANGES: usize = GOOD / CHANGER;
/// How many answers all of them get.
pub(super) const ANSWERS: usize = ROUNDS * 4 * GOOD + 4 * CHANGES;
/// How often each one asks the same again.
const ROUNDS: usize = 3;

/// A client that behaves: its connection, how long its answers took, and what
/// was wrong with them.
struct Good {
    connection: RawConnection,
    took: Vec<Duration>,
    wrong: Vec<String>,
}

/// Has all of them ask, about this router and about one that isn't on this host: how
/// long their answers took, and what was wrong with them.
pub(super) fn all_ask(socket: &Path, router: &str) -> (Vec<Duration>, Vec<String>) {
    let elsewhere = Uuid::new_v4().to_string();
    let all_connected = Barrier::new(GOOD);
    let client = &|number: usize| {
        let connection = RawConnection::open(socket);
        all_connected.wait();
        let mut good = Good {
            connection: connection.expect("a connection"),
            took: Vec::new(),
            wrong: Vec::new(),
        };
        for round in 0..ROUNDS {
            good.read(router);
            if round == 1 && number.is_multiple_of(CHANGER) {
                // Every other one on a router that isn't on this host.
                let is_here = number.is_multiple_of(2 * CHANGER);
                good.change(if is_here { router } else { &elsewhere }, 1000 + number);
            }
        }
        (good.took, good.wrong)
    };
    thread::scope(|scope| {
        let start = |number| {
            let thread = thread::Builder::new().stack_size(256 << 10);
            let started = thread.spawn_scoped(scope, move || client(number));
            started.expect("a thread")
        };
        let threads: Vec<_> = (0..GOOD).map(start).collect();
        let threads = threads.into_iter().map(thread::ScopedJoinHandle::join);
        let (took, wrong): (Vec<_>, Vec<_>) = threads.map(|each| each.expect("a client")).unzip();
        (took.concat(), wrong.concat())
    })
}

impl Good {
    /// Asks, and expects this status, and these values at these places: the answer is
    /// to this client's request and to nobody else's. Null if there is none at all.
    fn ask(&mut self, request: [&str; 3], status: u16, values: &[(&str, Value)]) -> Value {
        let [method, path, body] = request;
        let begun = Instant::now();
        let answer = self.connection.ask(method, path, body);
        let is_right = answer.as_ref().is_ok_and(|(given, body)| {
            let mut values = values.iter();
            *given == status && values.all(|(at, value)| body.pointer(at) == Some(value))
        });
        if !is_right {
            let wrong = format!("{method} {path}: {answer:?}, not {status} {values:?}");
            self.wrong.push(wrong);
        }
        let Ok((_, body)) = answer else {
            return Value::Null;
        };
        self.took.push(begun.elapsed());
        body
    }

    fn read(&mut self, router: &str) {
        let rules = rules_of(router);
        let nothing = json!({ "conntrack_helpers": [] });
        for (path, status, values) in [
            ("/v1/status".to_owned(), 200, vec![]),
            (
                format!("/v2.0/routers/{router}"),
                200,
                vec![("/router/id", json!(router))],
            ),
            (format!("{rules}?port=1"), 200, vec![("", nothing)]),
            (format!("{rules}/{}", Uuid::new_v4()), 404, vec![]),
        ] {
            self.ask(["GET", &path, ""], status, &values);
        }
    }

    /// Makes a rule that nobody else makes, moves it, and removes it.
    fn change(&mut self, router: &str, port: usize) {
        const ID: &str = "/conntrack_helper/id";
        const PORT: &str = "/conntrack_helper/port";
        let (rules, moved) = (rules_of(router), port + 10_000);
        let rule = json!({ "protocol": "tcp", "port": port, "helper": "ftp" });
        let body = json!({ "conntrack_helper": rule }).to_string();
        let made = self.ask(["POST", &rules, &body], 201, &[(PORT, json!(port))]);
        let Some(id) = made.pointer(ID).and_then(Value::as_str) else {
            return;
        };
        let path = format!("{rules}/{id}");
        let body = json!({ "conntrack_helper": { "port": moved } }).to_string();
        let values = [(ID, json!(id)), (PORT, json!(moved))];
        self.ask(["PUT", &path, &body], 200, &values);
        self.ask(["DELETE", &path, ""], 204, &[]);
        self.ask(["GET", &path, ""], 404, &[]);
    }
}
