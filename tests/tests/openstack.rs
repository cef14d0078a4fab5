//! OpenStack's own command line client against the agent, over TCP with a token.
//!
//! The client comes from `PyPI`, as it is, into a virtual environment that goes
//! with this program. What it can be asked about helper rules is asked; what it
//! says is compared with what the kernel and the store have.
#![expect(
    clippy::expect_used,
    reason = "tests panic, where and with what they found"
)]

#[path = "openstack/fixture.rs"]
mod fixture;

use std::collections::BTreeSet;

use conntrack_agent::model::Protocol::{Tcp, Udp};
use serde_json::{Value, json};

use fixture::{CI, Fixture, LOOK, STRAY, assert_refused, command, run};

/// A token that isn't in the file.
const UNKNOWN: &str = "unknown-0123456789abcdef";

const NOWHERE: &str = "11111111-1111-4111-8111-111111111111";

#[test]
fn a_rule_is_made_listed_shown_changed_and_removed() {
    let fixture = Fixture::new();
    let router = &fixture.router;
    let helper = |words: &str| fixture.helper(words);
    fixture.assert_settled(&[]);
    assert_eq!(helper(&format!("list {router} -f json")).json(), json!([]));
    let ftp = fixture.made("ftp", "tcp", 21);
    fixture.assert_settled(&[("ftp", Tcp, 21)]);
    let tftp = fixture.made("tftp", "udp", 69);
    fixture.assert_settled(&[("ftp", Tcp, 21), ("tftp", Udp, 69)]);

    let first = json!({
        "ID": ftp, "Router ID": router, "Helper": "ftp", "Protocol": "tcp", "Port": 21 });
    let second = json!({
        "ID": tftp, "Router ID": router, "Helper": "tftp", "Protocol": "udp", "Port": 69 });
    let [first, second] = [first.to_string(), second.to_string()];
    let marked = format!("--marker {}", (&ftp).min(&tftp));
    let later = if ftp < tftp { &second } else { &first };
    for (words, rows) in [
        ("", vec![&first, &second]),
        ("--helper ftp", vec![&first]),
        ("--protocol udp", vec![&second]),
        ("--protocol udp --helper ftp", vec![]),
        // A page has one rule, and the client asks for all of them.
        ("--limit 1", vec![&first, &second]),
        (&marked, vec![later]),
    ] {
        let listed = helper(&format!("list {router} {words} -f json")).json();
        let listed = listed.as_array().expect("rules").iter();
        let listed: BTreeSet<_> = listed.map(Value::to_string).collect();
        assert_eq!(listed, rows.into_iter().cloned().collect(), "{words}");
    }
    // For people.
    let table = helper(&format!("list {router}")).good();
    for word in ["| ID ", "| Router ID ", "| Helper ", &ftp, &tftp, router] {
        assert!(table.contains(word), "no {word:?} in {table}");
    }
    let shown = helper(&format!("show {router} {tftp} -f value -c helper -c port"));
    assert_eq!(shown.good(), "tftp\n69\n");

    for (words, now) in [
        ("--port 2121", ("ftp", Tcp, 2121)),
        ("--helper sip --protocol udp", ("sip", Udp, 2121)),
    ] {
        let changed = helper(&format!("set {router} {ftp} {words}"));
        assert_eq!(changed.good(), "");
        fixture.assert_settled(&[now, ("tftp", Udp, 69)]);
    }
    let shown = helper(&format!("show {router} {ftp} -f json")).json();
    let expected =
        json!({ "helper": "sip", "id": ftp, "name": null, "port": 2121, "protocol": "udp" });
    assert_eq!(shown, expected, "it is still the same rule");

    // The good one goes, whatever else the command asks for.
    let removed = helper(&format!("delete {router} {NOWHERE} {ftp}"));
    let missing = format!("Conntrack helper {NOWHERE} could not be found");
    for sentence in [&missing[..], "1 of 2 L3 conntrack helpers failed to delete"] {
        assert_refused(&removed, "delete", 1, sentence);
    }
    fixture.assert_settled(&[("tftp", Udp, 69)]);
    assert_eq!(helper(&format!("delete {router} {tftp}")).good(), "");
    fixture.assert_settled(&[]);
    assert_eq!(helper(&format!("list {router} -f json")).json(), json!([]));
}

#[test]
fn what_is_wrong_is_refused_with_a_reason_and_changes_nothing() {
    let fixture = Fixture::new();
    let router = &fixture.router;
    let id = fixture.made("ftp", "tcp", 21);
    let create = |router: &str, helper: &str, protocol: &str, port: &str| {
        format!("create {router} --helper {helper} --protocol {protocol} --port {port}")
    };
    let no_router = format!("No Router found for {NOWHERE}");
    let no_rule = format!("Conntrack helper {NOWHERE} could not be found");
    let taken = format!("has ftp on tcp port 21 already, as rule {id}");
    #[rustfmt::skip]
    let rows = [
        // The first five are the client's own words.
        (create(NOWHERE, "ftp", "tcp", "21"), 1, no_router.as_str()),
        (format!("list {NOWHERE}"), 1, &no_router),
        (format!("delete {NOWHERE} {id}"), 1, &no_router),
        (create("nobody", "ftp", "tcp", "21"), 1, "No Router found for nobody"),
        (create(router, "ftp", "tcp", "abc"), 2, "argument --port: invalid int value: 'abc'"),
        // It leaves out what Python takes for false.
        (create(router, "ftp", "tcp", "0"), 1, "the body is refused: missing field `port`"),
        (create(router, "ftp", "tcp", "65536"), 1, "port 65536 is out of range; 1 to 65535 are allowed"),
        (create(router, "ftp", "tcp", "-1"), 1, "port -1 is out of range; 1 to 65535 are allowed"),
        (create(router, "gopher", "tcp", "70"), 1, "there is no helper \"gopher\"; ftp, tftp, "),
        (create(router, "ftp", "udp", "21"), 1, "helper ftp does not exist for udp; it is for tcp"),
        (create(router, "ftp", "sctp", "21"), 1, "\"sctp\" is no protocol; \"tcp\" and \"udp\" are"),
        (create(router, "ftp", "tcp", "21"), 1, &taken),
        (format!("show {router} {NOWHERE}"), 1, &no_rule),
        (format!("show {router} x"), 1, "Conntrack helper x could not be found"),
        (format!("set {router} {NOWHERE} --port 22"), 1, &no_rule),
        (format!("delete {router} {NOWHERE}"), 1, &no_rule),
        (format!("set {router} {id} --port 65536"), 1, "port 65536 is out of range; 1 to 65535 are allowed"),
        (format!("set {router} {id} --helper gopher"), 1, "there is no helper \"gopher\""),
        (format!("set {router} {id} --protocol udp"), 1, "helper ftp does not exist for udp; it is for tcp"),
        (format!("list {router} --limit 0"), 1, "limit is \"0\"; a whole number from 1 to 10000 is wanted"),
        (format!("list {router} --marker {NOWHERE}"), 1, "which is the id of no item of this list"),
    ];
    for (words, code, sentence) in rows {
        assert_refused(&fixture.helper(&words), &words, code, sentence);
    }
    // Here the client has nothing left to ask for, and doesn't.
    let zero = fixture.helper(&format!("set {router} {id} --port 0"));
    assert_eq!(zero.good(), "");
    fixture.assert_settled(&[("ftp", Tcp, 21)]);
}

#[test]
fn a_token_allows_what_its_grant_says() {
    let fixture = Fixture::new();
    let router = &fixture.router;
    let id = fixture.made("ftp", "tcp", 21);
    let reader = "grant 2 (role reader) allows no change";
    let changes = [
        format!("create {router} --helper tftp --protocol udp --port 69"),
        format!("set {router} {id} --port 2121"),
        format!("delete {router} {id}"),
    ];
    for words in &changes {
        assert_refused(&fixture.helper_as(LOOK, words), words, 1, reader);
    }
    let list = format!("list {router} -f value -c ID");
    let seen = fixture.helper_as(LOOK, &list).good();
    assert_eq!(seen, format!("{id}\n"), "a reader reads");
    for (token, sentence) in [
        (UNKNOWN, "the token is not known"),
        (STRAY, "no grant names token \"stray\""),
        // keystoneauth's own.
        ("", "missing 1 required positional argument: 'token'"),
    ] {
        for words in [&changes[0], &list] {
            let refused = fixture.helper_as(token, words);
            assert_refused(&refused, words, 1, sentence);
            assert!(token.is_empty() || !refused.stderr.contains(token));
        }
    }
    // A client that sends none asks for the versions, and keeps to itself why
    // it didn't get them.
    let without = |words: &str| {
        let mut command = command("openstack");
        command
            .env("OS_AUTH_TYPE", "none")
            .env("OS_ENDPOINT", &fixture.endpoint)
            .args(["network", "l3", "conntrack", "helper"])
            .args(words.split_whitespace());
        run(command)
    };
    let unfound = "Unable to find a version discovery document";
    assert_refused(&without(&list), &list, 1, unfound);
    let why = without(&format!("{list} --debug"));
    assert_eq!(why.code, Some(1), "{why:?}");
    let wanted = "a token is wanted, in the header X-Auth-Token";
    assert!(why.stderr.contains(wanted), "{why:?}");
    fixture.assert_settled(&[("ftp", Tcp, 21)]);

    // Nor does the agent tell anybody.
    let exit = fixture.served.agent.stop();
    assert_eq!(exit.code, Some(0), "{exit:?}");
    assert!(exit.stderr.contains("ready"), "{exit:?}");
    for token in [CI, LOOK, STRAY, UNKNOWN] {
        assert!(!exit.stderr.contains(token) && !exit.stdout.contains(token));
    }
}

/// What keystoneauth makes of the answers, as clients other than this one do.
const DISCOVER: &str = r"
import json, sys
from keystoneauth1 import discover, session, token_endpoint
auth = token_endpoint.Token(sys.argv[1], sys.argv[2])
client = session.Session(auth=auth)
found = discover.get_discovery(client, sys.argv[1])
endpoint = auth.get_endpoint_data(client, service_type='network')
resources = client.get(endpoint.url).json()['resources']
print(json.dumps({
    'versions': [[one['url'], one['status']] for one in found.version_data()],
    'second': found.url_for('2'),
    'third': found.url_for('3'),
    'endpoint': [endpoint.url, list(endpoint.api_version)],
    'resources': [one['collection'] for one in resources],
}))
";

#[test]
fn the_version_and_routers_are_found() {
    let fixture = Fixture::new();
    let router = &fixture.router;
    let mut python = command("python");
    python.args(["-c", DISCOVER, &fixture.endpoint, CI]);
    let version = format!("{}/v2.0/", fixture.endpoint);
    let expected = json!({
        "versions": [[version, "CURRENT"]],
        "second": version,
        "third": null,
        "endpoint": [version, [2, 0]],
        "resources": ["routers"],
    });
    assert_eq!(run(python).json(), expected);

    // The endpoint may name the version, or not. (After "/v2.0/" openstacksdk
    // puts another v2.0, whatever server it is.)
    for end in ["/", "/v2.0"] {
        let mut openstack = command("openstack");
        openstack
            .args(["--os-auth-type", "admin_token", "--os-token", CI])
            .args(["--os-endpoint", &format!("{}{end}", fixture.endpoint)])
            .args(["network", "l3", "conntrack", "helper", "list", router])
            .args(["-f", "json"]);
        assert_eq!(run(openstack).json(), json!([]), "{end}");
    }

    let named = |name: &str| {
        let words = format!("router list --name {name} -f value -c ID -c Name -c Status");
        fixture.openstack(CI, &words).good()
    };
    assert_eq!(named(router), format!("{router} {router} ACTIVE\n"));
    assert_eq!(named("nobody").trim(), "");

    // Nothing else is asked for on the way.
    let words = format!("create {router} --helper ftp --protocol tcp --port 21 --debug");
    let said = fixture.helper(&words);
    assert_eq!(said.code, Some(0), "{said:?}");
    let asked = said.stderr.lines().filter_map(|line| {
        let (_, request) = line.split_once("REQ: curl -g -i -X ")?;
        let mut words = request.split_whitespace();
        Some(format!("{} {}", words.next()?, words.next()?))
    });
    let of_router = format!("{version}routers/{router}");
    let [found, made] = ["GET", "POST"].map(|method| format!("{method} {of_router}"));
    let wanted = [found, format!("{made}/conntrack_helpers")];
    assert_eq!(asked.collect::<Vec<_>>(), wanted);
    fixture.assert_settled(&[("ftp", Tcp, 21)]);
}
