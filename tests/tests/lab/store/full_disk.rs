//! A full disk: changes are refused, and the store is none the worse.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::PathBuf;

use conntrack_agent::model::{Helper, RuleTarget};
use conntrack_tests::agent::{Exit, Reload};
use conntrack_tests::durable::{BareRouter, Rules, rules_file, said};

use super::{End, Fixture, PAGE, assert_refusal, text};

const FULL: &str = "No space left on device";

/// A disk of its own for the store, and what fills it up.
struct Disk {
    filler: PathBuf,
}

impl Disk {
    fn of(fixture: &Fixture) -> Self {
        let folder = fixture.lab.dir().state_dir();
        fixture.lab.dir().mount_tmpfs(&folder, 32 << 20);
        Self {
            filler: folder.join("filler"),
        }
    }

    fn fill(&self) {
        let mut file = File::create(&self.filler).expect("a file to fill the disk");
        let full = loop {
            if let Err(error) = file.write_all(&[0; PAGE]) {
                break error;
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    }

    fn make_room(&self) {
        fs::remove_file(&self.filler).expect("the filler");
    }
}

/// As many rules for each router, so that the store grows.
fn many(fixture: &Fixture, count: u16) -> Rules {
    let ports = move |router: &BareRouter| {
        let id = router.id();
        (1..=count).map(move |port| RuleTarget {
            router: id,
            port: i64::from(port).try_into().expect("a port"),
            helper: Helper::with_mark(1).expect("a helper"),
        })
    };
    fixture.routers.iter().flat_map(ports).collect()
}

#[test]
fn on_a_full_disk_changes_are_refused_until_there_is_room() {
    let fixture = Fixture::new();
    let disk = Disk::of(&fixture);
    let mut rules = many(&fixture, 10);
    let mut agent = fixture.spawn(Some(&rules), &[]).expect("a start");
    for (count, dies) in [
        (100, false),
        (250, true),
        (400, false),
        (600, false),
        (900, true),
    ] {
        let (mapping, before) = (fixture.mapping(), fixture.in_kernel());
        assert_eq!(said(&mapping), rules);
        let more = many(&fixture, count);
        disk.fill();
        let unchanged = || {
            assert_eq!(fixture.mapping(), mapping, "with {count} more");
            assert_eq!(fixture.in_kernel(), before, "with {count} more");
        };
        // The second finds the store as the first had to leave it.
        for _ in 0..2 {
            assert_eq!(agent.reload(&rules_file(&more)), Reload::Refused);
            unchanged();
        }
        if dies {
            assert_disk_was_full(&agent.kill());
            unchanged();
            disk.make_room();
            agent = fixture.spawn(Some(&rules), &[]).expect("a start with room");
            unchanged();
        } else {
            disk.make_room();
        }
        assert_eq!(agent.reload(&rules_file(&more)), Reload::Done);
        fixture.assert_has(&more);
        rules = more;
    }
    assert!(fixture.set_aside().is_empty());
}

/// Of an agent that refused reloads for that reason and no other.
fn assert_disk_was_full(exit: &Exit) {
    assert!(!exit.stderr.contains("panicked"), "{exit:?}");
    let mut refusals = exit
        .stderr
        .lines()
        .filter(|line| line.contains("reload refused"))
        .peekable();
    assert!(refusals.peek().is_some(), "{exit:?}");
    assert!(refusals.all(|line| line.contains(FULL)), "{exit:?}");
}

/// That a store can't be written at the moment does not make it a damaged one.
#[test]
fn a_start_on_a_full_disk_does_not_give_the_store_up() {
    let fixture = Fixture::new();
    let disk = Disk::of(&fixture);
    let rules = many(&fixture, 100);
    fixture.run(Some(&rules), &[]);
    let (mapping, before) = (fixture.mapping(), fixture.in_kernel());
    disk.fill();
    for _ in 0..2 {
        match fixture.spawn(Some(&rules), &[]) {
            Ok(agent) => End::Kill.of(agent),
            Err(exit) => assert_refusal(&exit, &[text(&fixture.store()), FULL]),
        }
        assert!(fixture.set_aside().is_empty());
        assert_eq!(fixture.in_kernel(), before);
    }
    disk.make_room();
    let agent = fixture.spawn(None, &[]).expect("a start with room");
    End::Stop.of(agent);
    assert_eq!(fixture.mapping(), mapping);
    assert_eq!(fixture.in_kernel(), before);
}
