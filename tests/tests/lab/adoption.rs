//! What an agent makes of an instance that is there when it starts, and of one
//! that has become too small.

use std::fs;
use std::ops::Deref;
use std::time::Duration;

use conntrack_agent::kernel::{AgentId, Build, Carrier, Instance, MarkBits, Object, Pins, Usable};
use conntrack_agent::port_table::Capacity;
use conntrack_tests::agent::{Agent, Config, Reload, rewrite_config, run_to_exit, subcommand};
use conntrack_tests::counters::rule_counters;
use conntrack_tests::durable::{BareRouter, stored};
use conntrack_tests::foreign::ForeignProgram;
use conntrack_tests::ftp_router::{FtpRouter, PORT};
use conntrack_tests::helpers::{Rule, rules_file};
use conntrack_tests::lab::Lab;
use conntrack_tests::netns::Netns;
use conntrack_tests::snapshot::{Snapshot, assert_same, ingress_programs};
use conntrack_tests::wait;

struct Fixture(FtpRouter);

impl Deref for Fixture {
    type Target = FtpRouter;

    fn deref(&self) -> &FtpRouter {
        &self.0
    }
}

impl Fixture {
    fn new() -> Self {
        Self(FtpRouter::new())
    }

    fn instance(&self) -> std::path::PathBuf {
        let id = self.site.router.id().to_string();
        self.pins().instance(id.parse().expect("a router id"))
    }

    fn next_instance(&self) -> std::path::PathBuf {
        let id = self.site.router.id().to_string();
        self.pins().next_instance(id.parse().expect("a router id"))
    }

    fn successor(&self) -> std::path::PathBuf {
        let id = self.site.router.id().to_string();
        self.pins().successor(id.parse().expect("a router id"))
    }

    /// Loads an instance as an agent with this id would have.
    fn load(&self, folder: &std::path::Path, agent: AgentId) {
        let carrier = MarkBits::new(0xff00_0000).expect("the default");
        let shared = self.pins().shared();
        let mut object = Object::new(Build::built_in(), agent, carrier, shared);
        let id = self.site.router.id().to_string();
        let id = id.parse().expect("a router id");
        Instance::create(&mut object, folder, id, Capacity::DEFAULT, Carrier::Mark)
            .expect("an instance");
    }

    fn owner(&self) -> AgentId {
        match Instance::open(&self.instance()) {
            Ok(Usable::Whole(instance)) => instance.owner(),
            _ => panic!("no instance"),
        }
    }
}

#[test]
fn a_router_that_outgrows_its_instance_gets_a_larger_one_with_its_counters() {
    let fixture = Fixture::new();
    let mut agent = Agent::start(&fixture.lab, &fixture.rules());
    fixture.assert_works();
    let before = fixture.program();
    let counted = || {
        rule_counters(fixture.lab.dir(), &fixture.site.router, Rule::ftp(PORT)).expect("counters")
    };
    let small = counted();
    assert!(small.packets > 0);

    // More slots than the default has, and more pages.
    let mut rules: Vec<_> = (0..200).map(|high| Rule::tftp(high * 256 + 69)).collect();
    rules.insert(100, Rule::ftp(PORT));
    let many = rules_file(&[(&fixture.site.router, &rules)]);
    assert_eq!(agent.reload(&many), Reload::Done);
    assert_ne!(fixture.program(), before, "another program, by link update");
    assert_eq!(fixture.program().len(), 1, "in the old one's place");
    assert_eq!(counted(), small, "with what was counted so far");
    fixture.assert_works();
    assert!(counted().packets > small.packets);
    assert!(!fixture.next_instance().exists());
}

#[test]
fn more_rules_than_allowed_are_refused_and_the_old_ones_stay() {
    let fixture = Fixture::new();
    let limits = "{ rules_per_router = 3 }";
    let config = Config::of(&fixture.lab).with("limits", limits);
    let mut agent = Agent::start_with(&fixture.lab, &config, &fixture.rules());
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
    let fixture = Fixture::new();
    let config = Config::of(&fixture.lab).with("allowed_helpers", "[\"tftp\"]");
    let exit = run_to_exit(&fixture.lab, &config, &fixture.rules(), &[]);
    assert_eq!(exit.code, Some(78), "{exit:?}");
    assert!(
        exit.stderr
            .contains("helper ftp is not allowed on this host")
    );
}

#[test]
fn another_mark_mask_needs_another_instance_in_the_same_place() {
    let fixture = Fixture::new();
    let agent = Agent::start(&fixture.lab, &fixture.rules());
    let before = fixture.program();
    assert_eq!(agent.kill().code, None);
    let config = Config::of(&fixture.lab).with("mark_mask", "0x00000f00");
    let config = config.with("carrier", "\"mark\"");
    let _agent = Agent::start_with(&fixture.lab, &config, &fixture.rules());
    assert_ne!(fixture.program(), before);
    assert_eq!(fixture.program().len(), 1);
    let ruleset = fixture.site.router.netns().ruleset();
    assert!(ruleset.contains("0x00000100 : \"ftp-tcp\""), "{ruleset}");
    fixture.assert_works();
}

#[test]
fn an_agent_that_died_while_an_instance_was_renewed_goes_on_from_there() {
    let fixture = Fixture::new();
    let agent = Agent::start(&fixture.lab, &fixture.rules());
    let program = fixture.program();
    let owner = fixture.owner();
    assert_eq!(agent.kill().code, None);

    // It died when the links had the new program and the old pins were gone.
    fs::rename(fixture.instance(), fixture.successor()).expect("a renamed folder");
    let agent = Agent::start(&fixture.lab, &fixture.rules());
    assert_eq!(fixture.program(), program, "the same program");
    assert!(!fixture.successor().exists());
    fixture.assert_works();
    assert_eq!(agent.kill().code, None);

    // It died before the links had it.
    fixture.load(&fixture.next_instance(), owner);
    let agent = Agent::start(&fixture.lab, &fixture.rules());
    assert_eq!(fixture.program(), program, "the same program");
    assert!(!fixture.next_instance().exists());
    fixture.assert_works();
    assert_eq!(agent.kill().code, None);

    // It died while it pinned: the instance is not whole.
    fs::remove_file(fixture.instance().join("SLOTS")).expect("a removed pin");
    let _agent = Agent::start(&fixture.lab, &fixture.rules());
    assert_ne!(fixture.program(), program, "a new one in its place");
    assert_eq!(fixture.program().len(), 1);
    fixture.assert_works();
}

#[test]
fn what_somebody_removed_is_there_again_after_a_reload() {
    let fixture = Fixture::new();
    let mut agent = Agent::start(&fixture.lab, &fixture.rules());
    let router = fixture.site.router.netns();
    let lab_table = router.tool("nft", ["list", "table", "inet", "lab"], "");
    // At once: a router without NAT for a moment would have another carrier.
    router.nft(&format!("flush ruleset\n{lab_table}"));
    assert_eq!(agent.reload(&fixture.rules()), Reload::Done);
    agent.wait_for_log("effects=1");
    fixture.assert_works();
}

#[test]
fn a_lost_footprint_is_recovered_from_what_is_pinned() {
    let fixture = Fixture::new();
    let agent = Agent::start(&fixture.lab, &fixture.rules());
    let (owner, program) = (fixture.owner(), fixture.program());
    assert_eq!(agent.kill().code, None);
    let footprint = fixture.lab.dir().state_dir().join("footprint.json");
    fs::remove_file(&footprint).expect("a removed footprint");
    let agent = Agent::start(&fixture.lab, &fixture.rules());
    assert_eq!(fixture.owner(), owner);
    assert_eq!(fixture.program(), program);
    assert_eq!(agent.kill().code, None);

    fs::remove_file(&footprint).expect("a removed footprint");
    let cleanup = subcommand(&fixture.lab, "cleanup");
    assert_eq!(cleanup.code, Some(0), "{cleanup:?}");
    assert_left(
        fixture.site.router.netns(),
        fixture.site.router.client_side(),
    );
    let ruleset = fixture.site.router.netns().ruleset();
    assert!(!ruleset.contains("conntrack-agent"), "{ruleset}");
}

#[test]
fn another_agents_instances_are_neither_used_nor_removed() {
    let fixture = Fixture::new();
    // An agent that has run here, and has nothing on this router.
    assert_eq!(Agent::start(&fixture.lab, "").stop().code, Some(0));
    let folder = fixture.instance();
    fs::create_dir_all(folder.parent().expect("a folder above")).expect("folders");
    fixture.load(&folder, AgentId::random());
    let router = fixture.site.router.netns();
    let before = Snapshot::take(&fixture.lab, &[router]);

    let config = Config::of(&fixture.lab);
    let exit = run_to_exit(&fixture.lab, &config, &fixture.rules(), &[]);
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert!(
        exit.stderr.contains("give each agent its own bpffs_dir"),
        "{exit:?}"
    );
    // The store was written and put back: the same rules, another file.
    let mut after = Snapshot::take(&fixture.lab, &[router]);
    let mut before = before;
    for snapshot in [&mut before, &mut after] {
        let state = fixture.lab.dir().state_dir();
        snapshot.forget_file(&state.join("mapping.redb"));
        snapshot.forget_file(&state.join("mapping.redb-changes"));
        // They say whose they were last.
        snapshot.forget_locks(&fixture.lab);
    }
    assert_same(&before, &after);

    let cleanup = subcommand(&fixture.lab, "cleanup");
    assert_eq!(cleanup.code, Some(0), "{cleanup:?}");
    assert!(cleanup.stderr.contains("another agent's"), "{cleanup:?}");
    assert!(folder.join("classify").exists());
}

/// A link follows its interface into another namespace, and the number that the
/// interface had is given to the next one.
#[test]
fn an_interface_that_took_a_moved_ones_number_is_classified() {
    let fixture = Fixture::new();
    let mut agent = Agent::start(&fixture.lab, &fixture.rules());
    let router = fixture.site.router.netns();
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
    let fixture = Fixture::new();
    let snat = fixture
        .lab
        .netns(&format!("snat-{}", fixture.site.router.id()));
    snat.ip("link add sg-1 type veth peer name far");
    let agent = Agent::start(&fixture.lab, &fixture.rules());
    assert_eq!(ingress_programs(&snat, "sg-1"), fixture.program());
    assert!(snat.ruleset().contains("ct helper ftp-tcp"));
    assert_eq!(
        ingress_programs(&snat, "lo"),
        [0; 0],
        "nothing enters by lo"
    );
    assert_eq!(agent.kill().code, None);
    assert_eq!(subcommand(&fixture.lab, "cleanup").code, Some(0));
    assert_left(&snat, "sg-1");
    assert_eq!(snat.ruleset(), "");
}

#[test]
fn our_program_is_in_front_of_another() {
    let fixture = Fixture::new();
    let router = fixture.site.router.netns();
    let foreign = ForeignProgram::attach(router, fixture.site.router.client_side());
    let before = fixture.program();
    let _agent = Agent::start(&fixture.lab, &fixture.rules());
    let [ours, other] = fixture.program()[..] else {
        panic!("two programs");
    };
    assert_eq!(before, [other]);
    assert_ne!(ours, other);
    drop(foreign);
}

#[test]
fn folders_that_were_not_there_are_gone_after_cleanup_and_after_a_failed_start() {
    let fixture = Fixture::new();
    let dir = fixture.lab.dir().path().to_owned();
    let path = |name: &str| format!("{:?}", dir.join(name).to_string_lossy());
    let config = Config::of(&fixture.lab)
        .with("state_dir", path("made/by/agent/state"))
        .with("runtime_dir", path("made/by/agent/run"));
    let broken = config.clone().with("nft", "\"/bin/false\"");
    let exit = run_to_exit(&fixture.lab, &broken, &fixture.rules(), &[]);
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert!(!dir.join("made").exists());

    let agent = Agent::start_with(&fixture.lab, &config, &fixture.rules());
    assert!(dir.join("made/by/agent/state/mapping.redb").exists());
    assert_eq!(agent.kill().code, None);
    let cleanup = subcommand(&fixture.lab, "cleanup");
    assert_eq!(cleanup.code, Some(0), "{cleanup:?}");
    // All but what says who changed what, and cleanup says so.
    assert!(
        cleanup.stdout.contains("the audit trail stays"),
        "{cleanup:?}"
    );
    assert!(!dir.join("made/by/agent/run").exists());
    let state = dir.join("made/by/agent/state");
    let files = fs::read_dir(&state).expect("the state folder");
    let files: Vec<_> = files
        .map(|file| file.expect("a file").file_name())
        .collect();
    assert_eq!(files, ["audit.jsonl"]);
}

#[test]
fn cleanup_leaves_a_running_agent_alone_whatever_else_is_lost() {
    let fixture = Fixture::new();
    let _agent = Agent::start(&fixture.lab, &fixture.rules());
    let footprint = fixture.lab.dir().state_dir().join("footprint.json");
    fs::remove_file(&footprint).expect("a removed footprint");
    let cleanup = subcommand(&fixture.lab, "cleanup");
    assert_eq!(cleanup.code, Some(1), "{cleanup:?}");
    fixture.assert_works();
}

#[test]
fn cleanup_that_cannot_ask_nft_says_so_and_can_be_called_again() {
    let fixture = Fixture::new();
    let agent = Agent::start(&fixture.lab, &fixture.rules());
    assert_eq!(agent.kill().code, None);
    let broken = fixture.lab.dir().path().join("broken-nft");
    let script = "#!/bin/sh\necho 'nft: error while loading shared libraries: \
                  libnftables.so.1: No such file or directory' >&2\nexit 127\n";
    fs::write(&broken, script).expect("a script");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&broken, mode).expect("its mode");
    let nft = format!("{:?}", broken.to_string_lossy());
    rewrite_config(&fixture.lab, &Config::of(&fixture.lab).with("nft", nft));
    let cleanup = subcommand(&fixture.lab, "cleanup");
    assert_eq!(cleanup.code, Some(1), "{cleanup:?}");
    rewrite_config(&fixture.lab, &Config::of(&fixture.lab));
    let cleanup = subcommand(&fixture.lab, "cleanup");
    assert_eq!(cleanup.code, Some(0), "{cleanup:?}");
    let ruleset = fixture.site.router.netns().ruleset();
    assert!(!ruleset.contains("conntrack-agent"), "{ruleset}");
}

#[test]
fn a_moved_bpffs_dir_is_refused_while_the_old_one_is_in_use() {
    let fixture = Fixture::new();
    let agent = Agent::start(&fixture.lab, &fixture.rules());
    assert_eq!(agent.kill().code, None);
    let other = fixture.lab.dir().bpf_dir().join("other");
    let other = format!("{:?}", other.to_string_lossy());
    let moved = Config::of(&fixture.lab).with("bpffs_dir", other);
    let exit = run_to_exit(&fixture.lab, &moved, &fixture.rules(), &[]);
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert!(exit.stderr.contains("bpffs_dir is "), "{exit:?}");
    fixture.assert_works();
    // Cleanup knows where it was, whatever is configured now.
    assert_eq!(subcommand(&fixture.lab, "cleanup").code, Some(0));
    assert_left(
        fixture.site.router.netns(),
        fixture.site.router.client_side(),
    );
}

/// A repair is no part of a change that is refused: it stays.
#[test]
fn a_refused_change_elsewhere_does_not_undo_a_repair() {
    let fixture = Fixture::new();
    let agent = Agent::start(&fixture.lab, &fixture.rules());
    fs::remove_file(fixture.instance().join("SLOTS")).expect("a removed pin");
    assert_eq!(agent.kill().code, None);
    let other = fixture
        .lab
        .netns(&format!("qrouter-{}", uuid::Uuid::new_v4()));
    other.ip("link add qr-1 type veth peer name far");
    let id = other.name().replace("qrouter-", "");
    let nft = refuse_in(&fixture.lab, &other);
    let config = Config::of(&fixture.lab).with("nft", nft);
    let both = format!(
        "{}[[router]]\nid = \"{id}\"\nhelpers = [{{ protocol = \"tcp\", port = 1, helper = \"ftp\" }}]\n",
        fixture.rules()
    );
    let exit = run_to_exit(&fixture.lab, &config, &both, &[]);
    assert_eq!(exit.code, Some(1), "{exit:?}");
    fixture.assert_works();
    let _agent = Agent::start(&fixture.lab, &fixture.rules());
    fixture.assert_works();
}

/// That no program is on the interface any more. The kernel lets go of a link
/// some time after its pin is removed (`bpf_link_put` in `kernel/bpf/syscall.c`).
fn assert_left(netns: &Netns, interface: &str) {
    let gone = || ingress_programs(netns, interface).is_empty().then_some(());
    let gone = wait::until(Duration::from_secs(10), gone);
    assert!(gone.is_some(), "a program stays on {interface}");
}

/// An nft that refuses to work in one namespace; its path as TOML.
fn refuse_in(lab: &Lab, netns: &Netns) -> String {
    let path = lab.dir().path().join("refusing-nft");
    let script = format!(
        "#!/bin/sh\n\
         if [ \"$(stat -Lc %i /proc/self/ns/net)\" = \"$(stat -c %i {})\" ]; then\n\
         echo 'Error: refused' >&2; exit 1\n\
         fi\n\
         exec nft \"$@\"\n",
        netns.path().display()
    );
    fs::write(&path, script).expect("a script");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&path, mode).expect("its mode");
    format!("{:?}", path.to_string_lossy())
}

#[test]
fn a_second_agent_is_told_who_runs() {
    let fixture = Fixture::new();
    let _agent = Agent::start(&fixture.lab, &fixture.rules());
    let router = fixture.site.router.netns();
    let before = Snapshot::take(&fixture.lab, &[router]);
    let config = Config::of(&fixture.lab);
    let second = run_to_exit(&fixture.lab, &config, &fixture.rules(), &[]);
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(second.stderr.contains("another agent is running (pid "));
    let cleanup = subcommand(&fixture.lab, "cleanup");
    assert_eq!(cleanup.code, Some(1), "{cleanup:?}");
    assert!(cleanup.stderr.contains("another agent is running (pid "));
    assert_same(&before, &Snapshot::take(&fixture.lab, &[router]));
}

#[test]
fn a_router_whose_interfaces_were_all_gone_is_classified_when_they_come_again() {
    let lab = Lab::new();
    let router = BareRouter::new(&lab);
    let rules = format!(
        "[[router]]\nid = \"{}\"\nhelpers = [{{ protocol = \"tcp\", port = 21, helper = \"ftp\" }}]\n",
        router.id()
    );
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
