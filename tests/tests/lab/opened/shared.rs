//! The maps that all routers' programs share: made with the first router, gone with the
//! last, and mended.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use conntrack_agent::kernel::EventReader;
use conntrack_agent::model::RouterId;
use conntrack_tests::agent::{Reload, subcommand};
use conntrack_tests::lab::Lab;
use conntrack_tests::wait;

use super::{ALL, counters, pins, reader, send_syns, unread};
use crate::repair::{World, rules_of, soon};

#[test]
fn what_is_shared_goes_with_the_last_router() {
    let lab = Lab::new();
    let worlds = [(); 2].map(|()| World::of(&lab));
    let [first, second] = &worlds;
    let shared = pins(&lab).shared();
    let both = first.rules() + &second.rules();
    let mut agent = unread(&lab, &both);
    let names = || -> BTreeSet<_> {
        let entries = fs::read_dir(&shared).expect("the shared maps");
        entries
            .map(|entry| entry.expect("a pin").file_name())
            .collect()
    };
    assert_eq!(names().len(), 3);
    let events = reader(&lab);
    assert_eq!(agent.reload(&first.rules()), Reload::Done);
    assert_eq!(names().len(), 3, "one router needs them still");
    assert!(events.is_pinned());
    assert_eq!(agent.reload(""), Reload::Done);
    assert!(!shared.exists(), "nobody does");
    assert!(!events.is_pinned());
    assert!(EventReader::open(&pins(&lab)).expect("no error").is_none());

    assert_eq!(agent.reload(&both), Reload::Done);
    assert_eq!(names().len(), 3);
    assert!(!events.is_pinned(), "they are others");
    drop(agent);
    let cleanup = subcommand(&lab, "cleanup");
    assert_eq!(cleanup.code, Some(0), "{cleanup:?}");
    assert!(!lab.dir().agent_bpffs_dir().exists());
}

/// Where an agent died between the removal of the last router's pins and of
/// these.
#[test]
fn what_is_shared_by_nobody_is_removed() {
    let lab = Lab::new();
    let world = World::of(&lab);
    let shared = pins(&lab).shared();
    let leave = || {
        let agent = unread(&lab, &world.rules());
        drop(agent);
        let away = lab.dir().bpf_dir().join("away");
        fs::rename(&shared, &away).expect("renamed");
        drop(unread(&lab, ""));
        fs::create_dir_all(shared.parent().expect("a folder")).expect("the version's folder");
        fs::rename(&away, &shared).expect("renamed");
    };
    leave();
    let agent = unread(&lab, "");
    assert!(!shared.exists(), "by the start");
    drop(agent);
    leave();
    let cleanup = subcommand(&lab, "cleanup");
    assert_eq!(cleanup.code, Some(0), "{cleanup:?}");
    assert!(!lab.dir().agent_bpffs_dir().exists(), "by cleanup");
}

struct Harm {
    name: &'static str,
    does: fn(&Path),
}

const HARMS: [Harm; 4] = [
    Harm {
        name: "the ring buffer's pin removed",
        does: |shared| fs::remove_file(shared.join("EVENTS")).expect("a pin"),
    },
    Harm {
        name: "the other two removed",
        does: |shared| {
            for name in ["LIMITER", "RECENT"] {
                fs::remove_file(shared.join(name)).expect("a pin");
            }
        },
    },
    Harm {
        name: "all shared pins removed",
        does: |shared| fs::remove_dir_all(shared).expect("pins"),
    },
    Harm {
        name: "another map in the ring buffer's place",
        does: |shared| {
            let [events, recent] = ["EVENTS", "RECENT"].map(|name| shared.join(name));
            fs::remove_file(&events).expect("a pin");
            fs::rename(recent, events).expect("renamed");
        },
    },
];

/// The routers that somebody who comes now and reads what is pinned hears of.
fn heard(worlds: &[World; 2]) -> BTreeSet<RouterId> {
    let Ok(Some(mut events)) = EventReader::open(&pins(&worlds[0].lab)) else {
        return BTreeSet::new();
    };
    for world in worlds {
        send_syns(world, 1);
    }
    let opened = events.read(ALL);
    opened.iter().map(|opened| opened.router).collect()
}

#[test]
fn shared_pins_that_somebody_takes_are_mended() {
    for Harm { name, does } in HARMS {
        let lab = Lab::new();
        let worlds = [(); 2].map(|()| World::of(&lab));
        let all: BTreeSet<_> = worlds.iter().map(|world| world.id).collect();
        let rules: String = all.iter().map(|id| rules_of(*id)).collect();
        let shared: PathBuf = pins(&lab).shared();
        let agent = unread(&lab, &rules);
        assert_eq!(heard(&worlds), all, "{name}: at the start");
        let counted = counters(&worlds[0]).packets;

        does(&shared);
        soon(name, "both routers heard of", || heard(&worlds) == all);
        soon(name, "all well", || worlds.iter().all(World::is_well));
        assert!(counters(&worlds[0]).packets > counted, "and counts go on");
        assert_eq!(agent.kill().code, None, "{name}");

        does(&shared);
        wait::for_nothing();
        assert!(!are_whole(&lab), "{name}: nobody mends it");
        let _agent = unread(&lab, &rules);
        assert_eq!(heard(&worlds), all, "{name}: the next start does");
    }
}

/// Whether the three are there, and are what they should be.
fn are_whole(lab: &Lab) -> bool {
    let is_opened = EventReader::open(&pins(lab)).is_ok_and(|events| events.is_some());
    is_opened && pins(lab).shared().join("RECENT").exists()
}
