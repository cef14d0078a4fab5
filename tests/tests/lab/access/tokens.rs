//! Tokens over TCP: who they stand for, and which files of them are refused.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use conntrack_tests::agent::{Agent, Config, run_to_exit};
use conntrack_tests::audit;
use conntrack_tests::curl::Caller;
use conntrack_tests::durable::BareRouter;
use conntrack_tests::helpers::Rule;
use conntrack_tests::lab::Lab;
use conntrack_tests::served::rules_of;
use conntrack_tests::snapshot::{Snapshot, assert_same};
use conntrack_tests::state::State;
use serde_json::json;

use super::{
    CHANGES, MARK, READS, STRANGER, about, all_recorded, assert_forbidden, ftp, id_of,
    placeholders, requests,
};

const ALICE: &str = "alice-has-4f1c7a9e5b";
const BOB: &str = "bob-has-80e2d6c3a1f4";
const NOBODY: &str = "nobody-has-73b1d0e4c2";

/// What is no router's in particular.
const GENERAL: &str = r#"
    GET /
    GET /metrics
    GET /v1/events
    GET /v1/traffic
    PUT $all        | {"routers":[]}
"#;

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

fn on_tcp(config: Config, listen: SocketAddr, tokens: &Path) -> Config {
    let tokens = tokens.to_str().expect("text");
    let tcp = format!("{{ listen = \"{listen}\", token_file = {tokens:?} }}");
    config.with("tcp", tcp)
}

/// A port that is taken as long as the listener lives.
fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("its address");
    (listener, address)
}

/// A port that is free now.
fn free_port() -> SocketAddr {
    listener().1
}

/// An agent on a free port. Somebody may take it before the agent does; then
/// there are others.
fn agent_on_tcp(lab: &Lab, config: &Config, tokens: &Path) -> (Agent, SocketAddr) {
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
    let alice = Caller::tcp(address).with_token(ALICE);
    let made = alice.ask("POST", &rules, &ftp(21));
    assert_eq!(made.status, 201, "{made:?}");
    let rule = id_of(&made.body["conntrack_helper"]);
    let event = audit::events(lab.dir()).pop().expect("an event");
    assert_eq!(event["peer"], json!({ "kind": "token", "name": "alice" }));
    assert_eq!(event["outcome"], "done");
    assert_eq!(event["operation"], "create");

    let before = State::of(lab.dir(), &[&a, &b]);
    let mut all = about(a.id(), &rule, CHANGES);
    all.extend(about(a.id(), &rule, READS));
    all.extend(requests(GENERAL, &placeholders()));
    let longer = format!("{ALICE}0");
    let (shorter, _) = ALICE.split_at(ALICE.len() - 1);
    let strangers = [
        (None, "is wanted"),
        (Some(""), "not known"),
        (Some("alice"), "not known"),
        (Some(shorter), "not known"),
        (Some(&*longer), "not known"),
        (Some(NOBODY), "not known"),
    ];
    for (token, words) in strangers {
        let tcp = Caller::tcp(address);
        let caller = token.map_or(tcp.clone(), |token| tcp.with_token(token));
        for request in &all {
            let recorded = audit::events(lab.dir()).len();
            let answer = caller.send(request);
            let kind = (answer.status, answer.kind());
            assert_eq!(kind, (401, "Unauthorized"), "{token:?}: {answer:?}");
            assert!(answer.message().contains(words), "{token:?}: {answer:?}");
            let events = audit::events(lab.dir());
            assert_eq!(events.len(), recorded + 1, "{token:?}: one event");
            assert_eq!(events[recorded]["outcome"], "not_allowed");
            assert_eq!(events[recorded]["peer"]["kind"], "unknown");
        }
    }
    // A token that no grant names, and one whose grant is about another router.
    let bob = Caller::tcp(address).with_token(BOB).ask("GET", "/", "");
    assert_forbidden(&bob, &["no grant names token \"bob\""], "bob");
    let metrics = alice.ask("GET", "/metrics", "");
    assert_forbidden(&metrics, &["grant 1 (role operator)", "admin"], "alice");
    for request in about(b.id(), &rule, CHANGES) {
        let words = ["grant 1 (role operator) does not cover router"];
        assert_forbidden(&alice.send(&request), &words, "alice");
    }
    State::of(lab.dir(), &[&a, &b]).assert_same(&before, "what is refused");
    // Over the Unix socket none is needed, and none makes anybody more.
    let local = Caller::local(&lab.dir().socket());
    assert_eq!(local.ask("GET", &rules, "").status, 200);
    assert_eq!(local.with_token(NOBODY).ask("GET", &rules, "").status, 200);

    let exit = agent.stop();
    assert_eq!(exit.code, Some(0), "{exit:?}");
    let trail = audit::text(lab.dir());
    for secret in [ALICE, BOB, NOBODY, shorter, MARK] {
        assert!(!trail.contains(secret), "the trail has {secret}");
        assert!(!exit.stderr.contains(secret), "the log has {secret}");
    }
    let free = TcpListener::bind(address);
    assert!(free.is_ok(), "nobody listens any more");
}

/// An agent that is to listen with such a token file does not start, says why
/// in one sentence with these words and without a token, and leaves nothing.
fn assert_no_start(lab: &Lab, address: SocketAddr, tokens: &Path, words: &[&str]) {
    let router = BareRouter::new(lab);
    let config = on_tcp(Config::of(lab), address, tokens);
    let (before, kernel) = (Snapshot::take(lab, &[]), router.in_kernel());
    let exit = run_to_exit(lab, &config, &router.rules_file(&[Rule::ftp(21)]), &[]);
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
    let refused = |file: &Path, words: [&str; 2]| {
        let words = ["tokens is refused", words[0], words[1]];
        assert_no_start(&lab, free_port(), file, &words);
    };
    for mode in [0o640, 0o604, 0o620, 0o602, 0o610, 0o666] {
        let file = token_file(&lab, &tokens(), mode);
        refused(&file, [&format!("mode is {mode:04o}"), "0600 is wanted"]);
    }
    let file = token_file(&lab, &tokens(), 0o600);
    chown(&file, Some(STRANGER), None).expect("another owner");
    let owner = format!("owner is user {STRANGER}");
    refused(&file, [&owner, "root is wanted"]);
    chown(&file, Some(0), None).expect("root's again");
    // The same file is a good one now.
    let (agent, address) = agent_on_tcp(&lab, &Config::of(&lab), &file);
    let bob = Caller::tcp(address).with_token(BOB).ask("GET", "/", "");
    assert_eq!(bob.status, 403, "known, and without a grant");
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
    let (_taken, address) = listener();
    assert_no_start(&lab, address, &file, &[&address.to_string(), "listened"]);
}
