//! What else than connections events tell of: changes, repairs, failures, recoveries.

use std::fs;
use std::time::Duration;

use conntrack_tests::agent::{Agent, Config, Reload};
use conntrack_tests::curl::curl;
use conntrack_tests::durable::BareRouter;
use conntrack_tests::lab::Lab;
use conntrack_tests::served::{Served, rules_of};
use conntrack_tests::wait;
use serde_json::Value;

/// Against hanging alone.
const LIMIT: Duration = Duration::from_mins(1);

#[test]
fn events_tell_of_changes_and_repairs_and_who_made_them() {
    let fixture = Served::new();
    let last = || fixture.ask("GET", "/v1/events?after=0", "").body["last"].clone();
    assert_eq!(last(), 0);
    let body = r#"{"conntrack_helper":{"protocol":"tcp","port":21,"helper":"ftp"}}"#;
    assert_eq!(fixture.ask("POST", &fixture.rules(), body).status, 201);
    // A refusal changes nothing, and is in the audit trail alone.
    assert_eq!(fixture.ask("POST", &fixture.rules(), body).status, 400);
    let heard = fixture.ask("GET", "/v1/events?after=0", "");
    let [change] = &heard.body["events"].as_array().expect("events")[..] else {
        panic!("one change: {}", heard.body);
    };
    assert_eq!(change["kind"], "change");
    assert_eq!(change["operation"], "create");
    assert_eq!(change["outcome"], "done");
    assert_eq!(change["sequence"], 1);
    let by = change["by"].as_str().expect("who");
    assert!(by.starts_with("uid 0 (pid "), "{by}");
    assert_eq!(change["added"][0]["helper"], "ftp");
    assert_eq!(
        (&change["added_count"], &change["removed_count"]),
        (&1.into(), &0.into())
    );

    fixture.router.netns().nft("flush ruleset");
    let heard = fixture.ask("GET", "/v1/events?after=1&wait=20", "");
    let repair = &heard.body["events"][0];
    assert_eq!(repair["kind"], "repair", "{}", heard.body);
    assert_eq!(repair["router_id"], fixture.router.id().to_string());
    assert_eq!(repair["effects"]["bind"], 1);
    for query in ["after=x", "wait=21", "since=1", "after=1&after=1"] {
        let refused = fixture.ask("GET", &format!("/v1/events?{query}"), "");
        assert_eq!(refused.status, 400, "{query}");
    }
}

#[test]
fn events_tell_of_failures_and_of_recoveries_whatever_brings_them() {
    let lab = Lab::new();
    let router = BareRouter::new(&lab);
    let refuse = lab.dir().path().join("refuse");
    let script = format!(
        "if [ -e {} ]; then echo 'Error: refused' >&2; exit 1; fi",
        refuse.display()
    );
    let config = Config::of(&lab).with_nft(&lab, &script);
    let ftp = |port: u16| format!("{{ protocol = \"tcp\", port = {port}, helper = \"ftp\" }}");
    let id = router.id().to_string();
    let rules = format!("[[router]]\nid = \"{id}\"\nhelpers = [{}]\n", ftp(21));
    let mut agent = Agent::start_with(&lab, &config, &rules);
    let socket = lab.dir().run_dir().join("agent.sock");
    wait::until(LIMIT, || socket.exists().then_some(())).expect("an agent that listens");

    let mut last = 0;
    // Until one of this kind has come, and which have come with it.
    let mut hear = |until: &str| {
        let mut kinds = Vec::new();
        let heard = wait::until(LIMIT, || {
            let path = format!("/v1/events?wait=5&after={last}");
            let heard = curl(&socket, "GET", &path, "").body;
            last = heard["last"].as_u64().expect("a number");
            let events = heard["events"].as_array().expect("events").clone();
            kinds.extend(events.iter().map(|event| event["kind"].clone()));
            events.into_iter().find(|event| event["kind"] == until)
        });
        let heard = heard.unwrap_or_else(|| panic!("no {until}: {kinds:?}"));
        assert_eq!(heard["router_id"], id.as_str(), "{heard}");
        (heard, kinds)
    };
    let fail = |hear: &mut dyn FnMut(&str) -> (Value, Vec<Value>)| {
        fs::write(&refuse, "").expect("a file");
        router.netns().nft("flush ruleset");
        let (mut failure, _) = hear("failure");
        let reason = failure["reason"].as_str().expect("a reason").to_owned();
        assert!(reason.contains("refused"), "{reason}");
        assert_eq!(failure["failures"], 1);
        // The next look is some time away then.
        while failure["failures"].as_u64() < Some(4) {
            failure = hear("failure").0;
        }
        fs::remove_file(&refuse).expect("no file");
    };
    let recovered = |hear: &mut dyn FnMut(&str) -> (Value, Vec<Value>)| {
        let (_, kinds) = hear("recovery");
        let recoveries = kinds.iter().filter(|kind| *kind == "recovery");
        assert_eq!(recoveries.count(), 1, "{kinds:?}");
    };
    // A look, a reload, a change.
    fail(&mut hear);
    recovered(&mut hear);
    fail(&mut hear);
    assert_eq!(agent.reload(&rules), Reload::Done);
    recovered(&mut hear);
    fail(&mut hear);
    let path = rules_of(&id);
    let body = r#"{"conntrack_helper":{"protocol":"udp","port":69,"helper":"tftp"}}"#;
    assert_eq!(curl(&socket, "POST", &path, body).status, 201);
    recovered(&mut hear);
}
