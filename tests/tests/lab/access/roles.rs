//! Grants to users: what strangers, readers, operators and admins may read and
//! change.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use conntrack_agent::model::RouterId;
use conntrack_tests::curl::{ApiRequest, Caller};
use conntrack_tests::served::rules_of;
use conntrack_tests::table::Placeholders;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    ADMIN, CHANGES, EVENTS, EVERYTHING, Fixture, GROUP, MARK, OPERATOR, READER, READS, STRANGER,
    TRAFFIC, about, assert_forbidden, ftp, id_of, placeholders, requests,
};

/// What is no router's in particular.
const GENERAL: &str = "
    GET /
    GET /v2.0
    GET /v2.0/routers
    GET $all
    GET /v1/status
    GET /v1/openapi.json
    GET /v3
    GET /metrics
    GET /v1/events
    GET /v1/traffic
";

/// What an admin alone may read.
const OF_THE_HOST: [&str; 2] = ["/v1/status", "/metrics"];

fn ids(list: &Value) -> Vec<String> {
    let list = list.as_array().unwrap_or_else(|| panic!("no list: {list}"));
    list.iter().map(id_of).collect()
}

#[test]
fn without_a_grant_nobody_gets_an_answer() {
    let fixture = Fixture::new();
    let metadata = fs::metadata(fixture.served.socket()).expect("the socket");
    let (mode, owner) = (metadata.permissions().mode() & 0o777, metadata.uid());
    assert_eq!((mode, owner, metadata.gid()), (0o660, 0, fixture.group.gid));
    // Outside of the group there isn't even a connection, grant or not.
    for uid in [STRANGER, ADMIN] {
        let outside = fixture.root().as_user(uid, uid, &[]);
        assert_eq!(outside.ask("GET", "/", "").status, 0);
    }
    let mut all = requests(GENERAL, &placeholders());
    for table in [READS, CHANGES] {
        all.extend(about(fixture.a(), &fixture.rule_of_a, table));
    }
    all.extend(fixture.changes_of_all());
    let expected = format!("no grant names uid {STRANGER} or a group that it is in");
    for said in fixture.refuses(STRANGER, &all, &[]) {
        assert_eq!(said, expected);
    }
    // By their first group as well.
    let first = fixture.root().as_user(STRANGER, fixture.group.gid, &[]);
    let answer = first.ask("GET", "/", "");
    assert_forbidden(&answer, &[&expected], "by the first group");
    // Who has a grant can say the same, and is answered.
    assert_eq!(fixture.user(READER).ask("GET", "/", "").status, 200);
}

#[test]
fn a_reader_reads_and_changes_nothing() {
    let fixture = Fixture::new();
    let reader = fixture.user(READER);
    let mut reads = Vec::new();
    for (router, rule) in [
        (fixture.a(), &fixture.rule_of_a),
        (fixture.b.id(), &fixture.rule_of_b),
    ] {
        reads.extend(about(router, rule, READS));
        let words = ["grant 1 (role reader) allows no change"];
        fixture.refuses(READER, &about(router, rule, CHANGES), &words);
    }
    let lists = "GET /v2.0/routers\nGET $all\nGET /v1/traffic";
    reads.extend(requests(lists, &placeholders()));
    for read in reads {
        let answer = reader.send(&read);
        assert_eq!(answer.status, 200, "{read:?}: {answer:?}");
        assert_eq!(answer.body, fixture.root().send(&read).body);
    }
    assert_not_of_all(&fixture, READER, "grant 1 (role reader)");
}

/// That what spans all routers and what is of the host are an admin's alone.
fn assert_not_of_all(fixture: &Fixture, uid: u32, grant: &str) {
    let mut all = fixture.changes_of_all();
    all.extend(requests(
        &OF_THE_HOST.map(|path| format!("GET {path}")).join("\n"),
        &placeholders(),
    ));
    fixture.refuses(uid, &all, &[grant, "role admin does"]);
}

/// What connections there are, say, and from which addresses.
#[test]
fn who_may_read_one_router_is_told_of_that_one_alone() {
    let fixture = Fixture::new();
    let (a, b) = (fixture.a().to_string(), fixture.b.id().to_string());
    // One that is about both.
    let rules = json!([{ "protocol": "tcp", "port": 2121, "helper": "ftp" }]);
    let both = json!({ "routers": [
        { "id": a, "conntrack_helpers": rules }, { "id": b, "conntrack_helpers": rules },
    ] });
    let done = fixture.root().ask("PUT", EVERYTHING, &both.to_string());
    assert_eq!(done.status, 200, "{done:?}");
    let sorted = |list: &Value, id: fn(&Value) -> &Value| -> Vec<String> {
        let list = list.as_array().expect("a list").iter();
        let mut ids: Vec<_> = list
            .map(|item| id(item).as_str().expect("an id").to_owned())
            .collect();
        ids.sort();
        ids
    };
    let traffic = |caller: &Caller| {
        let routers = caller.ask("GET", TRAFFIC, "").body["routers"].clone();
        sorted(&routers, |router| &router["id"])
    };
    let events = |caller: &Caller, query: &str| -> BTreeSet<Vec<String>> {
        let events = caller.ask("GET", &format!("{EVENTS}{query}"), "").body["events"].clone();
        let events = events.as_array().expect("events").iter();
        events
            .map(|event| sorted(&event["routers"], |id| id))
            .collect()
    };
    let mut all = vec![a.clone(), b.clone()];
    all.sort();
    let of_both = all.clone();
    let everything: BTreeSet<_> = [vec![a.clone()], vec![b.clone()], of_both.clone()].into();
    let (admin, operator) = (fixture.user(ADMIN), fixture.user(OPERATOR));
    for caller in [&admin, &fixture.user(READER)] {
        assert_eq!(traffic(caller), all);
        assert_eq!(events(caller, ""), everything);
    }
    let of_b = format!("?router_id={b}");
    assert_eq!(events(&admin, &of_b), [vec![b.clone()], of_both].into());
    assert_eq!(traffic(&operator), [a.as_str()]);
    assert_eq!(events(&operator, ""), [vec![a.clone()]].into());
    assert_eq!(events(&operator, &of_b), BTreeSet::new());
    let one = |router: &str| operator.ask("GET", &format!("{TRAFFIC}/{router}"), "");
    assert_eq!(one(&a).status, 200);
    assert_eq!(one(&b).status, 403);
}

/// Changes of a router with one rule, each with its status and how many rules
/// the router has then.
const OPERATIONS: &str = r#"
    POST $rules       | {"conntrack_helper":$ftp}                            | 201 | 2
    POST $rules       | {"conntrack_helpers":[$tftp,$sip]}                   | 201 | 4
    PUT $rules/$rule  | {"conntrack_helper":{"port":2122}}                   | 200 | 4
    PUT $rules        | {"conntrack_helpers":[$tftp,$sip]}                   | 200 | 2
    PUT $rules        | {"conntrack_helpers":[]}                             | 200 | 0
    POST $rules       | {"conntrack_helper":$again}                          | 201 | 1
"#;

#[test]
fn an_operator_changes_the_routers_of_the_grant() {
    let fixture = Fixture::new();
    let (a, rule) = (fixture.a(), &fixture.rule_of_a);
    let rules = rules_of(a);
    let again = json!({ "protocol": "tcp", "port": 21, "helper": "ftp", "id": rule });
    let placeholders = placeholders()
        .with("$rules", &rules)
        .with("$rule", rule)
        .with("$again", &again)
        .with("$ftp", r#"{"protocol":"tcp","port":2121,"helper":"ftp"}"#)
        .with("$tftp", r#"{"protocol":"udp","port":69,"helper":"tftp"}"#)
        .with("$sip", r#"{"protocol":"udp","port":5060,"helper":"sip"}"#);
    let socket = fixture.group.gid;
    let group = fixture.root().as_user(STRANGER, GROUP, &[socket]);
    let callers = [
        (OPERATOR, OPERATOR, fixture.user(OPERATOR)),
        (STRANGER, GROUP, group),
    ];
    for (uid, gid, caller) in callers {
        for row in placeholders.rows(OPERATIONS) {
            let answer = caller.send(&ApiRequest::of(&row));
            assert_eq!(answer.status.to_string(), row[2], "{row:?}: {answer:?}");
            // With the rule of the other router.
            fixture.assert_settled(row[3].parse::<usize>().expect("a number") + 1);
            let events = fixture.events();
            let event = events.last().expect("an event");
            assert_eq!(event["outcome"], "done", "{event}");
            assert_eq!(event["peer"]["uid"], uid, "{event}");
            assert_eq!(event["peer"]["gid"], gid, "{event}");
            assert_eq!(event["routers"], json!([a.to_string()]));
        }
    }
    let removed = fixture.user(OPERATOR);
    let removed = removed.ask("DELETE", &format!("{rules}/{rule}"), "");
    assert_eq!(removed.status, 204, "{removed:?}");
    // A group counts where the kernel or the host says that it is the user's,
    // and the kernel tells the first one alone.
    let others = fixture.root().as_user(STRANGER, STRANGER, &[socket, GROUP]);
    let answer = others.ask("POST", &rules, &ftp(21));
    assert_forbidden(&answer, &["no grant names uid"], "another group");
}

#[test]
fn an_operator_has_no_way_to_another_router() {
    let fixture = Fixture::new();
    let (a, b) = (fixture.a(), fixture.b.id());
    let nowhere: RouterId = Uuid::new_v4().to_string().parse().expect("a router id");
    // Whether a router is there, and whether a rule is, can't be told from the
    // refusal.
    let no_rule = Uuid::new_v4().to_string();
    let rule_of_b = &fixture.rule_of_b;
    for (router, rule) in [
        (b, rule_of_b),
        (b, &no_rule),
        (nowhere, &no_rule),
        (nowhere, rule_of_b),
    ] {
        let expected = format!("grant 2 (role operator) does not cover router {router}");
        for table in [CHANGES, READS] {
            for said in fixture.refuses(OPERATOR, &about(router, rule, table), &[]) {
                assert_eq!(said, expected, "{router}, {rule}");
            }
        }
    }
    // What is allowed in part is refused as a whole.
    assert_not_of_all(&fixture, OPERATOR, "grant 2 (role operator)");

    // Nor by way of the router that is theirs.
    let operator = fixture.user(OPERATOR);
    for rule in [rule_of_b, &no_rule] {
        let path = format!("{}/{rule}", rules_of(a));
        let said = format!("Conntrack helper {rule} could not be found");
        for (method, body) in [
            ("GET", ""),
            ("DELETE", ""),
            ("PUT", r#"{"conntrack_helper":{"port":2121}}"#),
        ] {
            let before = fixture.state();
            let answer = operator.ask(method, &path, body);
            assert_eq!(
                (answer.status, answer.kind(), answer.message()),
                (404, "ConntrackHelperNotFound", said.as_str()),
                "{method}"
            );
            let what = format!("{method} {path}");
            fixture.state().assert_same(&before, &what);
        }
    }
}

/// Lists that an operator asks for, and what is in them.
const LISTS: &str = "
    /v2.0/routers                                | routers           | $a
    /v2.0/routers?id=$b                          | routers           |
    /v2.0/routers?name=$b                        | routers           |
    /v1/conntrack_helpers                        | conntrack_helpers | $rule_of_a
    /v1/conntrack_helpers?router_id=$a&router_id=$b | conntrack_helpers | $rule_of_a
    /v1/conntrack_helpers?router_id=$b           | conntrack_helpers |
    /v1/conntrack_helpers?id=$rule_of_b          | conntrack_helpers |
";

/// Whatever is asked for.
#[test]
fn an_operators_lists_have_what_is_theirs() {
    let fixture = Fixture::new();
    let (b, no_rule) = (fixture.b.id().to_string(), Uuid::new_v4().to_string());
    let operator = fixture.user(OPERATOR);
    let placeholders = Placeholders::new()
        .with("$a", &fixture.a())
        .with("$b", &b)
        .with("$rule_of_a", &fixture.rule_of_a)
        .with("$rule_of_b", &fixture.rule_of_b);
    for row in placeholders.rows(LISTS) {
        let listed = ids(&operator.ask("GET", &row[0], "").body[&row[1]]);
        assert_eq!(listed.concat(), row[2], "{row:?}");
    }
    let all = ids(&fixture.root().ask("GET", "/v2.0/routers", "").body["routers"]);
    assert!(all.contains(&b), "there is another: {all:?}");
    // As a place to go on from, a hidden thing is as good as none.
    for (path, hidden) in [(EVERYTHING, &fixture.rule_of_b), ("/v2.0/routers", &b)] {
        let marked = |id: &str| {
            let answer = operator.ask("GET", &format!("{path}?marker={id}"), "");
            (answer.status, answer.body.to_string().replace(id, "…"))
        };
        assert_eq!(marked(hidden), marked(&no_rule), "{path}");
        let root = fixture.root();
        let root = root.ask("GET", &format!("{path}?marker={hidden}"), "");
        assert_eq!(root.status, 200, "root can: {root:?}");
    }
}

#[test]
fn an_admin_changes_everything() {
    let fixture = Fixture::new();
    let admin = fixture.user(ADMIN);
    assert_eq!(admin.ask("GET", "/v1/status", "").status, 200);
    let all = json!({ "routers": [
        { "id": fixture.b.id().to_string(), "conntrack_helpers": [
            { "protocol": "udp", "port": 69, "helper": "tftp" } ] },
    ] })
    .to_string();
    let before = fixture.state();
    let dry = admin.ask("PUT", &format!("{EVERYTHING}?dry_run=true"), &all);
    assert_eq!(dry.status, 200, "{dry:?}");
    fixture.state().assert_same(&before, "a rehearsal");
    let done = admin.ask("PUT", EVERYTHING, &all);
    assert_eq!(done.status, 200, "{done:?}");
    fixture.assert_settled(1);
}

/// Who may not change something learns nothing of how it would be done, and
/// what was sent is not even looked at.
#[test]
fn what_nobody_may_send_is_not_read() {
    const WRONG: &str = "
        POST $rules      | $body
        PUT $rules       | $body
        PUT $rules/$rule | $body
        PUT $all         | $body
    ";
    let fixture = Fixture::new();
    let (a, b) = (fixture.a(), fixture.b.id());
    let wrong = [
        format!("{{\"{MARK}\":1}}"),
        format!("{{\"conntrack_helper\":{{\"protocol\":\"{MARK}\"}}}}"),
        "{".to_owned(),
    ];
    for body in &wrong {
        for (uid, router, rule) in [
            (READER, a, &fixture.rule_of_a),
            (OPERATOR, b, &fixture.rule_of_b),
        ] {
            let table = WRONG.replace("$body", body);
            fixture.refuses(uid, &about(router, rule, &table), &["grant "]);
        }
    }
    // The same from somebody who may is wrong for its own sake.
    for body in &wrong {
        let answer = fixture.user(OPERATOR).ask("POST", &rules_of(a), body);
        assert_eq!((answer.status, answer.kind()), (400, "InvalidInput"));
    }
}
