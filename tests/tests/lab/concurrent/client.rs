//! One client among many, which asserts that each of its answers holds.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use conntrack_agent::model::RouterId;
use conntrack_tests::connection::Connection;
use conntrack_tests::curl::Answer;
use conntrack_tests::served::rules_of;
use serde_json::{Value, json};

use super::{CONTENDED, OWN, PortsById, ftp_on, in_answer};

/// What the agent has acknowledged, by what it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answers {
    pub(super) created: BTreeSet<String>,
    pub(super) deleted: BTreeSet<String>,
    pub(super) updates: usize,
    pub(super) refusals: usize,
}

pub(super) struct Client {
    pub(super) number: u16,
    connection: Connection,
    path: String,
    random: fastrand::Rng,
    pub(super) rules: PortsById,
    pub(super) answers: Answers,
}

impl Client {
    pub(super) fn new(number: u16, socket: &Path, router: RouterId) -> Self {
        Self {
            number,
            connection: Connection::open(socket),
            path: rules_of(router),
            random: fastrand::Rng::with_seed(number.into()),
            rules: PortsById::new(),
            answers: Answers::default(),
        }
    }

    fn ask(&mut self, method: &str, id: Option<&str>, body: Option<&Value>) -> Answer {
        let path = match id {
            Some(id) => format!("{}/{id}", self.path),
            None => self.path.clone(),
        };
        self.connection.ask(method, &path, body)
    }

    /// Creates a rule, which nobody else has.
    fn create(&mut self, port: u16) -> String {
        self.try_to_create(port)
            .unwrap_or_else(|by| panic!("port {port} is free, not {by}'s"))
    }

    /// Creates a rule or is told whose place it is.
    pub(super) fn try_to_create(&mut self, port: u16) -> Result<String, String> {
        let answer = self.ask("POST", None, Some(&ftp_on(port)));
        if answer.status != 201 {
            assert_eq!((answer.status, answer.kind()), (400, "BadRequest"));
            self.answers.refusals += 1;
            let by = answer.message().split_once("already, as rule ");
            let (_, by) = by.unwrap_or_else(|| panic!("by whom: {answer:?}"));
            return Err(by.to_owned());
        }
        let (id, made) = in_answer(&answer.body["conntrack_helper"]);
        assert_eq!(made, port, "{answer:?}");
        self.rules.insert(id.clone(), port);
        let new = self.answers.created.insert(id.clone());
        assert!(new, "{id} was given once already");
        self.assert_there(&id);
        Ok(id)
    }

    /// Deletes a rule, which is there.
    fn delete(&mut self, id: &str) {
        assert!(self.try_to_delete(id), "{id} is there until its 204");
    }

    pub(super) fn try_to_delete(&mut self, id: &str) -> bool {
        let answer = self.ask("DELETE", Some(id), None);
        if answer.status != 204 {
            assert_eq!(
                (answer.status, answer.kind()),
                (404, "ConntrackHelperNotFound"),
                "{answer:?}"
            );
            return false;
        }
        self.rules.remove(id);
        self.answers.deleted.insert(id.to_owned());
        let gone = self.ask("GET", Some(id), None);
        assert_eq!(gone.status, 404, "{gone:?}");
        true
    }

    fn move_to(&mut self, id: &str, port: u16) {
        let body = json!({ "conntrack_helper": { "port": port } });
        let answer = self.ask("PUT", Some(id), Some(&body));
        assert_eq!(answer.status, 200, "{answer:?}");
        self.rules.insert(id.to_owned(), port);
        self.answers.updates += 1;
        self.assert_there(id);
    }

    fn assert_there(&mut self, id: &str) {
        let shown = self.ask("GET", Some(id), None);
        assert_eq!(shown.status, 200, "{shown:?}");
        let rule = &shown.body["conntrack_helper"];
        let expected = (id.to_owned(), self.rules[id]);
        assert_eq!(in_answer(rule), expected, "{shown:?}");
        assert_eq!(rule["status"], "active", "{shown:?}");
    }

    /// Makes this many changes on its own ports, and now and then takes a
    /// contended one and gives it back, as if it were a lock: there is one
    /// holder at most. A holder's number is one more than the client's.
    pub(super) fn work(&mut self, changes: usize, holders: &[AtomicUsize]) {
        let me = usize::from(self.number) + 1;
        for step in 0..changes {
            self.change_one();
            if step % 10 != 0 {
                continue;
            }
            let place = self.random.usize(..CONTENDED.len());
            let Ok(id) = self.try_to_create(CONTENDED[place]) else {
                continue;
            };
            let taken = holders[place].compare_exchange(0, me, Ordering::SeqCst, Ordering::SeqCst);
            assert_eq!(taken, Ok(0), "port {} has two holders", CONTENDED[place]);
            self.assert_there(&id);
            holders[place].store(0, Ordering::SeqCst);
            self.delete(&id);
        }
    }

    fn change_one(&mut self) {
        let first = 1000 + self.number * OWN;
        let port = self.random.u16(first..first + OWN);
        let there = self.on(port);
        let Some(id) = there else {
            self.create(port);
            return;
        };
        // It is still there, and once.
        if self.random.u8(..8) == 0 {
            assert_eq!(self.try_to_create(port), Err(id.clone()));
        }
        let free = (first..first + OWN).find(|port| self.on(*port).is_none());
        match free {
            Some(free) if self.random.u8(..3) == 0 => self.move_to(&id, free),
            _ => self.delete(&id),
        }
    }

    fn on(&self, port: u16) -> Option<String> {
        let mut rules = self.rules.iter();
        rules.find(|(_, at)| **at == port).map(|(id, _)| id.clone())
    }
}
