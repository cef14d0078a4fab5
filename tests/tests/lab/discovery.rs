//! Namespaces that come and go while the agent runs, interfaces that move
//! between them, and agents that have little to work with.

use std::fs::{self, File};
use std::process::Command;
use std::thread;
use std::time::Instant;

use conntrack_agent::model::RouterId;
use conntrack_tests::agent::{Agent, Config, binary};
use conntrack_tests::attach;
use conntrack_tests::foreign::ForeignProgram;
use conntrack_tests::lab::Lab;
use conntrack_tests::router_lab::any_router;
use conntrack_tests::snapshot::{ingress_programs, interfaces};
use conntrack_tests::wait;
use rustix::fs::{CWD, Mode, mkfifoat};
use rustix::mount::{UnmountFlags, mount_bind, unmount};

use crate::repair::{World, detach, rules_of, soon};

fn two() -> (Lab, World, World) {
    let lab = Lab::new();
    let (one, other) = (World::of(&lab), World::of(&lab));
    (lab, one, other)
}

#[test]
fn a_namespace_appears_goes_and_appears_again() {
    let lab = Lab::new();
    let id = any_router();
    let rules = rules_of(id);
    let agent = Agent::start(&lab, &rules);
    let host = lab.netns("host");

    let world = World::with_id(&lab, id);
    soon("namespace appears", "has its helper rules", || {
        world.is_well()
    });

    // Where the other end of this one is, its end can be seen.
    let at = host.path().display();
    world.netns.ip(&format!(
        "link add qr-9 type veth peer name eth0 netns {at}"
    ));
    soon("interface towards another namespace", "attached", || {
        world.is_well()
    });
    let is_pinned = || !world.links().is_empty() || world.program().is_some();
    world.netns.delete();
    soon("namespace deleted", "pins reaped", || !is_pinned());
    soon("namespace deleted", "and gone", || {
        interfaces(&host).is_empty()
    });

    let world = World::with_id(&lab, id);
    soon("namespace made again", "has its helper rules", || {
        world.is_well()
    });
    world.netns.delete();
    let world = World::with_id(&lab, id);
    soon(
        "deleted and made again at once",
        "has its helper rules",
        || world.is_well(),
    );

    assert_eq!(agent.kill().code, None);
    world.netns.delete();
    wait::for_nothing();
    assert!(is_pinned(), "without an agent pins stay");
    let world = World::with_id(&lab, id);
    wait::for_nothing();
    assert!(!world.is_well(), "and the new one has no rules");
}

#[test]
fn a_moved_interface_belongs_to_where_it_is() {
    let (lab, from, to) = two();
    let rules = from.rules() + &to.rules();
    let agent = Agent::start(&lab, &rules);
    let stranger = lab.netns("stranger");
    let programs = [&from, &to].map(|world| world.program().expect("a program"));
    assert_ne!(programs[0], programs[1]);

    // With its number, where that is free: the same pair would mislead a cache.
    let at = stranger.path().display();
    from.netns.ip(&format!("link set qr-1 netns {at}"));
    soon(
        "interface moved to a stranger",
        "classified no more",
        || ingress_programs(&stranger, "qr-1").is_empty() && from.is_well(),
    );
    let at = to.netns.path().display();
    // Before Linux 6.2, an interface that is up keeps its name.
    from.netns.ip(&format!(
        "link set qr-2 down\nlink set qr-2 name moved\nlink set moved netns {at}"
    ));
    soon(
        "interface moved to a router",
        "classified by it alone",
        || ingress_programs(&to.netns, "moved") == programs[1..] && from.is_well() && to.is_well(),
    );

    // Its number comes to mean another interface, here and there.
    from.netns
        .ip("link del qg-1\nlink add again index 2 type veth peer name more index 3");
    soon("ifindex used again", "classified", || from.is_well());
    stranger.ip("link add again index 4 type veth peer name more index 5");
    wait::for_nothing();
    assert!(ingress_programs(&stranger, "again").is_empty());
    assert!(from.is_well() && to.is_well());

    assert_eq!(agent.kill().code, None);
    let at = stranger.path().display();
    to.netns.ip(&format!("link set moved netns {at}"));
    wait::for_nothing();
    let left = ingress_programs(&stranger, "moved");
    // A move takes an interface's qdiscs away, and no link.
    let expected = if attach::is_by_filters() {
        &[]
    } else {
        &programs[1..]
    };
    assert_eq!(left, expected, "without an agent it stays classified");
}

#[test]
fn foreign_programs_before_and_after_ours_stay_where_they_are() {
    for is_first in [true, false] {
        let world = World::new();
        let foreign = |world: &World| {
            if is_first {
                ForeignProgram::attach_first(&world.netns, "qr-1")
            } else {
                ForeignProgram::attach_last(&world.netns, "qr-1")
            }
        };
        // Filters have a test of their own.
        let config = world.config().with("attach", "\"tcx\"");
        let mut agent = world.start_with(&config);
        let ours = world.program().expect("a program");
        let _foreign = foreign(&world);
        let programs = || ingress_programs(&world.netns, "qr-1");
        let before = programs();
        assert_eq!(before.len(), 2);
        assert_eq!(
            before.iter().position(|id| *id == ours),
            Some(usize::from(is_first))
        );
        let theirs = before.iter().copied().find(|id| *id != ours);

        // Or it might be there again before it is seen to be gone.
        agent.pause();
        for pin in world.links() {
            detach(&world.netns, &pin);
        }
        assert_eq!(programs(), theirs.as_slice());
        agent.resume();
        soon(
            "ours detached beside a foreign one",
            "attached, in front",
            || {
                let wanted: Vec<_> = std::iter::once(ours).chain(theirs).collect();
                programs() == wanted
            },
        );
        drop(agent);
    }
}

#[test]
fn what_is_no_namespace_does_no_harm_and_may_become_one() {
    let world = World::new();
    let folder = world.lab.dir().netns_dir();
    let ids: [_; 5] = std::array::from_fn(|_| any_router());
    let file = |id: RouterId| folder.join(format!("qrouter-{id}"));
    File::create(file(ids[0])).expect("a plain file");
    mkfifoat(CWD, file(ids[1]), Mode::RUSR).expect("a FIFO");
    fs::create_dir(file(ids[2])).expect("a folder");
    std::os::unix::fs::symlink("nowhere", file(ids[3])).expect("a symlink");
    File::create(file(ids[4])).expect("a file for a mount");
    mount_bind("/proc/self/ns/uts", file(ids[4])).expect("another kind of namespace");
    for name in ["qrouter-", "qrouter-x", "snat", "junk"] {
        File::create(folder.join(name)).expect("a plain file");
    }

    let rules: String = ids[..4].iter().copied().map(rules_of).collect();
    let agent = Agent::start(&world.lab, &(world.rules() + &rules));
    assert!(world.is_well());
    agent.wait_for_log("pending=4");

    // As `ip netns add` does it: a file first, a mount onto it a while later.
    fs::remove_file(file(ids[0])).expect("removed");
    let first = World::with_id(&world.lab, ids[0]);
    soon(
        "plain file becomes a namespace",
        "has its helper rules",
        || first.is_well(),
    );
    fs::remove_file(file(ids[1])).expect("removed");
    let second = World::with_id(&world.lab, ids[1]);
    soon("FIFO becomes a namespace", "has its helper rules", || {
        second.is_well()
    });

    unmount(file(ids[4]), UnmountFlags::DETACH).expect("unmounted");
    assert_eq!(agent.stop().code, Some(0));
}

/// The whole folder comes late.
#[test]
fn a_folder_that_is_not_there_yet() {
    let lab = Lab::new();
    let folder = lab.dir().netns_dir();
    fs::remove_dir(&folder).expect("no folder");
    let id = any_router();
    let _agent = Agent::start(&lab, &rules_of(id));
    fs::create_dir(&folder).expect("the folder");
    let world = World::with_id(&lab, id);
    soon("the folder comes late", "has its helper rules", || {
        world.is_well()
    });
}

#[test]
fn ten_thousand_events_cost_a_few_looks() {
    const EVENTS: usize = 10_000;
    let world = World::new();
    let config = world.config().with("log", "{ level = \"debug\" }");
    let agent = world.start_with(&config);
    wait::for_nothing();
    let looks = agent.log_count("looked at");
    let begun = Instant::now();
    thread::scope(|scope| {
        let burst = scope.spawn(|| {
            let commands = (0..EVENTS).map(|at| format!("link set qr-1 alias a{at}\n"));
            world.netns.ip(&commands.collect::<String>());
        });
        while !burst.is_finished() {
            list(&world.lab);
        }
    });
    let took = begun.elapsed();
    // Until it is quiet again.
    wait::for_nothing();
    let looks = agent.log_count("looked at") - looks;
    eprintln!(
        "repair | {EVENTS} link events | {looks} looks | {} ms",
        took.as_millis()
    );
    assert!(looks > 0, "they were heard");
    // One in 50 ms, and those that begin and end it.
    let most = 3 + took.as_millis() / 50;
    assert!(looks as u128 <= most, "{looks} looks, {most} at the most");
    assert_eq!(agent.log_count("repaired"), 0);
    assert!(world.is_well());
}

#[test]
fn an_agent_that_was_stopped_for_a_while_catches_up() {
    let (lab, stays, goes) = two();
    let comes = any_router();
    let rules = stays.rules() + &goes.rules() + &rules_of(comes);
    let mut agent = Agent::start(&lab, &rules);
    agent.pause();
    goes.netns.delete();
    stays.netns.nft("flush ruleset");
    stays
        .netns
        .ip("link del qr-1\nlink add new type veth peer name newer\n");
    // More than a socket's buffer holds.
    let noise = (0..5_000).map(|at| format!("link set qr-2 alias a{at}\n"));
    stays.netns.ip(&noise.collect::<String>());
    let comes = World::with_id(&lab, comes);
    wait::for_nothing();
    assert!(!stays.is_well() && !comes.is_well(), "it is stopped");
    assert!(!goes.links().is_empty());
    agent.resume();
    soon("agent goes on after a stop", "all as it should be", || {
        stays.is_well() && comes.is_well() && goes.links().is_empty() && goes.program().is_none()
    });
}

#[test]
fn with_few_descriptors_the_full_pass_repairs_what_nobody_watches() {
    let lab = Lab::new();
    let routers: Vec<_> = (0..20).map(|_| World::of(&lab)).collect();
    let rules: String = routers.iter().map(|world| world.rules()).collect();
    // A change on many routers at once holds more than that; a restart goes
    // from router to router.
    assert_eq!(Agent::start(&lab, &rules).kill().code, None);
    let config = Config::of(&lab).with("full_pass_seconds", "1");
    let agent = Agent::start_through(&lab, &config, &rules, &["prlimit", "--nofile=64:64"]);
    agent.wait_for_log("too few descriptors to watch every router");
    for router in &routers {
        router.netns.nft("flush ruleset");
        router.netns.ip("link del qr-1");
    }
    // Of which 16 are for watching, and 40 sockets would be needed.
    soon("64 descriptors, 20 routers", "repaired", || {
        routers.iter().all(World::is_well)
    });
    assert_eq!(agent.log_count("is not as it should be"), 0);

    let world = World::new();
    let plenty = world.start();
    wait::for_nothing();
    assert_eq!(plenty.log_count("too few descriptors"), 0);
}

/// What is measured and waited for goes by another clock than the time of day.
#[test]
fn a_clock_that_is_set_back_an_hour_changes_nothing() {
    let world = World::new();
    let clock = world.lab.dir().path().join("clock");
    fs::write(&clock, "+0s").expect("the clock");
    let file = format!("FAKETIME_TIMESTAMP_FILE={}", clock.display());
    // faketime(1) finds its library; what the clock says comes from the file.
    let mut launcher: Vec<_> =
        "faketime --exclude-monotonic -f +0s env -u FAKETIME FAKETIME_NO_CACHE=1"
            .split(' ')
            .collect();
    launcher.push(&file);
    let config = world.config();
    let agent = Agent::start_through(&world.lab, &config, &world.rules(), &launcher);
    for (repairs, case) in [(1, "before"), (2, "after")] {
        world.netns.nft("flush ruleset");
        soon("clock set back an hour", case, || {
            world.is_well() && agent.log_count("repaired") == repairs
        });
        fs::write(&clock, "-3600s").expect("the clock");
    }
    let lines = agent.lines();
    let times: Vec<_> = lines
        .iter()
        .filter_map(|line| line.split('.').next())
        .collect();
    let (first, last) = (times.first(), times.last());
    assert!(last < first, "it was set back: {first:?}, {last:?}");
    assert_eq!(agent.log_count("repaired"), 2);
    list(&world.lab);
}

/// A binding whose router has neither rules nor pins: only the full pass, which
/// looks at every namespace, can find it.
#[test]
fn a_stale_binding_in_a_router_without_rules_goes() {
    let world = World::new();
    let agent = world.start();
    assert_eq!(agent.kill().code, None);
    let folder = world.lab.dir().agent_bpffs_dir();
    fs::remove_dir_all(folder).expect("the pins");
    assert!(!world.is_bare(), "its binding is left");
    let config = world.config().with("full_pass_seconds", "1");
    let _agent = Agent::start_with(&world.lab, &config, "");
    soon("stale binding", "gone", || world.is_bare());
}

/// Asserts that a command line is answered.
fn list(lab: &Lab) {
    let output = Command::new(binary())
        .args(["helper", "list", "--socket"])
        .arg(lab.dir().socket())
        .output();
    let output = output.expect("the command");
    assert!(output.status.success(), "{output:?}");
}
