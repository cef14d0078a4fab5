//! What somebody breaks while the agent runs is whole again soon. For each case
//! how long it took is printed; the target is a second, the bound far more, as
//! it is there against hanging. Each case is tried without an agent too: then
//! nothing repairs it, which shows that the case breaks anything at all.

use std::fmt::Display;
use std::fs;
use std::ops::Deref;
use std::path::Path;
use std::thread;
use std::time::Instant;

use conntrack_agent::kernel::TABLE_PREFIX;
use conntrack_agent::model::RouterId;
use conntrack_tests::agent::Agent;
use conntrack_tests::attach;
use conntrack_tests::helpers::{self, Rule};
use conntrack_tests::lab::Lab;
use conntrack_tests::netns::Netns;
use conntrack_tests::router_lab::{RouterLab, any_router};
use conntrack_tests::snapshot::{ingress_programs, interfaces};
use conntrack_tests::wait;
use rustix::mount::{UnmountFlags, unmount};

/// A router with four interfaces, in a lab of its own.
pub(crate) struct World(RouterLab);

impl Deref for World {
    type Target = RouterLab;

    fn deref(&self) -> &RouterLab {
        &self.0
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::of(&Lab::new())
    }

    /// A further router of a lab.
    pub(crate) fn of(lab: &Lab) -> Self {
        Self::with_id(lab, any_router())
    }

    /// The router of a lab that has this id.
    pub(crate) fn with_id(lab: &Lab, id: RouterId) -> Self {
        let pair = |number| {
            format!(
                "link add qr-{number} type veth peer name qg-{number}\n\
                 link set qr-{number} up\nlink set qg-{number} up\n"
            )
        };
        Self(RouterLab::make(lab, id, &[1, 2].map(pair).concat()))
    }

    pub(crate) fn start(&self) -> Agent {
        let agent = self.0.start();
        assert!(self.is_well(), "at the start");
        agent
    }

    fn folder(&self) -> std::path::PathBuf {
        let instance = self.pins().instance(self.id);
        instance.parent().expect("the router's folder").to_owned()
    }

    pub(crate) fn program(&self) -> Option<u32> {
        let instance = self.instance()?;
        let image = instance.image().ok()?;
        (image.rules().len() == 1).then(|| instance.program_id())
    }

    /// Whether it has all that its one rule needs, and no more.
    pub(crate) fn is_well(&self) -> bool {
        let Some(program) = self.program() else {
            return false;
        };
        let interfaces = interfaces(&self.netns);
        let is_attached = |name: &String| ingress_programs(&self.netns, name) == [program];
        interfaces.iter().all(is_attached)
            && self.links().len() == interfaces.len()
            && binding_is_whole(&self.netns)
    }

    /// Whether some program is on each interface.
    fn is_attached(&self) -> bool {
        let names = interfaces(&self.netns);
        let mut programs = names.iter().map(|name| ingress_programs(&self.netns, name));
        programs.all(|programs| !programs.is_empty())
    }

    /// What it has, to be read by a person.
    pub(crate) fn state(&self) -> String {
        let attached: Vec<_> = interfaces(&self.netns)
            .into_iter()
            .map(|name| (ingress_programs(&self.netns, &name), name))
            .collect();
        let (program, links) = (self.program(), self.links());
        let ruleset = self.netns.ruleset();
        format!("{program:?} {attached:?} {links:?}\n{ruleset}")
    }

    /// Whether nothing of the agent's is left.
    pub(crate) fn is_bare(&self) -> bool {
        let names = interfaces(&self.netns);
        let is_free = |name: &String| ingress_programs(&self.netns, name).is_empty();
        !self.folder().exists()
            && names.iter().all(is_free)
            && !self.netns.ruleset().contains(TABLE_PREFIX)
    }
}

pub(crate) fn rules_of(id: impl Display + Copy) -> String {
    helpers::rules_of(id, &[Rule::ftp(21)])
}

/// One chain of three rules, of which nothing was removed and nothing added.
fn binding_is_whole(netns: &Netns) -> bool {
    let ruleset = netns.ruleset();
    let tables = ruleset.split("table ").skip(1);
    let ours: Vec<_> = tables
        .filter(|table| table.contains(TABLE_PREFIX))
        .collect();
    let [ruleset] = ours[..] else { return false };
    ruleset.matches("chain ").count() == 1
        && ruleset.matches("hook prerouting").count() == 1
        && ruleset.matches("ct helper set").count() == 1
        && ruleset.matches("mark set").count() == 1
        && ruleset.matches("accept").count() == 2
        && !ruleset.contains("counter")
}

/// Waits until it is so, and says how long it took.
#[track_caller]
pub(crate) fn soon(case: &str, what: &str, condition: impl Fn() -> bool) {
    soon_or(case, what, condition, String::new);
}

/// The same, and if not, what else there is to say.
#[track_caller]
fn soon_or(
    case: &str,
    what: &str,
    condition: impl Fn() -> bool,
    else_say: impl FnOnce() -> String,
) {
    let begun = Instant::now();
    let became = wait::until(wait::patience(), || condition().then_some(()));
    let took = begun.elapsed();
    let said = became.map_or_else(|| Some(else_say()), |()| None);
    assert_eq!(said, None, "{case}: not {what}");
    eprintln!("repair | {case} | {what} | {} ms", took.as_millis());
}

struct Case {
    name: &'static str,
    /// Whether packets are classified at every moment of it.
    has_no_gap: bool,
    breaks: fn(&World),
}

/// By force: the link stays, on nothing.
pub(crate) fn detach(netns: &Netns, pin: &Path) {
    let pin = pin.to_str().expect("UTF-8");
    netns.tool("bpftool", ["link", "detach", "pinned", pin], "");
}

fn table_of(world: &World) -> String {
    let ruleset = world.netns.ruleset();
    let mut words = ruleset.split_whitespace();
    let table = words.find(|word| word.starts_with(TABLE_PREFIX));
    table.expect("the binding").to_owned()
}

fn nft(world: &World, command: &str) {
    let table = table_of(world);
    world
        .netns
        .nft(&command.replace("OURS", &format!("inet {table}")));
}

const CASES: &[Case] = &[
    Case {
        name: "link detached by force",
        has_no_gap: false,
        breaks: |world| {
            if attach::is_by_filters() {
                let name = &interfaces(&world.netns)[0];
                world
                    .netns
                    .tool("tc", ["filter", "del", "dev", name, "ingress"], "");
                return;
            }
            detach(&world.netns, &world.links()[0]);
        },
    },
    Case {
        name: "pin of a link removed",
        has_no_gap: true,
        breaks: |world| {
            let pin = &world.links()[0];
            if attach::is_by_filters() {
                fs::remove_dir_all(pin).expect("a filter's folder");
            } else {
                fs::remove_file(pin).expect("a pin");
            }
        },
    },
    Case {
        name: "all links' pins removed, with their folder",
        has_no_gap: true,
        breaks: |world| fs::remove_dir_all(world.folder().join("links")).expect("pins"),
    },
    Case {
        name: "pin of a map removed",
        has_no_gap: true,
        breaks: |world| fs::remove_file(world.folder().join("instance/SLOTS")).expect("a pin"),
    },
    Case {
        name: "pin of the program removed",
        has_no_gap: true,
        breaks: |world| fs::remove_file(world.folder().join("instance/classify")).expect("a pin"),
    },
    Case {
        name: "all pins of the router removed",
        has_no_gap: true,
        breaks: |world| fs::remove_dir_all(world.folder()).expect("pins"),
    },
    Case {
        name: "pins renamed away",
        has_no_gap: true,
        breaks: |world| {
            let away = world.folder().join("away");
            fs::rename(world.folder().join("instance"), &away).expect("renamed");
            fs::remove_dir_all(away).expect("removed");
        },
    },
    Case {
        name: "nft flush ruleset",
        has_no_gap: true,
        breaks: |world| world.netns.nft("flush ruleset"),
    },
    Case {
        name: "table flushed",
        has_no_gap: true,
        breaks: |world| nft(world, "flush table OURS"),
    },
    Case {
        name: "table deleted",
        has_no_gap: true,
        breaks: |world| nft(world, "delete table OURS"),
    },
    Case {
        name: "table edited",
        has_no_gap: true,
        breaks: |world| nft(world, "insert rule OURS bind counter"),
    },
    Case {
        name: "bpffs unmounted",
        has_no_gap: true,
        breaks: |world| {
            unmount(world.lab.dir().bpf_dir(), UnmountFlags::empty()).expect("unmounted");
        },
    },
    Case {
        name: "bpffs unmounted lazily",
        has_no_gap: true,
        breaks: |world| {
            unmount(world.lab.dir().bpf_dir(), UnmountFlags::DETACH).expect("unmounted");
        },
    },
    Case {
        name: "interface added",
        has_no_gap: false,
        breaks: |world| {
            let number = 10 + interfaces(&world.netns).len();
            let pair = format!("link add qr-{number} type veth peer name qg-{number}");
            world.netns.ip(&pair);
        },
    },
    Case {
        name: "interface removed",
        has_no_gap: false,
        breaks: |world| {
            let name = interfaces(&world.netns).remove(0);
            world.netns.ip(&format!("link del {name}"));
        },
    },
];

#[test]
fn what_is_broken_is_whole_again_soon() {
    thread::scope(|scope| {
        for cases in CASES.chunks(CASES.len().div_ceil(3)) {
            scope.spawn(move || cases.iter().for_each(check));
        }
    });
}

fn check(case: &Case) {
    let world = World::new();
    let agent = world.start();
    (case.breaks)(&world);
    soon_or(
        case.name,
        "repaired",
        || {
            assert!(
                !case.has_no_gap || world.is_attached(),
                "{}: a gap",
                case.name
            );
            world.is_well()
        },
        || {
            let log = agent.lines().join("\n");
            format!("{}\n{log}", world.state())
        },
    );
    assert_eq!(agent.kill().code, None, "{}", case.name);

    (case.breaks)(&world);
    wait::for_nothing();
    assert!(
        !world.is_well(),
        "{}: nobody is there to repair it",
        case.name
    );
    let _agent = Agent::start(&world.lab, &world.rules());
    assert!(world.is_well(), "{}: the next start does", case.name);
}

/// What is no damage causes no work either, and an agent that has repaired
/// something becomes quiet.
#[test]
fn what_needs_no_repair_gets_none() {
    let world = World::new();
    let agent = world.start_with(&world.config().with("log", "{ level = \"debug\" }"));
    let cases = [
        "link set qr-1 down\nlink set qr-1 up",
        "link set qr-1 down\nlink set qr-1 name qr-renamed",
    ];
    for case in cases {
        world.netns.ip(case);
        // The look that the events cause, and what may come of it.
        wait::for_nothing();
        assert!(world.is_well(), "{case}");
    }
    // Many times: a name may change between two questions of a look.
    let renaming = (0..200).map(
        |_| "link set qr-2 down\nlink set qr-2 name x\nlink set x name qr-2\nlink set qr-2 up\n",
    );
    world.netns.ip(&renaming.collect::<String>());
    wait::for_nothing();
    assert_eq!(agent.log_count("repaired"), 0, "{cases:?}");

    // On a busy machine an event is heard some time later, and so is the agent's own write.
    let is_quiet = |_| {
        let looks = agent.log_count("looked at");
        wait::for_nothing();
        wait::for_nothing();
        agent.log_count("looked at") == looks
    };
    assert!((0..5).any(is_quiet), "quiet");

    // Somebody else's tables are no news at all.
    let looks = agent.log_count("looked at");
    assert!(looks > 0, "the interfaces' events were heard");
    world
        .netns
        .nft("add table inet other\nadd chain inet other c\n");
    world
        .netns
        .tool("iptables", ["-A", "INPUT", "-p", "tcp", "-j", "ACCEPT"], "");
    wait::for_nothing();
    assert_eq!(agent.log_count("looked at"), looks);

    nft(&world, "flush table OURS");
    agent.wait_for_log("repaired");
    assert!((0..5).any(is_quiet), "quiet again");
    assert_eq!(agent.log_count("repaired"), 1);
}
