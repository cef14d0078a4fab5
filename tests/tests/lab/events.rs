//! What else than connections events tell of: changes, repairs, failures, recoveries.

use std::fs;
use std::process::Command;

use conntrack_agent::kernel::Pins;
use conntrack_tests::agent::{Agent, Config, Reload, listening};
use conntrack_tests::attach;
use conntrack_tests::curl::curl;
use conntrack_tests::durable::BareRouter;
use conntrack_tests::helpers::Rule;
use conntrack_tests::lab::Lab;
use conntrack_tests::process::{Process, Stream};
use conntrack_tests::served::{Served, rules_of};
use conntrack_tests::snapshot::interfaces;
use conntrack_tests::wait;
use serde_json::Value;

use crate::metrics::{sample, scrape};

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
    let id = router.id().to_string();
    let rules = router.rules_file(&[Rule::ftp(21)]);
    let mut agent = Agent::start_with(&lab, &config, &rules);
    let socket = listening(&lab);

    let mut last = 0;
    // Until one of this kind has come, and which have come with it.
    let mut hear = |until: &str| {
        let mut kinds = Vec::new();
        let heard = wait::until(wait::patience(), || {
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

/// Each takes a place of those who may wait, as long as it is there.
#[test]
fn so_many_may_wait_and_no_more_and_who_goes_gives_its_place_back() {
    const PLACES: usize = 16;
    let fixture = Served::new();
    let waiting = || {
        let mut command = Command::new("curl");
        command
            .args(["--silent", "--unix-socket"])
            .arg(fixture.socket())
            .arg("http://localhost/v1/events?after=0&wait=20");
        Process::start(None, command)
    };
    // One too many, whichever it is.
    let mut clients: Vec<_> = (0..=PLACES).map(|_| waiting()).collect();
    let said = format!("{PLACES} wait for events already");
    let refused = || {
        let answers = clients.iter().map(|client| client.text(Stream::Out));
        let refused = answers.filter(|answer| answer.contains(&said)).count();
        (refused > 0).then_some(refused)
    };
    assert_eq!(wait::until(wait::patience(), refused), Some(1));
    // Without waiting anybody is answered.
    assert_eq!(fixture.ask("GET", "/v1/events?after=0", "").status, 200);
    // One of those who wait goes; the others are still there when its place is taken.
    let is_silent = |client: &Process| client.text(Stream::Out).is_empty();
    let at = clients.iter().position(is_silent).expect("one who waits");
    drop(clients.swap_remove(at));
    let answered = wait::until(wait::patience(), || {
        let answer = fixture.ask("GET", "/v1/events?after=0&wait=1", "");
        (answer.status == 200).then_some(())
    });
    answered.expect("a place");
    let waiting = clients.iter().filter(|client| is_silent(client)).count();
    assert_eq!(waiting, PLACES - 1, "nobody else's time was over");
}

/// More links than a start makes at once come later, one router at a time; nobody has
/// taken anything away for that.
#[test]
fn what_a_start_leaves_for_later_is_no_repair() {
    const PAIRS: usize = 50;
    if attach::is_by_filters() {
        return;
    }
    let lab = Lab::new();
    let router = BareRouter::new(&lab);
    let pair = |number| format!("link add many-{number} type veth peer name peer-{number}\n");
    let commands: String = (0..PAIRS).map(pair).collect();
    router.netns().ip(&commands);
    let rules = router.rules_file(&[Rule::ftp(21)]);
    // With `attach = "tcx"` a start makes all links at once.
    let config = Config::of(&lab).with("attach", "\"auto\"");
    let agent = Agent::start_with(&lab, &config, &rules);
    let pins = Pins::new(lab.dir().agent_bpffs_dir());
    let filters = || {
        let pins = pins.links_of(router.id()).expect("the pins").into_iter();
        pins.filter(|pin| pin.is_dir()).count()
    };
    wait::until(wait::patience(), || (filters() == 0).then_some(())).expect("links alone");
    // Where the start left none for later, each is attached to once.
    let attached = agent.log_count("effect=attach to");
    let number = interfaces(router.netns()).len();
    assert!(attached > number, "{attached} times to {number}");
    let socket = listening(&lab);
    let heard = |path: &str| curl(&socket, "GET", path, "").body["events"].clone();
    let said = heard("/v1/events?after=0");
    let [change] = &said.as_array().expect("events")[..] else {
        panic!("not the rules file's change alone: {said}");
    };
    assert_eq!(change["kind"], "change");
    let text = scrape(&socket);
    let repairs = sample(&text, "conntrack_agent_repairs_total", &["kind=\"attach\""]);
    assert_eq!(repairs, Some(0));

    // What somebody does take away is.
    router.netns().nft("flush ruleset");
    let repair = wait::until(wait::patience(), || {
        let heard = heard("/v1/events?after=1&wait=5");
        heard.get(0).cloned()
    });
    assert_eq!(repair.expect("a repair")["kind"], "repair");
}
