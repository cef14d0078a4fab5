//! Rules, routers, files and the status, on a daemon that keeps the contract.

use axum::http::Method;
use serde_json::{Value, json};

use super::{A, B, Daemon, Done, Status, ask, contract, id, rule, rules_file, some, with};

#[test]
fn a_rule_is_created_as_asked() {
    let daemon = contract::daemon(Vec::new());
    let create = format!("helper create --router {A} --protocol tcp --port 1720 --helper h323");
    let made = ask(&daemon, &format!("{create} -o json --id {}", id(5))).json();
    assert_eq!(made, rule(5, A, "tcp", 1720, "h323"));
    ask(&daemon, &create).lines();
    let path = format!("/v2.0/routers/{A}/conntrack_helpers");
    let body = json!({"protocol": "tcp", "port": 1720, "helper": "h323"});
    let mut named = body.clone();
    named["id"] = id(5).into();
    let posted = |rule| {
        (
            Method::POST,
            path.clone(),
            json!({ "conntrack_helper": rule }),
        )
    };
    assert_eq!(daemon.asked(), [named, body].map(posted));
}

#[test]
fn rules_are_listed_in_order_all_or_of_a_router() {
    let daemon = contract::daemon(some());
    let ids = |done: &Done| -> Vec<_> {
        let rules = done.json();
        let ids = rules
            .as_array()
            .unwrap()
            .iter()
            .map(|rule| rule["id"].as_str());
        ids.map(|id| id.unwrap().to_owned()).collect()
    };
    let all = ask(&daemon, "helper list -o json");
    assert_eq!(ids(&all), [id(1), id(4), id(2), id(3)]);
    let of_a = ask(&daemon, &format!("-o json helper list --router {A}"));
    assert_eq!(ids(&of_a), [id(1), id(4), id(2)]);
    assert_eq!(all.json()[1], some()[2], "the resource as it is");
    // The order of the fields is the API's, whatever order they came in.
    let places = ["\"id\"", "\"router_id\"", "\"protocol\""].map(|key| all.out.find(key));
    assert!(places.is_sorted(), "{}", all.out);

    let table = ask(&daemon, "helper list");
    let lines = table.lines();
    assert_eq!(lines.len(), 5, "{table:?}");
    assert!(lines[0].starts_with("ROUTER "), "{table:?}");
    let words: Vec<_> = lines[1].split_whitespace().collect();
    assert_eq!(words, [A, &id(1), "tcp/21", "ftp", "api", "active", "-"]);
    assert!(lines[2].ends_with("shadowed  rule 1 is older"), "{table:?}");

    let empty = contract::daemon(Vec::new());
    assert_eq!(ask(&empty, "helper list -o json").out, "[]\n");
    assert_eq!(ask(&empty, "helper list").lines().len(), 1, "the header");
}

#[test]
fn fields_of_a_newer_daemon_are_kept() {
    let newer = with(rule(1, A, "tcp", 21, "ftp"), "colour", "green");
    let daemon = contract::daemon(vec![newer.clone()]);
    let shown = ask(&daemon, &format!("helper show {} -o json", id(1)));
    assert_eq!(shown.json(), newer);
}

#[test]
fn a_rule_is_shown_set_and_deleted_by_its_id_alone() {
    let daemon = contract::daemon(some());
    let shown = ask(&daemon, &format!("helper show {}", id(4)));
    let lines = shown.lines();
    assert!(lines.contains(&&*format!("router    {A}")), "{shown:?}");
    assert!(lines.contains(&"reason    rule 1 is older"), "{shown:?}");

    let third = id(3);
    let set = ask(&daemon, &format!("helper set {third} --port 6969 -o json")).json();
    assert_eq!(set, rule(3, B, "udp", 6969, "tftp"));
    let path = format!("/v2.0/routers/{B}/conntrack_helpers/{third}");
    let body = json!({ "conntrack_helper": {"port": 6969} });
    let last = || daemon.asked().pop().unwrap();
    assert_eq!(last(), (Method::PUT, path.clone(), body));

    let gone = ask(&daemon, &format!("helper delete {third}"));
    let sentence = format!("rule {third} is gone; router {B}: tftp on udp port 6969");
    assert_eq!(gone.lines(), [sentence]);
    assert_eq!(last(), (Method::DELETE, path, Value::Null));
    for command in ["show", "delete", "set --port 1"] {
        let again = ask(&daemon, &format!("helper {command} {third}"));
        again.fails(Status::Failure, &[&format!("there is no rule {third}\n")]);
        assert_eq!(last().0, Method::GET, "{command}: nothing else is tried");
    }
    let gone = ask(&daemon, &format!("helper delete {} -o json", id(1))).json();
    assert_eq!(gone, rule(1, A, "tcp", 21, "ftp"));
}

#[test]
fn routers_are_listed_shown_and_cleared_of_the_apis_rules() {
    let daemon = contract::daemon(some());
    let list = ask(&daemon, "router list");
    let ids: Vec<_> = list.lines()[1..].iter().map(|line| &line[..36]).collect();
    assert_eq!(ids, [A, B]);
    let shown = ask(&daemon, &format!("router show {A} -o json"));
    assert_eq!(shown.json()["rules"], 3);
    let shown = ask(&daemon, &format!("router show {A}"));
    let namespace = format!("snat-{A}");
    let words: Vec<_> = shown.lines().into_iter().map(str::trim).collect();
    assert!(words.contains(&&*namespace), "{shown:?}");

    for said in [": 2 rules are gone", " had no rules of the API"] {
        let cleared = ask(&daemon, &format!("router clear {A}"));
        assert_eq!(cleared.lines(), [format!("router {A}{said}")]);
    }
    let cleared = ask(&daemon, &format!("router clear {B} -o json")).json();
    assert_eq!(cleared, json!([rule(3, B, "udp", 69, "tftp")]));
    let left = ask(&daemon, "helper list -o json").json();
    assert_eq!(left, json!([some()[1]]), "the file's rule stays");

    let unknown = id(1);
    for verb in ["show", "clear"] {
        let done = ask(&daemon, &format!("router {verb} {unknown}"));
        done.fails(Status::Failure, &["no router", &unknown]);
    }
}

#[test]
fn a_file_is_applied_or_compared() {
    let daemon = contract::daemon(some());
    let (_folder, file) = rules_file(&format!(
        "[[router]]\nid = \"{A}\"\nhelpers = [ {{ protocol = \"tcp\", port = 21, helper = \"ftp\" }}, \
         {{ protocol = \"udp\", port = 1719, helper = \"h323\" }} ]\n\
         [[router]]\nid = \"{B}\"\nhelpers = []\n"
    ));
    let lines = [
        format!("- router {A}: sane on tcp port 21"),
        format!("+ router {A}: RAS on udp port 1719"),
        format!("- router {B}: tftp on udp port 69"),
    ];
    let list = || ask(&daemon, "helper list -o json").json();
    let apply = |option: &str| ask(&daemon, &format!("apply {file}{option}"));

    let before = list();
    for (option, end, changes) in [
        (" --dry-run", "1 to add, 2 to remove, 1 unchanged", false),
        ("", "1 added, 2 removed, 1 unchanged", true),
    ] {
        let expected = [&lines[..], &[end.to_owned()]].concat();
        assert_eq!(apply(option).lines(), expected);
        assert_eq!(list() != before, changes, "apply{option}");
    }
    assert_eq!(apply("").lines(), ["0 added, 0 removed, 2 unchanged"]);
    let again = apply(" -o json").json();
    assert_eq!(again, json!({"added": [], "removed": [], "unchanged": 2}));
    let (method, path, body) = daemon.asked().pop().unwrap();
    assert_eq!((method, &*path), (Method::PUT, "/v1/conntrack_helpers"));
    let sent = json!({ "routers": [{ "id": A, "conntrack_helpers": [
        {"protocol": "tcp", "port": 21, "helper": "ftp"},
        {"protocol": "udp", "port": 1719, "helper": "RAS"},
    ]}]});
    assert_eq!(body, sent);
}

#[test]
fn a_faulty_file_is_refused_with_every_fault_before_anybody_is_asked() {
    let daemon = contract::daemon(some());
    let (folder, file) = rules_file("[[router]]\nid = \"x\"\nhelpers = [ { port = 0 } ]\n");
    let faults = ["line 2", "line 3", "1 to 65535", "protocol is missing"];
    ask(&daemon, &format!("apply {file}")).fails(Status::Configuration, &faults);
    let missing = folder.path().join("none.toml");
    let refused = ask(&daemon, &format!("apply {}", missing.display()));
    refused.fails(Status::Configuration, &["none.toml", "cannot be read"]);
    assert_eq!(daemon.asked(), []);
    // An empty file is a good one.
    let (_folder, file) = rules_file("");
    let emptied = ask(&daemon, &format!("apply {file}"));
    assert_eq!(
        emptied.lines().last(),
        Some(&"0 added, 3 removed, 0 unchanged")
    );
}

#[test]
fn status_is_a_few_lines_or_the_resource() {
    let daemon = contract::daemon(Vec::new());
    let said = ask(&daemon, "status");
    let expected = [
        "NEEDS A LOOK: 1 router failed".to_owned(),
        "rules: 4 (1 active, 1 pending, 1 shadowed, 1 failed)".to_owned(),
        "routers: 3 (1 active, 1 pending, 1 failed)".to_owned(),
        format!(
            "conntrack-agent 0.1.0, pid 42, up 1h 2m 5s, agent {}",
            id(7)
        ),
        format!("router {B} failed 3 times: no nft"),
    ];
    assert_eq!(said.lines(), expected);
    let mut status = contract::status();
    status["rules"] = json!({
        "total": 3, "active": 1, "degraded": 2, "pending": 0, "shadowed": 0, "failed": 0
    });
    status["routers"] = json!({ "total": 1, "active": 1, "pending": 0, "failed": 0 });
    status["connections"] = json!({ "helped": 7, "lacking": 2, "unknown": 1 });
    status["troubles"] = json!([]);
    let degraded = ask(&Daemon::saying(200, &status.to_string()), "status");
    let expected = [
        "NEEDS A LOOK: 2 rules degraded",
        "rules: 3 (1 active, 2 degraded)",
        "routers: 1 (1 active)",
        "connections: 7 with their helper, 2 without, 1 unknown",
    ];
    assert_eq!(degraded.lines()[..4], expected);
    status["rules"]["degraded"] = 0.into();
    let well = ask(&Daemon::saying(200, &status.to_string()), "status");
    assert_eq!(well.lines()[0], "all is well");
    let resource = ask(&daemon, "status -o json").json();
    assert_eq!(resource["troubles"][0]["failures"], 3);
    assert_eq!(resource["uptime_seconds"], 3725);
}
