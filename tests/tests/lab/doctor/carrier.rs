//! Which carrier is used, and why; and the table that reads it.

use super::*;

#[test]
fn the_carrier_and_its_reason() {
    let mut fixture = Fixture::new();
    let found = |said: &Diagnosis, result: &str, words: &[&str]| {
        said.assert_found("carrier", result, words);
    };
    found(&fixture.ask(), "ok", &["mark: the router has no NAT"]);
    nat(fixture.netns());
    fixture.reload();
    found(&fixture.ask(), "ok", &["priority: the router has NAT"]);
    // NAT goes, and the agent isn't there to see it.
    let (lab, router) = fixture.kill();
    router.netns().nft("delete table ip somebodys-nat");
    found(
        &ask(&lab),
        "warn",
        &["priority is in force, and mark is due"],
    );
    let by_priority = Config::of(&lab).with("carrier", "\"priority\"");
    let words = ["no NAT", "carrier = \\\"auto\\\"", "restart the agent"];
    found(&ask_with(&lab, &by_priority), "warn", &words);
    let _agent = Agent::start(&lab, &rules(&router));
    found(&ask(&lab), "ok", &["mark: the router has no NAT"]);
    let by_mark = Config::of(&lab).with("carrier", "\"mark\"");
    found(
        &ask_with(&lab, &by_mark),
        "ok",
        &["the configuration says so"],
    );
}

/// What the running agent was not told of: a reload doesn't read it.
#[test]
fn a_configuration_that_changed_takes_a_restart() {
    let mut fixture = Fixture::new();
    let other_bits = Config::of(&fixture.lab).with("mark_mask", "0xff");
    let by_mark = Config::of(&fixture.lab).with("carrier", "\"mark\"");
    let mut assert_found = |config: &Config, result: &str, what: &str| {
        for _ in 0..2 {
            let words = [what, "restart the agent"];
            ask_with(&fixture.lab, config).assert_found("carrier", result, &words);
            fixture.reload();
        }
        nat(fixture.netns());
        fixture.reload();
    };
    assert_found(&other_bits, "wrong", "not as the agent would make it");
    // There is NAT since.
    assert_found(&by_mark, "warn", "mark is due");

    let (lab, router) = fixture.kill();
    for config in [by_mark, other_bits] {
        let agent = Agent::start_with(&lab, &config, &rules(&router));
        ask_with(&lab, &config).assert_ok("carrier");
        assert_eq!(agent.stop().code, Some(0));
    }
}

/// The namespaces of a distributed router have one carrier.
#[test]
fn the_carrier_of_a_router_with_two_namespaces() {
    let mut fixture = Fixture::new();
    let snat = fixture.lab.netns(&format!("snat-{}", fixture.router.id()));
    nat(&snat);
    fixture.reload();
    let carriers = || -> Vec<Value> {
        let said = fixture.ask();
        said.assert_ok("carrier");
        said.of("carrier").cloned().collect()
    };
    let found = carriers();
    let places: Vec<_> = found.iter().map(|finding| &finding["place"]).collect();
    assert_eq!(
        places,
        [fixture.netns().name().as_str(), snat.name().as_str()]
    );
    for finding in &found {
        let what = finding["what"].as_str().expect("words");
        assert!(what.starts_with("mark: not each"), "{what}");
    }
    nat(fixture.netns());
    let rules = rules(&fixture.router);
    assert_eq!(fixture.0.agent.reload(&rules), Reload::Done);
    let found = ask(&fixture.lab);
    for finding in found.of("carrier") {
        let what = finding["what"].as_str().expect("words");
        assert!(what.starts_with("priority: each"), "{what}");
    }
}

#[test]
fn a_table_of_the_agents_that_is_lost_or_changed() {
    let (lab, router) = Fixture::new().kill();
    let netns = router.netns();
    let ruleset = netns.ruleset();
    let mut words = ruleset.split_whitespace();
    let name = words.find(|word| word.starts_with("conntrack-agent-"));
    let name = name.expect("the agent's table").to_owned();
    netns.nft(&format!("add rule inet {name} bind counter"));
    ask(&lab).assert_found("carrier", "wrong", &["not as the agent would make it"]);
    netns.nft(&format!("delete table inet {name}"));
    ask(&lab).assert_found("carrier", "wrong", &["missing"]);
    let _agent = Agent::start(&lab, &rules(&router));
    ask(&lab).assert_ok("carrier");
}
