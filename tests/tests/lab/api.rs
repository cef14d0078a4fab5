//! The control API over its Unix socket, with curl: requests and their answers.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};

use conntrack_tests::agent::{Agent, Config};
use conntrack_tests::curl::{Answer, curl};
use conntrack_tests::helpers::Rule;
use conntrack_tests::served::{Served, rules_of};
use serde_json::{Value, json};
use uuid::Uuid;

const FTP: &str = r#"{"conntrack_helper":{"protocol":"tcp","port":21,"helper":"ftp"}}"#;

#[test]
fn a_rule_is_made_listed_shown_changed_and_removed() {
    let fixture = Served::new();
    let rules = fixture.rules();
    let router = fixture.router.id().to_string();

    let made = fixture.ask("POST", &rules, FTP);
    assert_eq!(made.status, 201, "{made:?}");
    let rule = &made.body["conntrack_helper"];
    let id = rule["id"].as_str().expect("an id").to_owned();
    let expected = json!({
        "id": id, "router_id": router, "protocol": "tcp", "port": 21, "helper": "ftp",
        "origin": "api", "status": "active", "status_reason": null,
    });
    assert_eq!(*rule, expected);
    // Not later than the answer.
    fixture.assert_settled(1);

    let path = format!("{rules}/{id}");
    let shown = fixture.ask("GET", &path, "");
    assert_eq!(shown.status, 200, "{shown:?}");
    assert_eq!(shown.body["conntrack_helper"], expected);
    let listed = fixture.ask("GET", &rules, "");
    assert_eq!(listed.body, json!({ "conntrack_helpers": [expected] }));

    let changed = fixture.ask("PUT", &path, r#"{"conntrack_helper":{"port":2121}}"#);
    assert_eq!(changed.status, 200, "{changed:?}");
    let mut moved = expected.clone();
    moved["port"] = json!(2121);
    assert_eq!(changed.body["conntrack_helper"], moved);
    fixture.assert_settled(1);

    let removed = fixture.ask("DELETE", &path, "");
    assert_eq!((removed.status, &removed.body), (204, &Value::Null));
    fixture.assert_settled(0);
    let gone = fixture.ask("GET", &path, "");
    assert_eq!((gone.status, gone.kind()), (404, "ConntrackHelperNotFound"));
}

#[test]
fn several_rules_are_made_replaced_and_applied_at_once() {
    let fixture = Served::new();
    let rules = fixture.rules();
    let bulk = r#"{"conntrack_helpers":[{"protocol":"tcp","port":21,"helper":"ftp"},
        {"protocol":"udp","port":69,"helper":"tftp"},{"protocol":"tcp","port":21,"helper":"sane"}]}"#;
    let made = fixture.ask("POST", &rules, bulk);
    assert_eq!(made.status, 201, "{made:?}");
    let statuses = [0, 1, 2].map(|rule| &made.body["conntrack_helpers"][rule]["status"]);
    assert_eq!(statuses, ["active", "active", "shadowed"]);
    assert!(made.body["conntrack_helpers"].get(3).is_none());
    fixture.assert_settled(3);
    let ftp = made.body["conntrack_helpers"][0]["id"].clone();

    // The winner goes, the one behind it takes over.
    let path = format!("{rules}/{}", ftp.as_str().expect("an id"));
    assert_eq!(fixture.ask("DELETE", &path, "").status, 204);
    let listed = fixture.ask("GET", &format!("{rules}?helper=sane"), "");
    assert_eq!(listed.body["conntrack_helpers"][0]["status"], "active");
    fixture.assert_settled(2);

    let set = r#"{"conntrack_helpers":[{"protocol":"udp","port":69,"helper":"tftp"},
        {"protocol":"tcp","port":2121,"helper":"ftp"}]}"#;
    let replaced = fixture.ask("PUT", &rules, set);
    assert_eq!(replaced.status, 200, "{replaced:?}");
    assert_eq!(
        replaced.body["conntrack_helpers"].as_array().map(Vec::len),
        Some(2)
    );
    fixture.assert_settled(2);

    let other = Uuid::new_v4();
    let all = json!({ "routers": [
        { "id": fixture.router.id().to_string(), "conntrack_helpers": [
            { "protocol": "tcp", "port": 2121, "helper": "ftp" } ] },
        { "id": other.to_string(), "conntrack_helpers": [
            { "protocol": "udp", "port": 5060, "helper": "sip" } ] },
    ] });
    let before = fixture.ask("GET", "/v1/conntrack_helpers", "");
    let rehearse = "/v1/conntrack_helpers?dry_run=true";
    let dry = fixture.ask("PUT", rehearse, &all.to_string());
    let sizes = |answer: &Answer| {
        let count = |key: &str| answer.body[key].as_array().map(Vec::len);
        (
            answer.status,
            count("added"),
            count("removed"),
            answer.body["unchanged"].as_u64(),
        )
    };
    assert_eq!(sizes(&dry), (200, Some(1), Some(1), Some(1)), "{dry:?}");
    let after = fixture.ask("GET", "/v1/conntrack_helpers", "");
    assert_eq!(after.body, before.body);
    fixture.assert_settled(2);
    let applied = fixture.ask("PUT", "/v1/conntrack_helpers", &all.to_string());
    assert_eq!(sizes(&applied), sizes(&dry), "{applied:?}");
    fixture.assert_settled(2);
    let pending = fixture.ask("GET", &rules_of(other), "");
    assert_eq!(pending.body["conntrack_helpers"][0]["status"], "pending");
    let router = fixture.ask("GET", &format!("/v2.0/routers/{other}"), "");
    assert_eq!(router.body["router"]["status"], "PENDING", "{router:?}");

    let status = fixture.ask("GET", "/v1/status", "");
    let rules = json!({ "total": 2, "active": 1, "degraded": 0, "pending": 1, "shadowed": 0,
        "failed": 0 });
    assert_eq!(status.body["rules"], rules);
    let routers = json!({ "total": 2, "active": 1, "pending": 1, "failed": 0 });
    assert_eq!(status.body["routers"], routers);
    let empty = fixture.ask("PUT", "/v1/conntrack_helpers", r#"{"routers":[]}"#);
    assert_eq!(sizes(&empty), (200, Some(0), Some(2), Some(0)));
    fixture.assert_settled(0);
}

#[test]
fn lists_are_filtered_sorted_and_paged() {
    let fixture = Served::new();
    let rules = fixture.rules();
    let bulk: Vec<_> = (1..=7)
        .map(|number| json!({ "protocol": "tcp", "port": number * 10, "helper": "ftp" }))
        .collect();
    let bulk = json!({ "conntrack_helpers": bulk }).to_string();
    assert_eq!(fixture.ask("POST", &rules, &bulk).status, 201);
    let ports = |query: &str| -> Vec<u64> {
        let listed = fixture.ask("GET", &format!("{rules}?{query}"), "");
        assert_eq!(listed.status, 200, "{query}: {listed:?}");
        let rules = listed.body["conntrack_helpers"].as_array().expect("rules");
        let ports = rules.iter().map(|rule| rule["port"].as_u64());
        ports.map(|port| port.expect("a port")).collect()
    };
    assert_eq!(ports("port=20&port=70&sort_key=port"), [20, 70]);
    assert_eq!(ports("protocol=udp"), [0_u64; 0]);
    assert_eq!(ports("sort_key=port&sort_dir=desc&limit=3"), [70, 60, 50]);
    let last = fixture.ask("GET", &format!("{rules}?port=50"), "");
    let marker = last.body["conntrack_helpers"][0]["id"].as_str();
    let page = format!(
        "sort_key=port&sort_dir=desc&limit=3&marker={}",
        marker.expect("an id")
    );
    assert_eq!(ports(&page), [40, 30, 20]);
    let fields = fixture.ask("GET", &format!("{rules}?fields=port&port=10"), "");
    assert_eq!(
        fields.body,
        json!({ "conntrack_helpers": [{ "port": 10 }] })
    );
}

/// Everything that must be refused, and nothing of it may happen.
#[test]
fn what_is_wrong_is_refused_with_a_reason_and_changes_nothing() {
    let fixture = Served::new();
    let rules = fixture.rules();
    let made = fixture.ask("POST", &rules, FTP);
    let id = made.body["conntrack_helper"]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let rule = format!("{rules}/{id}");
    let elsewhere = rules_of(Uuid::new_v4());
    let no_rule = format!("{rules}/{}", Uuid::new_v4());
    let body = |rule: &str| format!(r#"{{"conntrack_helper":{{{rule}}}}}"#);
    let tcp = |port: &str| body(&format!(r#""protocol":"tcp","port":{port},"helper":"ftp""#));
    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    let same_twice = r#"{"conntrack_helpers":[{"protocol":"tcp","port":5,"helper":"ftp"},{"protocol":"tcp","port":5,"helper":"ftp"}]}"#;
    let one_wrong = r#"{"conntrack_helpers":[{"protocol":"tcp","port":5,"helper":"ftp"},{"protocol":"tcp","port":6,"helper":"gopher"}]}"#;
    let taken = body(&format!(
        r#""protocol":"tcp","port":22,"helper":"ftp","id":"{id}""#
    ));
    #[rustfmt::skip]
    let rows: Vec<(&str, &str, String, u16, &str, &str)> = vec![
        ("POST", &rules, tcp("0"), 400, "InvalidInput", "1 to 65535"),
        ("POST", &rules, tcp("65536"), 400, "InvalidInput", "65536"),
        ("POST", &rules, tcp("-1"), 400, "InvalidInput", "-1"),
        ("POST", &rules, tcp("21.0"), 400, "InvalidInput", "whole number"),
        ("POST", &rules, tcp("\"21\""), 400, "InvalidInput", "whole number"),
        ("POST", &rules, tcp("null"), 400, "InvalidInput", "port"),
        ("POST", &rules, tcp("1e400"), 400, "InvalidInput", "out of range"),
        ("POST", &rules, tcp("21"), 400, "BadRequest", "already"),
        ("POST", &rules, body(r#""protocol":"udp","port":21,"helper":"ftp""#), 400, "InvalidProtocolForHelper", "tcp"),
        ("POST", &rules, body(r#""protocol":"tcp","port":70,"helper":"gopher""#), 400, "ConntrackHelperNotAllowed", "gopher"),
        ("POST", &rules, body(r#""protocol":"sctp","port":70,"helper":"ftp""#), 400, "InvalidInput", "sctp"),
        ("POST", &rules, body(r#""protocol":"tcp","port":70"#), 400, "InvalidInput", "helper"),
        ("POST", &rules, body(r#""protocol":"tcp","port":70,"helper":"ftp","colour":1"#), 400, "InvalidInput", "colour"),
        ("POST", &rules, body(r#""protocol":"tcp","port":70,"port":71,"helper":"ftp""#), 400, "InvalidInput", "duplicate"),
        ("POST", &rules, body(r#""protocol":"tcp","port":70,"helper":"ftp","id":"x""#), 400, "InvalidInput", "UUID"),
        ("POST", &rules, taken, 409, "Conflict", "already"),
        ("POST", &rules, "{}".into(), 400, "InvalidInput", "conntrack_helper"),
        ("POST", &rules, "[]".into(), 400, "InvalidInput", "refused"),
        ("POST", &rules, "{".into(), 400, "InvalidInput", "refused"),
        ("POST", &rules, deep, 400, "InvalidInput", "refused"),
        ("POST", &rules, same_twice.into(), 400, "BadRequest", "rule 1"),
        ("POST", &rules, one_wrong.into(), 400, "ConntrackHelperNotAllowed", "gopher"),
        ("PUT", &rules, same_twice.into(), 400, "BadRequest", "already"),
        ("PUT", &rules, r#"{"conntrack_helpers":1}"#.into(), 400, "InvalidInput", "refused"),
        ("PUT", &rule, body(r#""port":0"#), 400, "InvalidInput", "65535"),
        ("PUT", &rule, body(r#""protocol":"udp""#), 400, "InvalidProtocolForHelper", "tcp"),
        ("PUT", &rule, body(r#""router_id":"x""#), 400, "InvalidInput", "router_id"),
        ("PUT", &no_rule, body(r#""port":1"#), 404, "ConntrackHelperNotFound", "not be found"),
        ("DELETE", &no_rule, String::new(), 404, "ConntrackHelperNotFound", "not be found"),
        ("GET", &no_rule, String::new(), 404, "ConntrackHelperNotFound", "not be found"),
        ("GET", &elsewhere, String::new(), 404, "RouterNotFound", "not be found"),
        ("GET", "/v2.0/routers/not-a-uuid", String::new(), 404, "RouterNotFound", "not-a-uuid"),
        ("POST", "/v2.0/routers/not-a-uuid/conntrack_helpers", FTP.into(), 404, "RouterNotFound", "not-a-uuid"),
        ("GET", "/v2.0/routers/%ff/conntrack_helpers", String::new(), 400, "InvalidInput", "UTF-8"),
        ("GET", "/v3", String::new(), 404, "HTTPNotFound", "no such resource"),
        ("PATCH", &rules, FTP.into(), 405, "HTTPMethodNotAllowed", "method"),
        ("PUT", "/v1/conntrack_helpers?dry_run=perhaps", r#"{"routers":[]}"#.into(), 400, "InvalidInput", "dry_run"),
    ];
    let bad_queries = [
        "?limit=0",
        "?limit=x",
        "?sort_key=colour",
        "?colour=red",
        "?marker=x",
        "?fields=colour",
        "?sort_dir=up&sort_key=port",
    ];
    let before = fixture.ask("GET", "/v1/conntrack_helpers", "").body;
    for (method, path, body, status, kind, word) in rows {
        let answer = fixture.ask(method, path, &body);
        let shown = body.chars().take(80).collect::<String>();
        println!("{method} {path} {shown}");
        answer.assert_refused(status, kind, word);
        let message = answer.message();
        assert!(message.len() < 1000, "a sentence: {message}");
    }
    for query in bad_queries {
        println!("{query}");
        let answer = fixture.ask("GET", &format!("{rules}{query}"), "");
        answer.assert_refused(400, "InvalidInput", "");
    }
    let form = fixture.root().with(&["--data", "a=b"]);
    let form = form.ask("POST", &rules, "");
    form.assert_refused(415, "UnsupportedMediaType", "");
    assert_eq!(fixture.ask("GET", "/v1/conntrack_helpers", "").body, before);
    fixture.assert_settled(1);
}

#[test]
fn a_rule_of_the_file_is_not_the_apis_to_change() {
    let fixture = Served::builder().rules(&[Rule::ftp(21)]).start();
    let rules = fixture.rules();
    let listed = fixture.ask("GET", &rules, "");
    let rule = &listed.body["conntrack_helpers"][0];
    assert_eq!(rule["origin"], "file");
    let path = format!("{rules}/{}", rule["id"].as_str().expect("an id"));
    let change = r#"{"conntrack_helper":{"port":22}}"#;
    for (method, body) in [("DELETE", ""), ("PUT", change)] {
        let answer = fixture.ask(method, &path, body);
        answer.assert_refused(409, "Conflict", "belongs to file");
    }
    // Nor does replacing the API's touch it.
    let none = r#"{"conntrack_helpers":[]}"#;
    assert_eq!(fixture.ask("PUT", &rules, none).status, 200);
    fixture.assert_settled(1);
}

#[test]
fn large_bodies_and_silence_end_with_an_answer() {
    let fixture = Served::with(|config| {
        config.with(
            "api",
            "{ limits = { body_bytes = 4096, body_seconds = 1, header_seconds = 1 } }",
        )
    });
    let rules = fixture.rules();
    let large = format!("{FTP}{}", " ".repeat(5000));
    let refused = fixture.ask("POST", &rules, &large);
    refused.assert_refused(413, "RequestTooLarge", "4096");
    let fits = format!("{FTP}{}", " ".repeat(3000));
    assert_eq!(fixture.ask("POST", &rules, &fits).status, 201);

    let head = "content-type: application/json\r\ncontent-length: 99";
    let half = format!("POST {rules} HTTP/1.1\r\nhost: a\r\n{head}\r\n\r\n{{");
    let half = talk(&fixture, &half);
    assert!(half.starts_with("HTTP/1.1 408"), "{half}");
    assert!(half.contains("did not come within 1 s"), "{half}");
    // A head that never ends: the connection does.
    let silence = talk(&fixture, "GET / HTTP/1.1\r\nhost:");
    assert!(!silence.contains("200 OK"), "{silence}");
    let others = fixture.ask("GET", "/", "");
    assert_eq!(others.status, 200, "and others are answered");
}

/// Sends this, then nothing; what comes until the agent closes.
fn talk(fixture: &Served, request: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream =
        std::os::unix::net::UnixStream::connect(fixture.socket()).expect("a connection");
    stream.write_all(request.as_bytes()).expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an end");
    answer
}

#[test]
fn the_socket_is_there_while_the_agent_is_and_for_root_alone() {
    let fixture = Served::new();
    let socket = fixture.socket();
    let metadata = fs::metadata(&socket).expect("the socket");
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o660);
    let nobody = fixture.root().as_user(65534, 65534, &[]);
    assert_eq!(
        nobody.ask("GET", "/", "").status,
        0,
        "no connection for others"
    );

    let Served { agent, lab, .. } = fixture;
    drop(agent.kill());
    assert!(socket.exists(), "it could not remove it");
    let agent = Agent::spawn(&lab, &Config::of(&lab), None, &[]).ready();
    let agent = agent.expect("a start");
    let answer = curl(&socket, "GET", "/", "");
    assert_eq!(answer.status, 200, "the next one has its own");
    assert_eq!(agent.stop().code, Some(0));
    assert!(!socket.exists());
}
