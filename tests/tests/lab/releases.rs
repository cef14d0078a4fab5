//! One release of the agent after another, on the same router.

use std::fs;

use aya::maps::MapData;
use conntrack_agent::kernel::Pins;
use conntrack_ebpf::abi;
use conntrack_tests::agent::{Agent, Config, Reload, run_release_to_exit};
use conntrack_tests::ftp_router::{FtpRouter, PORT};
use conntrack_tests::helpers::{Rule, rules_file};
use conntrack_tests::release::Release;
use conntrack_tests::snapshot::assert_same;

const NEXT_ABI: u32 = abi::VERSION + 1;

fn release(fixture: &FtpRouter, abi: u32, build: u32) -> Release {
    let program = env!("CARGO_BIN_EXE_another_release");
    Release::new(&fixture.lab, program, abi, build)
}

fn start_release(fixture: &FtpRouter, release: &Release) -> Agent {
    Agent::start_release(&fixture.lab, &fixture.rules(), release)
}

fn maps_of(fixture: &FtpRouter) -> [u32; 4] {
    ["PAGES", "SLOTS", "COUNTERS", "BASES"].map(|name| {
        let map = MapData::from_pin(fixture.pins().instance(fixture.id).join(name))
            .expect("a pinned map");
        map.info().expect("its description").id()
    })
}

/// The ABI versions that something is pinned for.
fn versions(fixture: &FtpRouter) -> Vec<u32> {
    let versions = Pins::of_all_versions(&fixture.lab.dir().agent_bpffs_dir());
    versions.expect("the pins").iter().map(Pins::abi).collect()
}

#[test]
fn a_rebuilt_program_takes_over_with_maps_and_counts() {
    let fixture = FtpRouter::new();
    let agent = fixture.start();
    fixture.assert_works();
    let (program, maps, packets) = (
        fixture.program(),
        maps_of(&fixture),
        fixture.counted().packets,
    );
    assert!(packets > 0);
    assert_eq!(agent.kill().code, None);

    let release = release(&fixture, abi::VERSION, 1);
    let agent = start_release(&fixture, &release);
    agent.wait_for_log("effects=1");
    let rebuilt = fixture.program();
    assert_ne!(rebuilt, program);
    assert_eq!(rebuilt.len(), 1, "in the old one's place");
    assert_eq!(maps_of(&fixture), maps);
    assert_eq!(fixture.counted().packets, packets);
    fixture.assert_works();
    assert!(fixture.counted().packets > packets);
    assert_eq!(agent.kill().code, None);

    // Once more is nothing to do.
    let before = fixture.snapshot();
    let agent = start_release(&fixture, &release);
    agent.wait_for_log("effects=0");
    assert_eq!(fixture.program(), rebuilt);
    assert_eq!(agent.kill().code, None);
    let mut after = fixture.snapshot();
    let mut before = before;
    for snapshot in [&mut before, &mut after] {
        // They say whose they were last.
        snapshot.forget_locks(&fixture.lab);
        snapshot.forget_file(&fixture.lab.dir().state_dir().join("mapping.redb"));
    }
    assert_same(&before, &after);

    // And back, as it was, while the rules change and outgrow their maps.
    let mut rules: Vec<_> = (0..200).map(|high| Rule::tftp(high * 256 + 69)).collect();
    rules.insert(100, Rule::ftp(PORT));
    let many = rules_file(&[(&fixture.site.router, &rules)]);
    let packets = fixture.counted().packets;
    let _agent = Agent::start(&fixture.lab, &many);
    assert_ne!(maps_of(&fixture), maps);
    assert_eq!(fixture.counted().packets, packets);
    fixture.assert_works();
}

#[test]
fn the_next_abi_takes_over_and_an_older_agent_refuses() {
    let fixture = FtpRouter::new();
    let agent = fixture.start();
    let program = fixture.program();
    assert_eq!(agent.kill().code, None);

    let newer = release(&fixture, NEXT_ABI, 0);
    let mut agent = start_release(&fixture, &newer);
    assert_eq!(versions(&fixture), [NEXT_ABI]);
    let taken = fixture.program();
    assert_ne!(taken, program);
    assert_eq!(taken.len(), 1, "in the old one's place");
    fixture.assert_works();
    assert_eq!(agent.reload(&fixture.rules()), Reload::Done);
    agent.wait_for_log("reloaded rules=1 routers=1 pending=0 failed=0 effects=0");
    assert_eq!(agent.stop().code, Some(0));

    let before = fixture.snapshot();
    for rules in [Some(fixture.rules()), Some(String::new()), None] {
        let older = release(&fixture, abi::VERSION, 0);
        let refused = run_release_to_exit(&fixture.lab, rules.as_deref(), &older);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        for part in [
            format!("ABI version {NEXT_ABI}"),
            format!("this agent knows {}", abi::VERSION),
            "conntrack-agent cleanup".to_owned(),
        ] {
            assert!(refused.stderr.contains(&part), "{part:?} in {refused:?}");
        }
        assert_same(&before, &fixture.snapshot());
        assert_eq!(fixture.program(), taken);
    }
    fixture.assert_works();

    // The twin: one that is no older is let in.
    let newest = release(&fixture, NEXT_ABI + 1, 0);
    let _agent = start_release(&fixture, &newest);
    assert_eq!(versions(&fixture), [NEXT_ABI + 1]);
    fixture.assert_works();
}

#[test]
fn cleanup_removes_what_any_release_has_pinned() {
    let fixture = FtpRouter::new();
    let before = fixture.snapshot();
    let newer = release(&fixture, NEXT_ABI, 0);
    let agent = start_release(&fixture, &newer);
    assert_eq!(agent.kill().code, None);
    assert_eq!(versions(&fixture), [NEXT_ABI]);
    fixture.assert_cleans_up();
    assert_same(&before, &fixture.snapshot());
    // What it was refused before.
    let _agent = fixture.start();
    fixture.assert_works();
}

/// The rules in force can't be read, so nothing may be made of them.
#[test]
fn a_lost_store_is_not_rebuilt_from_another_abis_pins() {
    let fixture = FtpRouter::new();
    assert_eq!(fixture.start().kill().code, None);
    let program = fixture.program();
    // As where a disk was lost: no store, and no footprint that knows of one.
    for file in ["mapping.redb", "mapping.redb-changes", "footprint.json"] {
        fs::remove_file(fixture.lab.dir().state_dir().join(file)).expect("a file");
    }
    let newer = release(&fixture, NEXT_ABI, 0);
    let refused = run_release_to_exit(&fixture.lab, Some(&fixture.rules()), &newer);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let said = format!("pinned in ABI version {}", abi::VERSION);
    assert!(refused.stderr.contains(&said), "{refused:?}");
    assert_eq!(fixture.program(), program);
    fixture.assert_works();

    // What it says to do.
    let config = Config::of(&fixture.lab);
    let rules = fixture.rules();
    let arguments = ["--rebuild", "rules"];
    let agent = Agent::spawn_release(&fixture.lab, &config, Some(&rules), &newer, &arguments);
    let _agent = agent
        .ready()
        .unwrap_or_else(|exit| panic!("no rebuild: {exit:?}"));
    assert_eq!(versions(&fixture), [NEXT_ABI]);
    fixture.assert_works();
}
