//! Many clients at once: no change is lost, and none is made twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use conntrack_agent::model::{Origin, RouterId};
use conntrack_tests::agent::{Agent, Config, Reload};
use conntrack_tests::audit;
use conntrack_tests::connection::Connection;
use conntrack_tests::curl::Answer;
use conntrack_tests::durable::{BareRouter, stored};
use conntrack_tests::lab::Lab;
use conntrack_tests::wait;
use serde_json::{Value, json};

const CLIENTS: u16 = 10;
const ROUNDS: u64 = 4;
/// In a round, by each client.
const CHANGES: usize = 250;
/// That one client alone uses.
const OWN: u16 = 20;
/// Ports that all want.
const CONTENDED: [u16; 8] = [21, 22, 23, 24, 25, 26, 27, 28];

/// Rules by id, as the answers have them: the port of each.
type Rules = BTreeMap<String, u16>;

struct Fixture {
    agent: Agent,
    router: BareRouter,
    lab: Lab,
}

impl Fixture {
    fn new(rules: Option<&str>, router: impl FnOnce(&Lab) -> BareRouter) -> Self {
        let lab = Lab::new();
        let router = router(&lab);
        let config = Config::of(&lab)
            // A client may have to wait for all others.
            .with("api", "{ limits = { header_seconds = 600 } }")
            // All of the trail in one file.
            .with("audit", "{ max_bytes = 1_073_741_824 }");
        let agent = Agent::spawn(&lab, &config, rules, &[]).ready();
        let agent = agent.unwrap_or_else(|exit| panic!("not ready: {exit:?}"));
        Self { agent, router, lab }
    }

    fn clients(&self, count: u16) -> Vec<Client> {
        let client = |number| Client::new(number, &socket(&self.lab), self.router.id());
        (0..count).map(client).collect()
    }

    /// That the API, the store and the kernel have these rules of the API's
    /// and no others.
    fn assert_settled(&self, clients: &[Client]) {
        let mut wanted = Rules::new();
        for client in clients {
            wanted.extend(client.rules.clone());
        }
        assert_eq!(
            wanted.len(),
            clients
                .iter()
                .map(|client| client.rules.len())
                .sum::<usize>(),
            "no two rules have one id"
        );
        let mapping = stored(self.lab.dir()).expect("a good store");
        let entries = mapping.entries().map(|entry| entry.rule);
        let of_api = entries.filter(|rule| rule.origin == Origin::Api);
        let kept: Rules = of_api
            .map(|rule| (rule.id.to_string(), rule.target.port.get()))
            .collect();
        assert_eq!(kept, wanted, "the store has what the answers said");
        self.router.assert_has(&mapping);
        let mut connection = Connection::open(&socket(&self.lab));
        let path = format!("{}?origin=api", rules_of(self.router.id()));
        let listed = connection.ask("GET", &path, None);
        let listed = listed.body["conntrack_helpers"].as_array().expect("rules");
        let listed: Rules = listed.iter().map(in_answer).collect();
        assert_eq!(listed, wanted, "the list has what the answers said");
    }
}

fn socket(lab: &Lab) -> PathBuf {
    lab.dir().run_dir().join("agent.sock")
}

fn rules_of(router: RouterId) -> String {
    format!("/v2.0/routers/{router}/conntrack_helpers")
}

fn in_answer(rule: &Value) -> (String, u16) {
    let id = rule["id"].as_str().expect("an id").to_owned();
    let port = rule["port"].as_u64().expect("a port");
    (id, port.try_into().expect("a port"))
}

fn ftp_on(port: u16) -> Value {
    json!({ "conntrack_helper": { "protocol": "tcp", "port": port, "helper": "ftp" } })
}

fn all_at_once<T: Send>(clients: &mut [Client], work: impl Fn(&mut Client) -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let work = &work;
        let running: Vec<_> = clients
            .iter_mut()
            .map(|client| scope.spawn(move || work(client)))
            .collect();
        let ends = running.into_iter().map(thread::ScopedJoinHandle::join);
        ends.map(|end| end.expect("a client that found all in order"))
            .collect()
    })
}

/// What the agent has acknowledged, by what it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Answers {
    created: BTreeSet<String>,
    deleted: BTreeSet<String>,
    updates: usize,
    refusals: usize,
}

struct Client {
    number: u16,
    connection: Connection,
    path: String,
    random: fastrand::Rng,
    rules: Rules,
    answers: Answers,
}

impl Client {
    fn new(number: u16, socket: &std::path::Path, router: RouterId) -> Self {
        Self {
            number,
            connection: Connection::open(socket),
            path: rules_of(router),
            random: fastrand::Rng::with_seed(number.into()),
            rules: Rules::new(),
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
    fn try_to_create(&mut self, port: u16) -> Result<String, String> {
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

    fn try_to_delete(&mut self, id: &str) -> bool {
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
    fn work(&mut self, changes: usize, holders: &[AtomicUsize]) {
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

/// All want all contended ports, and then each rule's end.
fn race(clients: &mut [Client]) {
    let tried = all_at_once(clients, |client| {
        CONTENDED.map(|port| client.try_to_create(port))
    });
    for (place, port) in CONTENDED.iter().enumerate() {
        let answers: Vec<_> = tried.iter().map(|of_client| &of_client[place]).collect();
        let winners: Vec<_> = answers
            .iter()
            .filter_map(|answer| answer.as_ref().ok())
            .collect();
        assert_eq!(winners.len(), 1, "one has port {port}: {answers:?}");
        let losers = answers.iter().filter_map(|answer| answer.as_ref().err());
        for by in losers {
            assert_eq!(by, winners[0], "the refusal names who has port {port}");
        }
    }
    let winners: Vec<_> = tried
        .iter()
        .flatten()
        .filter_map(|tried| tried.clone().ok())
        .collect();
    let ends = all_at_once(clients, |client| {
        let ends: Vec<_> = winners.iter().map(|id| client.try_to_delete(id)).collect();
        ends
    });
    for (place, id) in winners.iter().enumerate() {
        let ended = ends.iter().filter(|of_client| of_client[place]).count();
        assert_eq!(ended, 1, "one has ended rule {id}");
    }
    for client in clients {
        client.rules.retain(|id, _| !winners.contains(id));
    }
}

/// The trail has each acknowledged change, once, and no others.
fn assert_audited(lab: &Lab, clients: &[Client]) {
    let mut answers = Answers::default();
    for client in clients {
        answers.created.extend(client.answers.created.clone());
        answers.deleted.extend(client.answers.deleted.clone());
        answers.updates += client.answers.updates;
    }
    let mut trail = Answers::default();
    for event in audit::events(lab.dir()) {
        if event["outcome"] != "done" || event["peer"]["kind"] != "local" {
            continue;
        }
        let id = |side: &str| -> String {
            let rules = event[side].as_array().expect("rules");
            assert_eq!(rules.len(), 1, "{event}");
            in_answer(&rules[0]).0
        };
        let is_first = match event["operation"].as_str().expect("an operation") {
            "create" => trail.created.insert(id("after")),
            "delete" => trail.deleted.insert(id("before")),
            "update" => {
                assert_eq!(id("before"), id("after"));
                trail.updates += 1;
                true
            }
            other => panic!("nobody asked for {other}: {event}"),
        };
        assert!(is_first, "a second time: {event}");
    }
    assert_eq!(trail, answers);
}

#[test]
fn ten_clients_change_one_router_and_every_answer_holds() {
    let fixture = Fixture::new(None, BareRouter::new);
    let mut clients = fixture.clients(CLIENTS);
    let holders = CONTENDED.map(|_| AtomicUsize::new(0));
    for _ in 0..ROUNDS {
        race(&mut clients);
        fixture.assert_settled(&clients);
        all_at_once(&mut clients, |client| client.work(CHANGES, &holders));
        fixture.assert_settled(&clients);
    }
    for client in &clients {
        let answers = &client.answers;
        assert!(
            answers.created.len() + answers.deleted.len() + answers.updates >= 1000,
            "{}",
            client.number
        );
        assert!(answers.refusals > 0, "{} met nobody", client.number);
    }
    assert_audited(&fixture.lab, &clients);

    // And it holds beyond the agent's end.
    let Fixture { agent, router, lab } = fixture;
    drop(agent.kill());
    let mapping = stored(lab.dir()).expect("a good store");
    let there: usize = clients.iter().map(|client| client.rules.len()).sum();
    assert!(there > 0);
    assert_eq!(mapping.len(), there);
    router.assert_has(&mapping);
}

fn file(router: RouterId, ports: &[u16]) -> String {
    let rules = ports
        .iter()
        .map(|port| format!("{{ protocol = \"udp\", port = {port}, helper = \"tftp\" }}"));
    let rules = rules.collect::<Vec<_>>().join(", ");
    format!("[[router]]\nid = \"{router}\"\nhelpers = [{rules}]\n")
}

#[test]
fn changes_and_reloads_do_not_undo_each_other() {
    let mut fixture = Fixture::new(Some(""), BareRouter::new);
    let router = fixture.router.id();
    let mut clients = fixture.clients(4);
    let holders = CONTENDED.map(|_| AtomicUsize::new(0));
    let files = [&[69, 6969][..], &[6969, 7070], &[]];
    let mut last = None;
    thread::scope(|scope| {
        let working =
            scope.spawn(|| all_at_once(&mut clients, |client| client.work(150, &holders)));
        for ports in files.iter().cycle() {
            assert_eq!(fixture.agent.reload(&file(router, ports)), Reload::Done);
            // A file's rules are there when it was reloaded, whatever else goes on.
            let mut connection = Connection::open(&socket(&fixture.lab));
            let path = format!("{}?origin=file&sort_key=port", rules_of(router));
            let listed = connection.ask("GET", &path, None);
            assert_eq!(listed.status, 200, "{listed:?}");
            let listed: Vec<_> = listed.body["conntrack_helpers"]
                .as_array()
                .expect("rules")
                .iter()
                .map(in_answer)
                .collect();
            let listed: Vec<_> = listed.iter().map(|(_, port)| *port).collect();
            assert_eq!(listed, *ports);
            last = Some(*ports);
            if working.is_finished() {
                break;
            }
        }
        working.join().expect("clients that found all in order");
    });
    fixture.assert_settled(&clients);
    assert_audited(&fixture.lab, &clients);
    let mapping = stored(fixture.lab.dir()).expect("a good store");
    let entries = mapping.entries().map(|entry| entry.rule);
    let mut of_file: Vec<_> = entries
        .filter(|rule| rule.origin == Origin::File)
        .map(|rule| rule.target.port.get())
        .collect();
    of_file.sort_unstable();
    assert_eq!(Some(&of_file[..]), last);
}

/// nft, which waits while a file is there and says that it does.
struct SlowNft {
    hold: PathBuf,
    waits: PathBuf,
}

impl SlowNft {
    fn new(lab: &Lab) -> Self {
        let at = |name: &str| lab.dir().path().join(name);
        Self {
            hold: at("hold"),
            waits: at("waits"),
        }
    }

    /// It gives up before the agent does, which waits for 30 s.
    fn script(&self) -> String {
        format!(
            "left=400\nwhile [ -e {hold} ] && [ $left -gt 0 ]; do\n\
             : >{waits}; left=$((left - 1)); sleep 0.05\ndone",
            hold = self.hold.display(),
            waits = self.waits.display()
        )
    }
}

#[test]
fn requests_are_answered_while_a_reload_goes_on() {
    let lab = Lab::new();
    let (here, new) = (BareRouter::new(&lab), BareRouter::new(&lab));
    let nft = SlowNft::new(&lab);
    let config = Config::of(&lab).with_nft(&lab, &nft.script());
    let before = file(here.id(), &[69]);
    let mut agent = Agent::start_with(&lab, &config, &before);
    let after = before + &file(new.id(), &[6969]);

    fs::write(&nft.hold, "").expect("the reload is to stop there");
    thread::scope(|scope| {
        let reload = scope.spawn(|| agent.reload(&after));
        let waits = wait::until(Duration::from_secs(20), || nft.waits.exists().then_some(()));
        assert_eq!(waits, Some(()), "the reload has come to its first rule");
        let mut changes = Connection::open(&socket(&lab));
        changes.send("POST", &rules_of(here.id()), Some(&ftp_on(21)));
        for _ in 0..20 {
            let mut connection = Connection::open(&socket(&lab));
            let listed = connection.ask("GET", "/v1/conntrack_helpers", None);
            assert_eq!(listed.status, 200, "{listed:?}");
            let listed = listed.body["conntrack_helpers"].as_array().expect("rules");
            let ports: Vec<_> = listed.iter().map(|rule| in_answer(rule).1).collect();
            assert_eq!(ports, [69], "nothing is seen that isn't in force yet");
            assert_eq!(connection.ask("GET", "/v1/status", None).status, 200);
            // One that can't be right needs no turn.
            let wrong = connection.ask("POST", &rules_of(here.id()), Some(&json!({})));
            assert_eq!(wrong.status, 400, "{wrong:?}");
        }
        assert!(changes.is_silent(), "one change after the other");
        assert!(!reload.is_finished());
        fs::remove_file(&nft.hold).expect("the reload goes on");
        let made = changes.receive();
        assert_eq!(made.status, 201, "{made:?}");
        assert_eq!(reload.join().expect("a reload"), Reload::Done);
    });
    let mapping = stored(lab.dir()).expect("a good store");
    assert_eq!(mapping.len(), 3);
    here.assert_has(&mapping);
    new.assert_has(&mapping);
}
