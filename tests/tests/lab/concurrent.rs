//! Many clients at once: no change is lost, and none is made twice.

mod client;
mod reload;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicUsize;
use std::thread;

use conntrack_agent::model::Origin;
use conntrack_tests::agent::Reload;
use conntrack_tests::audit;
use conntrack_tests::durable::{BareRouter, stored};
use conntrack_tests::helpers::Rule;
use conntrack_tests::lab::Lab;
use conntrack_tests::served::{LabBuilder, Served};
use serde_json::{Value, json};

use client::{Answers, Client};

const CLIENTS: u16 = 10;
const ROUNDS: u64 = 4;
/// In a round, by each client.
const CHANGES: usize = 250;
/// That one client alone uses.
const OWN: u16 = 20;
/// Ports that all want.
const CONTENDED: [u16; 8] = [21, 22, 23, 24, 25, 26, 27, 28];

/// The port of each rule, by its id, as the answers have them.
type PortsById = BTreeMap<String, u16>;

/// A router and an agent; a client may have to wait for all others, and all of
/// the trail is in one file.
fn builder() -> LabBuilder {
    Served::builder().config(|config| {
        config
            .with("api", "{ limits = { header_seconds = 600 } }")
            .with("audit", "{ max_bytes = 1_073_741_824 }")
    })
}

fn clients(served: &Served, count: u16) -> Vec<Client> {
    let client = |number| Client::new(number, &served.socket(), served.router.id());
    (0..count).map(client).collect()
}

/// That the API, the store and the kernel have these rules of the API's
/// and no others.
fn assert_settled(served: &Served, clients: &[Client]) {
    let mut wanted = PortsById::new();
    for client in clients {
        wanted.extend(client.rules.clone());
    }
    assert_eq!(wanted.len(), count_of(clients), "no two rules have one id");
    let mapping = stored(served.lab.dir()).expect("a good store");
    let entries = mapping.entries().map(|entry| entry.rule);
    let of_api = entries.filter(|rule| rule.origin == Origin::Api);
    let kept: PortsById = of_api
        .map(|rule| (rule.id.to_string(), rule.target.port.get()))
        .collect();
    assert_eq!(kept, wanted, "the store has what the answers said");
    served.router.assert_has(&mapping);
    let mut connection = served.connect();
    let path = format!("{}?origin=api", served.rules());
    let listed = connection.ask("GET", &path, None);
    let listed = listed.body["conntrack_helpers"].as_array().expect("rules");
    let listed: PortsById = listed.iter().map(in_answer).collect();
    assert_eq!(listed, wanted, "the list has what the answers said");
}

fn count_of(clients: &[Client]) -> usize {
    clients.iter().map(|client| client.rules.len()).sum()
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
    let fixture = builder().start();
    let mut clients = clients(&fixture, CLIENTS);
    let holders = CONTENDED.map(|_| AtomicUsize::new(0));
    for _ in 0..ROUNDS {
        race(&mut clients);
        assert_settled(&fixture, &clients);
        all_at_once(&mut clients, |client| client.work(CHANGES, &holders));
        assert_settled(&fixture, &clients);
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
    let Served { agent, router, lab } = fixture;
    drop(agent.kill());
    let mapping = stored(lab.dir()).expect("a good store");
    let there = count_of(&clients);
    assert!(there > 0);
    assert_eq!(mapping.len(), there);
    router.assert_has(&mapping);
}

/// The rules file that gives a router TFTP's helper on these ports.
fn file(router: &BareRouter, ports: &[u16]) -> String {
    let rules: Vec<_> = ports.iter().map(|port| Rule::tftp(*port)).collect();
    router.rules_file(&rules)
}

#[test]
fn changes_and_reloads_do_not_undo_each_other() {
    let mut fixture = builder().no_rules().start();
    let mut clients = clients(&fixture, 4);
    let holders = CONTENDED.map(|_| AtomicUsize::new(0));
    let files = [&[69, 6969][..], &[6969, 7070], &[]];
    let mut last = None;
    thread::scope(|scope| {
        let working =
            scope.spawn(|| all_at_once(&mut clients, |client| client.work(150, &holders)));
        for ports in files.iter().cycle() {
            assert_eq!(
                fixture.agent.reload(&file(&fixture.router, ports)),
                Reload::Done
            );
            // A file's rules are there when it was reloaded, whatever else goes on.
            let mut connection = fixture.connect();
            let path = format!("{}?origin=file&sort_key=port", fixture.rules());
            let listed = connection.ask("GET", &path, None);
            assert_eq!(listed.status, 200, "{listed:?}");
            let listed = listed.body["conntrack_helpers"].as_array().expect("rules");
            let listed: Vec<_> = listed.iter().map(|rule| in_answer(rule).1).collect();
            assert_eq!(listed, *ports);
            last = Some(*ports);
            if working.is_finished() {
                break;
            }
        }
        working.join().expect("clients that found all in order");
    });
    assert_settled(&fixture, &clients);
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
