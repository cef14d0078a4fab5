//! What an agent makes of an instance that is there when it starts, and of one
//! that has become too small.

use std::fs;
use std::path::{Path, PathBuf};

use conntrack_agent::kernel::{AgentId, Build, Carrier, Instance, MarkBits, Object, Pins};
use conntrack_agent::port_table::Capacity;
use conntrack_tests::agent::{Agent, Config, Reload, run_to_exit};
use conntrack_tests::durable::{BareRouter, stored};
use conntrack_tests::foreign::ForeignProgram;
use conntrack_tests::ftp_router::{FtpRouter, PORT};
use conntrack_tests::helpers::{Rule, rules_file, rules_of};
use conntrack_tests::lab::Lab;
use conntrack_tests::netns::Netns;
use conntrack_tests::snapshot::{assert_same, ingress_programs};
use conntrack_tests::wait;

/// Loads an instance of the router as an agent with this id would have.
fn load(fixture: &FtpRouter, folder: &Path, agent: AgentId) {
    let carrier = MarkBits::new(0xff00_0000).expect("the default");
    let shared = fixture.pins().shared();
    let mut object = Object::new(Build::built_in(), agent, carrier, shared);
    let capacity = Capacity::DEFAULT;
    Instance::create(&mut object, folder, fixture.id, capacity, Carrier::Mark)
        .expect("an instance");
}

fn owner_of(fixture: &FtpRouter) -> AgentId {
    fixture.instance().expect("an instance").owner()
}

fn folder_of(fixture: &FtpRouter) -> PathBuf {
    fixture.pins().instance(fixture.id)
}

#[test]
fn a_router_that_outgrows_its_instance_gets_a_larger_one_with_its_counters() {
    let fixture = FtpRouter::new();
    let mut agent = fixture.start();
    fixture.assert_works();
    let before = fixture.program();
    let small = fixture.counted();
    assert!(small.packets > 0);

    // More slots than the default has, and more pages.
    let mut rules: Vec<_> = (0..200).map(|high| Rule::tftp(high * 256 + 69)).collect();
    rules.insert(100, Rule::ftp(PORT));
    let many = rules_file(&[(&fixture.site.router, &rules)]);
    assert_eq!(agent.reload(&many), Reload::Done);
    assert_ne!(fixture.program(), before, "another program, by link update");
    assert_eq!(fixture.program().len(), 1, "in the old one's place");
    assert_eq!(fixture.counted(), small, "with what was counted so far");
    fixture.assert_works();
    assert!(fixture.counted().packets > small.packets);
    assert!(!fixture.pins().next_instance(fixture.id).exists());
}

#[test]
fn more_rules_than_allowed_are_refused_and_the_old_ones_stay() {
    let fixture = FtpRouter::new();
    let limits = "{ rules_per_router = 3 }";
    let config = fixture.config().with("limits", limits);
    let mut agent = fixture.start_with(&config);
    let rules = |count| {
        let rules: Vec<_> = (1..count)
            .map(Rule::tftp)
            .chain([Rule::ftp(PORT)])
            .collect();
        rules_file(&[(&fixture.site.router, &rules)])
    };
    assert_eq!(agent.reload(&rules(4)), Reload::Refused);
    agent.wait_for_log("would have 4 rules; 3 are allowed");
    fixture.assert_works();
    assert_eq!(agent.reload(&rules(3)), Reload::Done);
    fixture.assert_works();
}

#[test]
fn a_helper_that_the_operator_does_not_allow_is_refused() {
    let fixture = FtpRouter::new();
    let config = fixture.config().with("allowed_helpers", "[\"tftp\"]");
    let exit = fixture.run_to_exit(&config);
    assert_eq!(exit.code, Some(78), "{exit:?}");
    assert!(
        exit.stderr
            .contains("helper ftp is not allowed on this host")
    );
}

#[test]
fn another_mark_mask_needs_another_instance_in_the_same_place() {
    let fixture = FtpRouter::new();
    let agent = fixture.start();
    let before = fixture.program();
    assert_eq!(agent.kill().code, None);
    let config = fixture.config().with("mark_mask", "0x00000f00");
    let config = config.with("carrier", "\"mark\"");
    let _agent = fixture.start_with(&config);
    assert_ne!(fixture.program(), before);
    assert_eq!(fixture.program().len(), 1);
    let ruleset = fixture.netns.ruleset();
    assert!(ruleset.contains("0x00000100 : \"ftp-tcp\""), "{ruleset}");
    fixture.assert_works();
}

#[test]
fn an_agent_that_died_while_an_instance_was_renewed_goes_on_from_there() {
    let fixture = FtpRouter::new();
    let agent = fixture.start();
    let program = fixture.program();
    let owner = owner_of(&fixture);
    assert_eq!(agent.kill().code, None);

    // It died when the links had the new program and the old pins were gone.
    fs::rename(folder_of(&fixture), fixture.pins().successor(fixture.id))
        .expect("a renamed folder");
    let agent = fixture.start();
    assert_eq!(fixture.program(), program, "the same program");
    assert!(!fixture.pins().successor(fixture.id).exists());
    fixture.assert_works();
    assert_eq!(agent.kill().code, None);

    // It died before the links had it.
    load(&fixture, &fixture.pins().next_instance(fixture.id), owner);
    let agent = fixture.start();
    assert_eq!(fixture.program(), program, "the same program");
    assert!(!fixture.pins().next_instance(fixture.id).exists());
    fixture.assert_works();
    assert_eq!(agent.kill().code, None);

    // It died while it pinned: the instance is not whole.
    fs::remove_file(folder_of(&fixture).join("SLOTS")).expect("a removed pin");
    let _agent = fixture.start();
    assert_ne!(fixture.program(), program, "a new one in its place");
    assert_eq!(fixture.program().len(), 1);
    fixture.assert_works();
}

#[test]
fn what_somebody_removed_is_there_again_after_a_reload() {
    let fixture = FtpRouter::new();
    let mut agent = fixture.start();
    let router = &fixture.netns;
    let lab_table = router.tool("nft", ["list", "table", "inet", "lab"], "");
    // At once: a router without NAT for a moment would have another carrier.
    router.nft(&format!("flush ruleset\n{lab_table}"));
    assert_eq!(agent.reload(&fixture.rules()), Reload::Done);
    agent.wait_for_log("effects=1");
    fixture.assert_works();
}

#[test]
fn a_lost_footprint_is_recovered_from_what_is_pinned() {
    let fixture = FtpRouter::new();
    let agent = fixture.start();
    let (owner, program) = (owner_of(&fixture), fixture.program());
    assert_eq!(agent.kill().code, None);
    let footprint = fixture.lab.dir().state_dir().join("footprint.json");
    fs::remove_file(&footprint).expect("a removed footprint");
    let agent = fixture.start();
    assert_eq!(owner_of(&fixture), owner);
    assert_eq!(fixture.program(), program);
    assert_eq!(agent.kill().code, None);

    fs::remove_file(&footprint).expect("a removed footprint");
    fixture.assert_cleans_up();
    assert_left(&fixture.netns, fixture.site.router.client_side());
    let ruleset = fixture.netns.ruleset();
    assert!(!ruleset.contains("conntrack-agent"), "{ruleset}");
}

#[test]
fn another_agents_instances_are_neither_used_nor_removed() {
    let fixture = FtpRouter::new();
    // An agent that has run here, and has nothing on this router.
    assert_eq!(Agent::start(&fixture.lab, "").stop().code, Some(0));
    let folder = folder_of(&fixture);
    fs::create_dir_all(folder.parent().expect("a folder above")).expect("folders");
    load(&fixture, &folder, AgentId::random());
    let before = fixture.snapshot();

    let config = fixture.config();
    let exit = fixture.run_to_exit(&config);
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert!(
        exit.stderr.contains("give each agent its own bpffs_dir"),
        "{exit:?}"
    );
    // The store was written and put back: the same rules, another file.
    let (mut before, mut after) = (before, fixture.snapshot());
    for snapshot in [&mut before, &mut after] {
        let state = fixture.lab.dir().state_dir();
        snapshot.forget_file(&state.join("mapping.redb"));
        snapshot.forget_file(&state.join("mapping.redb-changes"));
        // They say whose they were last.
        snapshot.forget_locks(&fixture.lab);
    }
    assert_same(&before, &after);

    let cleanup = fixture.cleanup();
    assert_eq!(cleanup.code, Some(0), "{cleanup:?}");
    assert!(cleanup.stderr.contains("another agent's"), "{cleanup:?}");
    assert!(folder.join("classify").exists());
}

/// A link follows its interface into another namespace, and the number that the
/// interface had is given to the next one.
#[test]
fn an_interface_that_took_a_moved_ones_number_is_classified() {
    let fixture = FtpRouter::new();
    let mut agent = fixture.start();
    let router = &fixture.netns;
    let elsewhere = fixture.lab.netns("elsewhere");
    router.ip("link add moved index 77 type veth peer name far");
    assert_eq!(agent.reload(&fixture.rules()), Reload::Done);
    assert_eq!(ingress_programs(router, "moved"), fixture.program());
    router.ip(&format!(
        "link set moved netns {}",
        elsewhere.path().display()
    ));
    router.ip("link add second index 77 type veth peer name far2");
    assert_eq!(agent.reload(&fixture.rules()), Reload::Done);
    assert_eq!(ingress_programs(router, "second"), fixture.program());
    assert_left(&elsewhere, "moved");
}

#[test]
fn a_distributed_routers_rules_serve_its_snat_namespace_too() {
    let fixture = FtpRouter::new();
    let snat = fixture
        .lab
        .netns(&format!("snat-{}", fixture.site.router.id()));
    snat.ip("link add sg-1 type veth peer name far");
    let agent = fixture.start();
    assert_eq!(ingress_programs(&snat, "sg-1"), fixture.program());
    assert!(snat.ruleset().contains("ct helper ftp-tcp"));
    assert_eq!(
        ingress_programs(&snat, "lo"),
        [0; 0],
        "nothing enters by lo"
    );
    assert_eq!(agent.kill().code, None);
    fixture.assert_cleans_up();
    assert_left(&snat, "sg-1");
    assert_eq!(snat.ruleset(), "");
}

#[test]
fn our_program_is_in_front_of_another() {
    let fixture = FtpRouter::new();
    let router = &fixture.netns;
    let foreign = ForeignProgram::attach(router, fixture.site.router.client_side());
    let before = fixture.program();
    let _agent = fixture.start();
    let [ours, other] = fixture.program()[..] else {
        panic!("two programs");
    };
    assert_eq!(before, [other]);
    assert_ne!(ours, other);
    drop(foreign);
}

/// A repair is no part of a change that is refused: it stays.
#[test]
fn a_refused_change_elsewhere_does_not_undo_a_repair() {
    let fixture = FtpRouter::new();
    let agent = fixture.start();
    fs::remove_file(folder_of(&fixture).join("SLOTS")).expect("a removed pin");
    assert_eq!(agent.kill().code, None);
    let id = uuid::Uuid::new_v4().to_string();
    let other = fixture.lab.netns(&format!("qrouter-{id}"));
    other.ip("link add qr-1 type veth peer name far");
    let config = refusing_in(&fixture.lab, &other);
    let both = fixture.rules() + &rules_of(id.as_str(), &[Rule::ftp(1)]);
    let exit = run_to_exit(&fixture.lab, &config, &both, &[]);
    assert_eq!(exit.code, Some(1), "{exit:?}");
    fixture.assert_works();
    let _agent = fixture.start();
    fixture.assert_works();
}

/// That no program is on the interface any more. The kernel lets go of a link
/// some time after its pin is removed (`bpf_link_put` in `kernel/bpf/syscall.c`).
pub(crate) fn assert_left(netns: &Netns, interface: &str) {
    let gone = || ingress_programs(netns, interface).is_empty().then_some(());
    let gone = wait::until(wait::patience(), gone);
    assert!(gone.is_some(), "a program stays on {interface}");
}

/// With an nft that refuses to work in one namespace.
fn refusing_in(lab: &Lab, netns: &Netns) -> Config {
    let script = format!(
        "if [ \"$(stat -Lc %i /proc/self/ns/net)\" = \"$(stat -c %i {})\" ]; then\n\
         echo 'Error: refused' >&2; exit 1\n\
         fi",
        netns.path().display()
    );
    Config::of(lab).with_nft(lab, &script)
}

#[test]
fn a_second_agent_is_told_who_runs() {
    let fixture = FtpRouter::new();
    let _agent = fixture.start();
    let before = fixture.snapshot();
    let config = fixture.config();
    let second = fixture.run_to_exit(&config);
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(second.stderr.contains("another agent is running (pid "));
    let cleanup = fixture.cleanup();
    assert_eq!(cleanup.code, Some(1), "{cleanup:?}");
    assert!(cleanup.stderr.contains("another agent is running (pid "));
    assert_same(&before, &fixture.snapshot());
}

#[test]
fn a_router_whose_interfaces_were_all_gone_is_classified_when_they_come_again() {
    let lab = Lab::new();
    let router = BareRouter::new(&lab);
    let rules = router.rules_file(&[Rule::ftp(21)]);
    let mut agent = Agent::start(&lab, &rules);
    let mapping = stored(lab.dir()).expect("the store");
    router.assert_has(&mapping);
    router.unplug();
    // The links are reaped, the last one too.
    assert_eq!(agent.reload(&rules), Reload::Done);
    let links = Pins::new(lab.dir().agent_bpffs_dir()).links_of(router.id());
    assert_eq!(links.expect("the links").len(), 0);
    router.plug();
    assert_eq!(agent.reload(&rules), Reload::Done);
    router.assert_has(&mapping);
}
