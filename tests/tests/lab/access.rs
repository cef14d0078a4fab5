//! Who may do what: other users over the Unix socket, and tokens over TCP.

mod roles;
mod tokens;

use conntrack_agent::model::RouterId;
use conntrack_tests::accounts::SocketGroup;
use conntrack_tests::agent::Config;
use conntrack_tests::audit;
use conntrack_tests::curl::{Answer, ApiRequest, Caller};
use conntrack_tests::durable::{BareRouter, stored};
use conntrack_tests::served::{Served, rules_of};
use conntrack_tests::state::State;
use conntrack_tests::table::Placeholders;
use serde_json::{Value, json};

/// Users and a group that are numbers and nothing else; no account is needed
/// for a process to have them.
const READER: u32 = 61_001;
const OPERATOR: u32 = 61_002;
const ADMIN: u32 = 61_003;
const STRANGER: u32 = 61_004;
const GROUP: u32 = 61_100;

/// In each body that is refused, and to be found nowhere afterwards.
const MARK: &str = "6d61726b-0000-4000-8000-6d61726b6564";

const EVERYTHING: &str = "/v1/conntrack_helpers";
const EVENTS: &str = "/v1/events";
const TRAFFIC: &str = "/v1/traffic";

const READS: &str = "
    GET /v2.0/routers/$router
    GET $rules
    GET $rules/$rule
    GET /v1/traffic/$router
";

/// Every way to change something on a router, in a form that would be right.
const CHANGES: &str = r#"
    POST $rules         | {"conntrack_helper":$marked}
    POST $rules         | {"conntrack_helpers":[$marked]}
    PUT $rules          | {"conntrack_helpers":[$marked]}
    PUT $rules          | {"conntrack_helpers":[]}
    PUT $rules/$rule    | {"conntrack_helper":{"port":2121}}
    DELETE $rules/$rule
"#;

/// Every way to change what spans all routers: first a set in which one router
/// alone would be different, then no rules at all.
const CHANGES_OF_ALL: &str = r#"
    PUT $all              | {"routers":[$changed,$as_it_is]}
    PUT $all?dry_run=true | {"routers":[$changed,$as_it_is]}
    PUT $all              | {"routers":[$changed]}
    PUT $all?dry_run=true | {"routers":[$changed]}
    PUT $all              | {"routers":[]}
    PUT $all?dry_run=true | {"routers":[]}
"#;

fn placeholders() -> Placeholders {
    let marked = json!({ "protocol": "tcp", "port": 2121, "helper": "ftp", "id": MARK });
    let plain = json!({ "protocol": "tcp", "port": 21, "helper": "ftp" });
    Placeholders::new()
        .with("$all", EVERYTHING)
        .with("$marked", &marked)
        .with("$plain", &plain)
}

fn requests(table: &str, placeholders: &Placeholders) -> Vec<ApiRequest> {
    let rows = placeholders.rows(table);
    rows.iter().map(|row| ApiRequest::of(row)).collect()
}

/// The requests of a table about a router and a rule of it.
fn about(router: RouterId, rule: &str, table: &str) -> Vec<ApiRequest> {
    let placeholders = placeholders()
        .with("$router", &router)
        .with("$rules", &rules_of(router))
        .with("$rule", rule);
    requests(table, &placeholders)
}

/// Two routers with a rule each, and grants to all but one of the users.
struct Fixture {
    served: Served,
    group: SocketGroup,
    b: BareRouter,
    rule_of_a: String,
    rule_of_b: String,
}

impl Fixture {
    fn new() -> Self {
        let builder = Served::builder();
        let (a, b) = (builder.router.id(), BareRouter::new(&builder.lab));
        let group = SocketGroup::any();
        let grants = format!(
            "[{{ users = [{READER}], role = \"reader\" }}, \
             {{ users = [{OPERATOR}], groups = [{GROUP}], role = \"operator\", routers = [\"{a}\"] }}, \
             {{ users = [{ADMIN}], role = \"admin\" }}]",
        );
        let served = builder
            .config(all_recorded)
            .config(|config| {
                let api = format!("{{ socket_group = {:?} }}", group.name);
                config.with("api", api).with("grant", grants)
            })
            .start();
        let [rule_of_a, rule_of_b] = [a, b.id()].map(|router| {
            let made = served.ask("POST", &rules_of(router), &ftp(21));
            assert_eq!(made.status, 201, "{made:?}");
            id_of(&made.body["conntrack_helper"])
        });
        Self {
            served,
            group,
            b,
            rule_of_a,
            rule_of_b,
        }
    }

    fn a(&self) -> RouterId {
        self.served.router.id()
    }

    fn root(&self) -> Caller {
        self.served.root()
    }

    /// A user who may open the socket, by a group that is not their first.
    fn user(&self, uid: u32) -> Caller {
        self.root().as_user(uid, uid, &[self.group.gid])
    }

    fn state(&self) -> State {
        State::of(self.served.lab.dir(), &[&self.served.router, &self.b])
    }

    /// That the store has so many rules, and the kernel the same.
    fn assert_settled(&self, count: usize) {
        self.served.assert_settled(count);
        self.b
            .assert_has(&stored(self.served.lab.dir()).expect("a good store"));
    }

    fn events(&self) -> Vec<Value> {
        audit::events(self.served.lab.dir())
    }

    /// The changes of what spans all routers, in which A would be different.
    fn changes_of_all(&self) -> Vec<ApiRequest> {
        let router =
            |id: RouterId, rules| format!(r#"{{"id":"{id}","conntrack_helpers":[{rules}]}}"#);
        let placeholders = placeholders()
            .with("$changed", &router(self.a(), "$plain,$marked"))
            .with("$as_it_is", &router(self.b.id(), "$plain"));
        requests(CHANGES_OF_ALL, &placeholders)
    }

    /// Asserts that requests are refused by a sentence with these words, that
    /// they have changed nothing, and that the trail says so once of each,
    /// without what was sent. Returns the sentences.
    fn refuses(&self, uid: u32, requests: &[ApiRequest], words: &[&str]) -> Vec<String> {
        let refuse = |request| self.refuses_one(uid, request, words);
        requests.iter().map(refuse).collect()
    }

    fn refuses_one(&self, uid: u32, request: &ApiRequest, words: &[&str]) -> String {
        let what = format!("{uid}: {} {}", request.method, request.path);
        let mapping = || self.served.ask("GET", EVERYTHING, "").body;
        let before = (self.state(), mapping());
        let recorded = self.events().len();

        let answer = self.user(uid).send(request);
        assert_forbidden(&answer, words, &what);

        self.state().assert_same(&before.0, &what);
        assert_eq!(before.1, mapping(), "{what}: the mapping");
        let events = self.events();
        assert_eq!(events.len(), recorded + 1, "{what}: one event");
        let router = ["/v2.0/routers/", "/v1/traffic/"]
            .iter()
            .find_map(|prefix| request.path.strip_prefix(prefix))
            .and_then(|rest| rest.split('/').next());
        let expected = json!({
            "event": "request", "outcome": "not_allowed", "operation": operation_of(request),
            "reason": answer.message(), "routers": router.as_slice(),
            "before": [], "before_count": 0, "after": [], "after_count": 0,
        });
        let event = &events[recorded];
        for (key, value) in expected.as_object().expect("an object") {
            assert_eq!(event[key], *value, "{what}: {key}");
        }
        let peer = &event["peer"];
        assert_eq!(
            (&peer["kind"], &peer["uid"], &peer["gid"]),
            (&json!("local"), &json!(uid), &json!(uid)),
            "{what}"
        );
        let trail = audit::text(self.served.lab.dir());
        assert!(!trail.contains(MARK), "{what}");
        answer.message().to_owned()
    }
}

/// What the trail calls a request, which is what it is called where it is done.
fn operation_of(ApiRequest { method, path, .. }: &ApiRequest) -> &'static str {
    let is_one_rule = path.split("/conntrack_helpers/").count() > 1;
    match (method.as_str(), path.split('?').next()) {
        ("GET", Some("/metrics")) => "scrape",
        ("GET", Some(EVENTS)) => "follow",
        ("GET", _) => "read",
        ("POST", _) => "create",
        ("PUT", Some(EVERYTHING)) => "apply",
        ("PUT", _) if is_one_rule => "update",
        ("PUT", _) => "replace",
        ("DELETE", _) => "delete",
        (other, _) => panic!("what is {other} called?"),
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

fn id_of(rule: &Value) -> String {
    rule["id"].as_str().expect("an id").to_owned()
}

fn ftp(port: u16) -> String {
    format!(r#"{{"conntrack_helper":{{"protocol":"tcp","port":{port},"helper":"ftp"}}}}"#)
}

fn assert_forbidden(answer: &Answer, words: &[&str], what: &str) {
    let kind = (answer.status, answer.kind());
    assert_eq!(kind, (403, "Forbidden"), "{what}: {answer:?}");
    for word in words {
        let message = answer.message();
        assert!(message.contains(word), "{what}: {message:?} lacks {word:?}");
    }
    assert!(!answer.body.to_string().contains(MARK), "{what}");
}
