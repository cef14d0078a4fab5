//! Who may do what: other users over the Unix socket, and tokens over TCP.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::PathBuf;

use conntrack_agent::model::RouterId;
use conntrack_tests::accounts::SocketGroup;
use conntrack_tests::agent::{Agent, Config, run_to_exit};
use conntrack_tests::audit;
use conntrack_tests::curl::{Answer, Caller};
use conntrack_tests::durable::{BareRouter, stored};
use conntrack_tests::lab::Lab;
use conntrack_tests::snapshot::{Snapshot, assert_same};
use conntrack_tests::state::State;
use serde_json::{Value, json};
use uuid::Uuid;

/// Users and a group that are numbers and nothing else; no account is needed
/// for a process to have them.
const READER: u32 = 61_001;
const OPERATOR: u32 = 61_002;
const ADMIN: u32 = 61_003;
const STRANGER: u32 = 61_004;
const GROUP: u32 = 61_100;

/// In each body that is refused, and to be found nowhere afterwards.
const MARK: &str = "6d61726b-0000-4000-8000-6d61726b6564";

/// Two routers with a rule each, and grants to all but one of the users.
struct Fixture {
    _agent: Agent,
    group: SocketGroup,
    a: BareRouter,
    b: BareRouter,
    rule_of_a: String,
    rule_of_b: String,
    lab: Lab,
}

impl Fixture {
    fn new() -> Self {
        let lab = Lab::new();
        let (a, b) = (BareRouter::new(&lab), BareRouter::new(&lab));
        let group = SocketGroup::any();
        let grants = format!(
            "[{{ users = [{READER}], role = \"reader\" }}, \
             {{ users = [{OPERATOR}], groups = [{GROUP}], role = \"operator\", routers = [\"{}\"] }}, \
             {{ users = [{ADMIN}], role = \"admin\" }}]",
            a.id()
        );
        let config = all_recorded(Config::of(&lab))
            .with("api", format!("{{ socket_group = {:?} }}", group.name))
            .with("grant", grants);
        let agent = Agent::spawn(&lab, &config, None, &[]).ready();
        let agent = agent.unwrap_or_else(|exit| panic!("not ready: {exit:?}"));
        let mut fixture = Self {
            _agent: agent,
            group,
            a,
            b,
            rule_of_a: String::new(),
            rule_of_b: String::new(),
            lab,
        };
        let [of_a, of_b] = [&fixture.a, &fixture.b].map(|router| {
            let made = fixture.root().ask("POST", &rules_of(router.id()), &ftp(21));
            assert_eq!(made.status, 201, "{made:?}");
            id_of(&made.body["conntrack_helper"])
        });
        (fixture.rule_of_a, fixture.rule_of_b) = (of_a, of_b);
        fixture
    }

    fn root(&self) -> Caller {
        Caller::local(&socket(&self.lab))
    }

    /// A user who may open the socket, by a group that is not their first.
    fn user(&self, uid: u32) -> Caller {
        self.root().as_user(uid, uid, &[self.group.gid])
    }

    /// Asserts that a request is refused by a sentence with these words, that
    /// it has changed nothing, and that the trail says so once, without what
    /// was sent. Returns the sentence.
    fn refuses(&self, uid: u32, request: (&str, &str, &str), words: &[&str]) -> String {
        let (method, path, body) = request;
        let what = format!("{uid}: {method} {path}");
        let routers = [&self.a, &self.b];
        let before = State::of(self.lab.dir(), &routers);
        let mapping = self.root().ask("GET", "/v1/conntrack_helpers", "").body;
        let recorded = audit::events(self.lab.dir()).len();

        let answer = self.user(uid).ask(method, path, body);
        assert_forbidden(&answer, words, &what);

        State::of(self.lab.dir(), &routers).assert_same(&before, &what);
        let after = self.root().ask("GET", "/v1/conntrack_helpers", "").body;
        assert_eq!(mapping, after, "{what}: the mapping");
        let events = audit::events(self.lab.dir());
        assert_eq!(events.len(), recorded + 1, "{what}: one event");
        let event = &events[recorded];
        // As it is called where it is done.
        let is_one_rule = path.split("/conntrack_helpers/").count() > 1;
        let operation = match (method, path.split('?').next()) {
            ("GET", Some("/metrics")) => "scrape",
            ("GET", Some("/v1/events")) => "follow",
            ("GET", _) => "read",
            ("POST", _) => "create",
            ("PUT", Some("/v1/conntrack_helpers")) => "apply",
            ("PUT", _) if is_one_rule => "update",
            ("PUT", _) => "replace",
            ("DELETE", _) => "delete",
            (other, _) => panic!("what is {other} called?"),
        };
        assert_eq!(event["event"], "request", "{what}");
        assert_eq!(event["outcome"], "not_allowed", "{what}");
        assert_eq!(event["operation"], operation, "{what}");
        assert_eq!(event["reason"], answer.message(), "{what}");
        assert_eq!(event["peer"]["kind"], "local", "{what}");
        assert_eq!(event["peer"]["uid"], uid, "{what}");
        assert_eq!(event["peer"]["gid"], uid, "{what}");
        for (side, count) in [("before", "before_count"), ("after", "after_count")] {
            assert_eq!(event[side], json!([]), "{what}");
            assert_eq!(event[count], 0, "{what}");
        }
        let router = path.strip_prefix("/v2.0/routers/");
        let router = router.and_then(|rest| rest.split('/').next());
        assert_eq!(event["routers"], json!(router.as_slice()), "{what}");
        assert!(!audit::text(self.lab.dir()).contains(MARK), "{what}");
        answer.message().to_owned()
    }
}

/// Refusals are recorded at a largest rate, which is not what these tests are
/// about.
fn all_recorded(config: Config) -> Config {
    config.with(
        "audit",
        "{ refusals_per_second = 1000, refusals_per_second_in_all = 1000 }",
    )
}

fn socket(lab: &Lab) -> PathBuf {
    lab.dir().run_dir().join("agent.sock")
}

fn rules_of(router: RouterId) -> String {
    format!("/v2.0/routers/{router}/conntrack_helpers")
}

fn id_of(rule: &Value) -> String {
    rule["id"].as_str().expect("an id").to_owned()
}

fn ids(list: &Value) -> Vec<String> {
    list.as_array()
        .unwrap_or_else(|| panic!("no list: {list}"))
        .iter()
        .map(id_of)
        .collect()
}

fn ftp(port: u16) -> String {
    format!(r#"{{"conntrack_helper":{{"protocol":"tcp","port":{port},"helper":"ftp"}}}}"#)
}

fn assert_forbidden(answer: &Answer, words: &[&str], what: &str) {
    assert_eq!(
        (answer.status, answer.kind()),
        (403, "Forbidden"),
        "{what}: {answer:?}"
    );
    for word in words {
        let message = answer.message();
        assert!(message.contains(word), "{what}: {message:?} lacks {word:?}");
    }
    assert!(!answer.body.to_string().contains(MARK), "{what}");
}

/// Every way to change something on a router, in a form that would be right.
fn changes(router: RouterId, rule: &str) -> Vec<(&'static str, String, String)> {
    let rules = rules_of(router);
    let marked = json!({ "protocol": "tcp", "port": 2121, "helper": "ftp", "id": MARK });
    let one = json!({ "conntrack_helper": marked }).to_string();
    let several = json!({ "conntrack_helpers": [marked] }).to_string();
    let none = r#"{"conntrack_helpers":[]}"#.to_owned();
    let moved = r#"{"conntrack_helper":{"port":2121}}"#.to_owned();
    vec![
        ("POST", rules.clone(), one),
        ("POST", rules.clone(), several.clone()),
        ("PUT", rules.clone(), several),
        ("PUT", rules.clone(), none),
        ("PUT", format!("{rules}/{rule}"), moved),
        ("DELETE", format!("{rules}/{rule}"), String::new()),
    ]
}

const EVERYTHING: &str = "/v1/conntrack_helpers";
const EVENTS: &str = "/v1/events";
const TRAFFIC: &str = "/v1/traffic";

/// Every way to change what spans all routers: first a set in which this router
/// alone would be different, then no rules at all.
fn changes_of_all(fixture: &Fixture) -> Vec<(&'static str, String, String)> {
    let marked = json!({ "protocol": "tcp", "port": 2121, "helper": "ftp", "id": MARK });
    let plain = json!({ "protocol": "tcp", "port": 21, "helper": "ftp" });
    let one = json!({ "routers": [
        { "id": fixture.a.id().to_string(), "conntrack_helpers": [plain, marked] },
        { "id": fixture.b.id().to_string(), "conntrack_helpers": [plain] },
    ] });
    let alone = json!({ "routers": [
        { "id": fixture.a.id().to_string(), "conntrack_helpers": [plain, marked] },
    ] });
    let mut all = Vec::new();
    for body in [
        one.to_string(),
        alone.to_string(),
        r#"{"routers":[]}"#.to_owned(),
    ] {
        for path in [EVERYTHING.to_owned(), format!("{EVERYTHING}?dry_run=true")] {
            all.push(("PUT", path, body.clone()));
        }
    }
    all
}

fn reads(router: RouterId, rule: &str) -> Vec<(&'static str, String, String)> {
    let rules = rules_of(router);
    let paths = [
        format!("/v2.0/routers/{router}"),
        rules.clone(),
        format!("{rules}/{rule}"),
        format!("{TRAFFIC}/{router}"),
    ];
    paths.map(|path| ("GET", path, String::new())).into()
}

#[test]
fn without_a_grant_nobody_gets_an_answer() {
    let fixture = Fixture::new();
    let metadata = fs::metadata(socket(&fixture.lab)).expect("the socket");
    let (mode, owner) = (metadata.permissions().mode() & 0o777, metadata.uid());
    assert_eq!((mode, owner, metadata.gid()), (0o660, 0, fixture.group.gid));
    // Outside of the group there isn't even a connection, grant or not.
    for uid in [STRANGER, ADMIN] {
        let outside = fixture.root().as_user(uid, uid, &[]);
        assert_eq!(outside.ask("GET", "/", "").status, 0);
    }
    let general = ["/", "/v2.0", "/v2.0/routers", EVERYTHING, "/v1/status"];
    let general = general
        .iter()
        .chain(&["/v1/openapi.json", "/v3", "/metrics", EVENTS, TRAFFIC]);
    let mut requests: Vec<_> = general
        .map(|path| ("GET", (*path).to_owned(), String::new()))
        .collect();
    requests.extend(reads(fixture.a.id(), &fixture.rule_of_a));
    requests.extend(changes(fixture.a.id(), &fixture.rule_of_a));
    requests.extend(changes_of_all(&fixture));
    let expected = format!("no grant names uid {STRANGER} or a group that it is in");
    for (method, path, body) in &requests {
        let said = fixture.refuses(STRANGER, (method, path, body), &[]);
        assert_eq!(said, expected, "{method} {path}");
    }
    // By their first group as well.
    let first = fixture.root().as_user(STRANGER, fixture.group.gid, &[]);
    assert_forbidden(
        &first.ask("GET", "/", ""),
        &[&expected],
        "by the first group",
    );
    // Who has a grant can say the same, and is answered.
    assert_eq!(fixture.user(READER).ask("GET", "/", "").status, 200);
}

#[test]
fn a_reader_reads_and_changes_nothing() {
    let fixture = Fixture::new();
    let reader = fixture.user(READER);
    for (router, rule) in [
        (&fixture.a, &fixture.rule_of_a),
        (&fixture.b, &fixture.rule_of_b),
    ] {
        for (method, path, body) in reads(router.id(), rule) {
            let answer = reader.ask(method, &path, &body);
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
            assert_eq!(answer.body, fixture.root().ask(method, &path, "").body);
        }
        for (method, path, body) in changes(router.id(), rule) {
            let words = ["grant 1 (role reader) allows no change"];
            fixture.refuses(READER, (method, &path, &body), &words);
        }
    }
    for path in ["/v2.0/routers", EVERYTHING, TRAFFIC] {
        let answer = reader.ask("GET", path, "");
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.body, fixture.root().ask("GET", path, "").body);
    }
    for (method, path, body) in changes_of_all(&fixture) {
        let words = ["grant 1 (role reader)", "role admin does"];
        fixture.refuses(READER, (method, &path, &body), &words);
    }
    let words = ["grant 1 (role reader)", "role admin does"];
    for path in ["/v1/status", "/metrics"] {
        fixture.refuses(READER, ("GET", path, ""), &words);
    }
}

/// What connections there are, say, and from which addresses.
#[test]
fn who_may_read_one_router_is_told_of_that_one_alone() {
    let fixture = Fixture::new();
    let (a, b) = (fixture.a.id().to_string(), fixture.b.id().to_string());
    // One that is about both.
    let rules = json!([{ "protocol": "tcp", "port": 2121, "helper": "ftp" }]);
    let both = json!({ "routers": [
        { "id": a, "conntrack_helpers": rules }, { "id": b, "conntrack_helpers": rules },
    ] });
    let done = fixture.root().ask("PUT", EVERYTHING, &both.to_string());
    assert_eq!(done.status, 200, "{done:?}");
    let traffic = |caller: &Caller| -> Vec<String> {
        let routers = caller.ask("GET", TRAFFIC, "").body["routers"].clone();
        let routers = routers.as_array().expect("routers").iter();
        let mut ids: Vec<_> = routers
            .map(|router| router["id"].as_str().expect("an id").to_owned())
            .collect();
        ids.sort();
        ids
    };
    let events = |caller: &Caller, query: &str| -> BTreeSet<Vec<String>> {
        let events = caller.ask("GET", &format!("{EVENTS}{query}"), "").body["events"].clone();
        let events = events.as_array().expect("events").iter();
        let routers = events.map(|event| {
            let routers = event["routers"].as_array().expect("a change").iter();
            let mut routers: Vec<_> = routers
                .map(|router| router.as_str().expect("an id").to_owned())
                .collect();
            routers.sort();
            routers
        });
        routers.collect()
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

#[test]
fn an_operator_changes_the_routers_of_the_grant() {
    let fixture = Fixture::new();
    let rules = rules_of(fixture.a.id());
    let own = format!("{rules}/{}", fixture.rule_of_a);
    let bulk = r#"{"conntrack_helpers":[{"protocol":"udp","port":69,"helper":"tftp"},
        {"protocol":"udp","port":5060,"helper":"sip"}]}"#;
    let group = fixture
        .root()
        .as_user(STRANGER, GROUP, &[fixture.group.gid]);
    let callers = [
        (OPERATOR, OPERATOR, fixture.user(OPERATOR)),
        (STRANGER, GROUP, group),
    ];
    for (uid, gid, caller) in callers {
        let steps: [(&str, &str, String, u16, usize); 6] = [
            ("POST", &rules, ftp(2121), 201, 2),
            ("POST", &rules, bulk.into(), 201, 4),
            (
                "PUT",
                &own,
                r#"{"conntrack_helper":{"port":2122}}"#.into(),
                200,
                4,
            ),
            ("PUT", &rules, bulk.into(), 200, 2),
            ("PUT", &rules, r#"{"conntrack_helpers":[]}"#.into(), 200, 0),
            (
                "POST",
                &rules,
                ftp(21).replace(
                    "\"ftp\"",
                    &format!("\"ftp\",\"id\":\"{}\"", fixture.rule_of_a),
                ),
                201,
                1,
            ),
        ];
        for (method, path, body, status, count) in steps {
            let answer = caller.ask(method, path, &body);
            assert_eq!(answer.status, status, "{method} {body}: {answer:?}");
            let mapping = stored(fixture.lab.dir()).expect("a good store");
            assert_eq!(
                mapping.len(),
                count + 1,
                "with the rule of the other router"
            );
            fixture.a.assert_has(&mapping);
            fixture.b.assert_has(&mapping);
            let events = audit::events(fixture.lab.dir());
            let event = events.last().expect("an event");
            assert_eq!(event["outcome"], "done", "{event}");
            assert_eq!(event["peer"]["uid"], uid, "{event}");
            assert_eq!(event["peer"]["gid"], gid, "{event}");
            assert_eq!(event["routers"], json!([fixture.a.id().to_string()]));
        }
    }
    let removed = fixture.user(OPERATOR).ask("DELETE", &own, "");
    assert_eq!(removed.status, 204, "{removed:?}");
    // A group counts where the kernel or the host says that it is the user's,
    // and the kernel tells the first one alone.
    let others = fixture
        .root()
        .as_user(STRANGER, STRANGER, &[fixture.group.gid, GROUP]);
    let answer = others.ask("POST", &rules, &ftp(21));
    assert_forbidden(&answer, &["no grant names uid"], "another group");
}

#[test]
fn an_operator_has_no_way_to_another_router() {
    let fixture = Fixture::new();
    let (a, b) = (fixture.a.id(), fixture.b.id());
    let nowhere: RouterId = Uuid::new_v4().to_string().parse().expect("a router id");
    let requests = |router: RouterId, rule: &str| {
        let mut requests = changes(router, rule);
        requests.extend(reads(router, rule));
        requests
    };
    // Whether a router is there, and whether a rule is, can't be told from the
    // refusal.
    let no_rule = Uuid::new_v4().to_string();
    let places = [
        (b, fixture.rule_of_b.as_str()),
        (b, &no_rule),
        (nowhere, &no_rule),
        (nowhere, &fixture.rule_of_b),
    ];
    for (place, (router, rule)) in places.into_iter().enumerate() {
        for (method, path, body) in requests(router, rule) {
            let said = fixture.refuses(OPERATOR, (method, &path, &body), &[]);
            let expected = format!("grant 2 (role operator) does not cover router {router}");
            assert_eq!(said, expected, "{place}: {method} {path}");
        }
    }
    // What is allowed in part is refused as a whole.
    for (method, path, body) in changes_of_all(&fixture) {
        let words = ["grant 2 (role operator)", "role admin does"];
        fixture.refuses(OPERATOR, (method, &path, &body), &words);
    }
    let words = ["grant 2 (role operator)", "role admin does"];
    for path in ["/v1/status", "/metrics"] {
        fixture.refuses(OPERATOR, ("GET", path, ""), &words);
    }

    // Nor by way of the router that is theirs.
    let operator = fixture.user(OPERATOR);
    for rule in [&fixture.rule_of_b, &no_rule] {
        let path = format!("{}/{rule}", rules_of(a));
        for (method, body) in [
            ("GET", ""),
            ("DELETE", ""),
            ("PUT", r#"{"conntrack_helper":{"port":2121}}"#),
        ] {
            let before = State::of(fixture.lab.dir(), &[&fixture.a, &fixture.b]);
            let answer = operator.ask(method, &path, body);
            assert_eq!(
                (answer.status, answer.kind(), answer.message()),
                (
                    404,
                    "ConntrackHelperNotFound",
                    format!("Conntrack helper {rule} could not be found").as_str()
                ),
                "{method}"
            );
            let after = State::of(fixture.lab.dir(), &[&fixture.a, &fixture.b]);
            after.assert_same(&before, &format!("{method} {path}"));
        }
    }

    // Lists have what is theirs, whatever is asked for.
    let listed = |path: &str| operator.ask("GET", path, "");
    let routers = listed("/v2.0/routers");
    assert_eq!(ids(&routers.body["routers"]), [a.to_string()]);
    let all = ids(&fixture.root().ask("GET", "/v2.0/routers", "").body["routers"]);
    assert!(all.contains(&b.to_string()), "there is another: {all:?}");
    let none: [String; 0] = [];
    let rule_of_b = &fixture.rule_of_b;
    for (query, expected) in [
        (String::new(), std::slice::from_ref(&fixture.rule_of_a)),
        (
            format!("?router_id={a}&router_id={b}"),
            std::slice::from_ref(&fixture.rule_of_a),
        ),
        (format!("?router_id={b}"), &none),
        (format!("?id={rule_of_b}"), &none),
    ] {
        let rules = listed(&format!("{EVERYTHING}{query}"));
        assert_eq!(ids(&rules.body["conntrack_helpers"]), *expected, "{query}");
    }
    for query in [format!("?id={b}"), format!("?name={b}")] {
        let routers = listed(&format!("/v2.0/routers{query}"));
        assert_eq!(ids(&routers.body["routers"]), none, "{query}");
    }
    // As a place to go on from, a hidden thing is as good as none.
    for (path, hidden) in [(EVERYTHING, rule_of_b), ("/v2.0/routers", &b.to_string())] {
        let marked = |id: &str| {
            let answer = listed(&format!("{path}?marker={id}"));
            (answer.status, answer.body.to_string().replace(id, "…"))
        };
        assert_eq!(marked(hidden), marked(&no_rule), "{path}");
        let root = fixture
            .root()
            .ask("GET", &format!("{path}?marker={hidden}"), "");
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
    ] });
    let before = State::of(fixture.lab.dir(), &[&fixture.a, &fixture.b]);
    let dry = admin.ask(
        "PUT",
        &format!("{EVERYTHING}?dry_run=true"),
        &all.to_string(),
    );
    assert_eq!(dry.status, 200, "{dry:?}");
    State::of(fixture.lab.dir(), &[&fixture.a, &fixture.b]).assert_same(&before, "a rehearsal");
    let done = admin.ask("PUT", EVERYTHING, &all.to_string());
    assert_eq!(done.status, 200, "{done:?}");
    let mapping = stored(fixture.lab.dir()).expect("a good store");
    assert_eq!(mapping.len(), 1);
    fixture.a.assert_has(&mapping);
    fixture.b.assert_has(&mapping);
}

const ALICE: &str = "alice-has-4f1c7a9e5b";
const BOB: &str = "bob-has-80e2d6c3a1f4";

/// A token file of this mode.
fn token_file(lab: &Lab, text: &str, mode: u32) -> PathBuf {
    let path = lab.dir().path().join("tokens");
    fs::write(&path, text).expect("the tokens");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("their mode");
    path
}

fn tokens() -> String {
    format!("# who has which\n\nalice:{ALICE}\nbob:{BOB}\n")
}

fn on_tcp(config: Config, listen: SocketAddr, tokens: &std::path::Path) -> Config {
    let tokens = tokens.to_str().expect("text");
    config.with(
        "tcp",
        format!("{{ listen = \"{listen}\", token_file = {tokens:?} }}"),
    )
}

/// A port that is free now.
fn free_port() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("its address")
}

/// An agent on a free port. Somebody may take it before the agent does; then
/// there are others.
fn agent_on_tcp(lab: &Lab, config: &Config, tokens: &std::path::Path) -> (Agent, SocketAddr) {
    for _ in 0..5 {
        let address = free_port();
        let config = on_tcp(config.clone(), address, tokens);
        match Agent::spawn(lab, &config, None, &[]).ready() {
            Ok(agent) => return (agent, address),
            Err(exit) if exit.stderr.contains("cannot be listened on") => {}
            Err(exit) => panic!("not ready: {exit:?}"),
        }
    }
    panic!("five free ports were taken");
}

#[test]
fn over_tcp_a_token_says_who_asks() {
    let lab = Lab::new();
    let (a, b) = (BareRouter::new(&lab), BareRouter::new(&lab));
    let file = token_file(&lab, &tokens(), 0o600);
    let grant = format!(
        "[{{ tokens = [\"alice\"], role = \"operator\", routers = [\"{}\"] }}]",
        a.id()
    );
    let config = all_recorded(Config::of(&lab)).with("grant", grant);
    let (agent, address) = agent_on_tcp(&lab, &config, &file);
    let rules = rules_of(a.id());
    let made = Caller::tcp(address)
        .with_token(ALICE)
        .ask("POST", &rules, &ftp(21));
    assert_eq!(made.status, 201, "{made:?}");
    let rule = id_of(&made.body["conntrack_helper"]);
    let event = audit::events(lab.dir()).pop().expect("an event");
    assert_eq!(event["peer"], json!({ "kind": "token", "name": "alice" }));
    assert_eq!(
        (&event["outcome"], &event["operation"]),
        (&json!("done"), &json!("create"))
    );

    let before = State::of(lab.dir(), &[&a, &b]);
    let mut requests = changes(a.id(), &rule);
    requests.extend(reads(a.id(), &rule));
    let general = ["/", "/metrics", EVENTS, TRAFFIC];
    requests.extend(general.map(|path| ("GET", path.to_owned(), String::new())));
    requests.push(("PUT", EVERYTHING.to_owned(), r#"{"routers":[]}"#.to_owned()));
    let longer = format!("{ALICE}0");
    let (shorter, _) = ALICE.split_at(ALICE.len() - 1);
    let nobody = "nobody-has-73b1d0e4c2";
    let strangers = [
        (None, "is wanted"),
        (Some(""), "not known"),
        (Some("alice"), "not known"),
        (Some(shorter), "not known"),
        (Some(&*longer), "not known"),
        (Some(nobody), "not known"),
    ];
    for (token, words) in strangers {
        let tcp = Caller::tcp(address);
        let caller = token.map_or(tcp.clone(), |token| tcp.with_token(token));
        for (method, path, body) in &requests {
            let recorded = audit::events(lab.dir()).len();
            let answer = caller.ask(method, path, body);
            assert_eq!(
                (answer.status, answer.kind()),
                (401, "Unauthorized"),
                "{token:?}: {answer:?}"
            );
            assert!(answer.message().contains(words), "{token:?}: {answer:?}");
            let events = audit::events(lab.dir());
            assert_eq!(events.len(), recorded + 1, "{token:?}: one event");
            assert_eq!(events[recorded]["outcome"], "not_allowed");
            assert_eq!(events[recorded]["peer"]["kind"], "unknown");
        }
    }
    // A token that no grant names, and one whose grant is about another router.
    let bob = Caller::tcp(address).with_token(BOB);
    assert_forbidden(
        &bob.ask("GET", "/", ""),
        &["no grant names token \"bob\""],
        "bob",
    );
    let alice = Caller::tcp(address).with_token(ALICE);
    let metrics = alice.ask("GET", "/metrics", "");
    assert_forbidden(&metrics, &["grant 1 (role operator)", "admin"], "alice");
    for (method, path, body) in changes(b.id(), &rule) {
        let words = ["grant 1 (role operator) does not cover router"];
        assert_forbidden(&alice.ask(method, &path, &body), &words, "alice");
    }
    State::of(lab.dir(), &[&a, &b]).assert_same(&before, "what is refused");
    // Over the Unix socket none is needed, and none makes anybody more.
    let local = Caller::local(&socket(&lab));
    assert_eq!(local.ask("GET", &rules, "").status, 200);
    assert_eq!(local.with_token(nobody).ask("GET", &rules, "").status, 200);

    let exit = agent.stop();
    assert_eq!(exit.code, Some(0), "{exit:?}");
    let trail = audit::text(lab.dir());
    for secret in [ALICE, BOB, nobody, shorter, MARK] {
        assert!(!trail.contains(secret), "the trail has {secret}");
        assert!(!exit.stderr.contains(secret), "the log has {secret}");
    }
    assert!(
        TcpListener::bind(address).is_ok(),
        "nobody listens any more"
    );
}

/// An agent that is to listen with such a token file does not start, says why
/// in one sentence with these words and without a token, and leaves nothing.
fn assert_no_start(lab: &Lab, address: SocketAddr, tokens: &std::path::Path, words: &[&str]) {
    let router = BareRouter::new(lab);
    let config = on_tcp(Config::of(lab), address, tokens);
    let rules = format!(
        "[[router]]\nid = \"{}\"\nhelpers = [{{ protocol = \"tcp\", port = 21, helper = \"ftp\" }}]\n",
        router.id()
    );
    let (before, kernel) = (Snapshot::take(lab, &[]), router.in_kernel());
    let exit = run_to_exit(lab, &config, &rules, &[]);
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert_eq!(exit.stdout, "", "diagnostics go to stderr");
    for word in words {
        assert!(exit.stderr.contains(word), "it names {word:?}: {exit:?}");
    }
    for secret in [ALICE, BOB] {
        assert!(!exit.stderr.contains(secret), "{exit:?}");
    }
    assert_same(&before, &Snapshot::take(lab, &[]));
    assert_eq!(router.in_kernel(), kernel);
}

#[test]
fn a_token_file_that_others_can_read_is_refused() {
    let lab = Lab::new();
    for mode in [0o640, 0o604, 0o620, 0o602, 0o610, 0o666] {
        let file = token_file(&lab, &tokens(), mode);
        let shown = format!("mode is {mode:04o}");
        assert_no_start(
            &lab,
            free_port(),
            &file,
            &["tokens is refused", &shown, "0600 is wanted"],
        );
    }
    let file = token_file(&lab, &tokens(), 0o600);
    chown(&file, Some(STRANGER), None).expect("another owner");
    let owner = format!("owner is user {STRANGER}");
    assert_no_start(
        &lab,
        free_port(),
        &file,
        &["tokens is refused", &owner, "root is wanted"],
    );
    chown(&file, Some(0), None).expect("root's again");
    // The same file is a good one now.
    let (agent, address) = agent_on_tcp(&lab, &Config::of(&lab), &file);
    let bob = Caller::tcp(address).with_token(BOB);
    assert_eq!(
        bob.ask("GET", "/", "").status,
        403,
        "known, and without a grant"
    );
    assert_eq!(agent.stop().code, Some(0));
}

#[test]
fn a_faulty_token_file_is_refused_without_repeating_it() {
    let lab = Lab::new();
    let rows = [
        (String::new(), &["no token"][..]),
        (ALICE.to_owned(), &["line 1", "name:token"]),
        (format!("{ALICE}:alice"), &["line 1"]),
        (format!("alice:{ALICE}\nalice:{BOB}"), &["line 2", "line 1"]),
        (format!("alice:{ALICE}\nbob:{ALICE}"), &["line 2", "line 1"]),
        (format!("alice:{ALICE} {BOB}"), &["line 1", "space"]),
        ("alice:short".to_owned(), &["line 1", "16 to 256"]),
    ];
    for (text, words) in rows {
        let file = token_file(&lab, &text, 0o600);
        assert_no_start(&lab, free_port(), &file, words);
    }
    let file = lab.dir().path().join("no-tokens");
    assert_no_start(&lab, free_port(), &file, &["no-tokens", "cannot be read"]);
    // And a port that is taken.
    let file = token_file(&lab, &tokens(), 0o600);
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = taken.local_addr().expect("its address");
    assert_no_start(&lab, address, &file, &[&address.to_string(), "listened"]);
}

/// Who may not change something learns nothing of how it would be done, and
/// what was sent is not even looked at.
#[test]
fn what_nobody_may_send_is_not_read() {
    let fixture = Fixture::new();
    let (a, b) = (fixture.a.id(), fixture.b.id());
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
            let rules = rules_of(router);
            let rule = format!("{rules}/{rule}");
            for (method, path) in [
                ("POST", &*rules),
                ("PUT", &rules),
                ("PUT", &rule),
                ("PUT", EVERYTHING),
            ] {
                fixture.refuses(uid, (method, path, body), &["grant "]);
            }
        }
    }
    // The same from somebody who may is wrong for its own sake.
    for body in &wrong {
        let answer = fixture.user(OPERATOR).ask("POST", &rules_of(a), body);
        assert_eq!((answer.status, answer.kind()), (400, "InvalidInput"));
    }
}
