//! The agent's own pins and footprint.

use conntrack_ebpf::abi;
use conntrack_tests::agent::subcommand;
use conntrack_tests::release::Release;

use super::*;

#[test]
fn a_folder_that_was_moved() {
    let (lab, _router) = Fixture::new().kill();
    let other = format!("{:?}", lab.dir().bpf_dir().join("other").to_string_lossy());
    let moved = Config::of(&lab).with("bpffs_dir", other);
    ask_with(&lab, &moved).assert_found("agent", "wrong", &["bpffs_dir"]);
    ask(&lab).assert_ok("agent");
}

#[test]
fn anothers_pins_in_this_agents_folder() {
    let (lab, _router) = Fixture::new().kill();
    let footprint = lab.dir().state_dir().join("footprint.json");
    let own = fs::read_to_string(&footprint).expect("the footprint");
    let mut json: Value = serde_json::from_str(&own).expect("JSON");
    json["agent"] = Uuid::new_v4().to_string().into();
    fs::write(&footprint, json.to_string()).expect("another's footprint");
    ask(&lab).assert_found("agent", "wrong", &["bpffs_dir"]);
    fs::write(&footprint, own).expect("its own");
    ask(&lab).assert_ok("agent");
}

#[test]
fn rules_whose_pins_are_not_whole() {
    let (lab, router) = Fixture::new().kill();
    let instance = Pins::new(lab.dir().agent_bpffs_dir()).instance(router.id());
    assert!(matches!(Instance::open(&instance), Ok(Usable::Whole(_))));
    fs::remove_file(instance.join("SLOTS")).expect("a map's pin");
    let said = ask(&lab);
    said.assert_found("routers", "wrong", &[&router.id().to_string()]);
    said.assert_found("carrier", "unknown", &["not whole"]);
    let _agent = Agent::start(&lab, &rules(&router));
    ask(&lab).assert_ok("routers");
}

/// As after an upgrade, before the restart.
#[test]
fn rules_of_an_older_agent_are_in_force() {
    let lab = Lab::new();
    let router = BareRouter::new(&lab);
    let program = env!("CARGO_BIN_EXE_another_release");
    let older = Release::new(&lab, program, abi::VERSION - 1, 0);
    let agent = Agent::start_release(&lab, &rules(&router), &older);
    let said = ask(&lab);
    let version = format!("ABI version {}", abi::VERSION - 1);
    let words = [version.as_str(), "older agent", "restart the agent"];
    said.assert_found("routers", "warn", &words);
    said.assert_found("routers", "ok", &["1 of them with rules in force"]);
    said.assert_found("carrier", "unknown", &["older agent"]);
    // They are the agent's own, and in nobody's way.
    for check in ["agent", "programs", "marks", "other-helpers"] {
        said.assert_ok(check);
    }
    assert_eq!(agent.stop().code, Some(0));
    let _agent = Agent::start(&lab, &rules(&router));
    let said = ask(&lab);
    for check in ["routers", "carrier"] {
        said.assert_ok(check);
    }
}

#[test]
fn what_a_newer_agent_has_pinned() {
    let (lab, router) = Fixture::new().kill();
    ask(&lab).assert_ok("agent");
    let program = env!("CARGO_BIN_EXE_another_release");
    let newer = Release::new(&lab, program, abi::VERSION + 1, 0);
    let agent = Agent::start_release(&lab, &rules(&router), &newer);
    assert_eq!(agent.kill().code, None);
    let version = format!("ABI version {}", abi::VERSION + 1);
    let words = [version.as_str(), "run the agent that was here last"];
    ask(&lab).assert_found("agent", "wrong", &words);
    // The other way out, which the sentence names.
    let cleanup = subcommand(&lab, "cleanup");
    assert_eq!(cleanup.code, Some(0), "{cleanup:?}");
    ask(&lab).assert_ok("agent");
}
