//! How the binding is seen: the kernel recognises it without a process, and
//! whatever somebody made of it is never taken for it.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{
    fs,
    os::unix::fs::symlink,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use conntrack_agent::{
    config::Config,
    kernel::{
        self, AgentId, Binding, BindingCarriers, BindingState, Carrier, Error, MarkBits,
        NetnsFolder, Nft,
    },
    model::{Families, Helper, protocol_name},
};
use conntrack_tests::{lab::Lab, netns::Netns};

const MARK: BindingCarriers = BindingCarriers::One(Carrier::Mark);
const CURRENT: BindingState = BindingState::Reading(MARK);

struct Scene {
    agent: AgentId,
    bits: MarkBits,
    binding: Binding,
    /// The nft that the binding uses, while it is there.
    nft: PathBuf,
    held: kernel::Netns,
    netns: Netns,
    lab: Lab,
}

impl Scene {
    fn new() -> Self {
        let lab = Lab::without_bpffs();
        let netns = lab.netns("router");
        let nft = lab.dir().path().join("nft");
        let agent = AgentId::random();
        let bits = Config::default().mark_bits;
        symlink(real_nft(), &nft).unwrap();
        let binding = Binding::probe(Nft::new(&nft), agent, bits).expect("nft");
        let folder = NetnsFolder::new(lab.dir().netns_dir());
        let held = folder.open("router").unwrap().expect("a namespace");
        Self {
            agent,
            bits,
            binding,
            nft,
            held,
            netns,
            lab,
        }
    }

    fn installed() -> Self {
        let scene = Self::new();
        scene.install(BindingState::Absent);
        scene
    }

    fn install(&self, instead_of: BindingState) {
        self.binding
            .install(&self.held, instead_of, MARK)
            .expect("nft");
    }

    fn observe(&self) -> BindingState {
        self.binding.observe(&self.held).expect("an observation")
    }

    /// What the kernel alone can tell; none if nft would have to be asked.
    fn recognise(&self) -> Option<BindingState> {
        let aside = self.nft.with_extension("aside");
        fs::rename(&self.nft, &aside).unwrap();
        let state = self.binding.observe(&self.held);
        fs::rename(&aside, &self.nft).unwrap();
        match state {
            Ok(state) => Some(state),
            Err(Error::NftMissing { .. }) => None,
            Err(other) => panic!("{other:?}"),
        }
    }

    fn table(&self) -> String {
        format!("inet conntrack-agent-{}", self.agent)
    }

    fn nft(&self, commands: &str) {
        self.netns.nft(&commands.replace("TABLE", &self.table()));
    }

    /// The binding as somebody would write it who knows it by heart.
    fn by_hand(&self) -> String {
        let mask = self.bits.mask();
        let helpers = self.binding.helpers();
        let objects = helpers.iter().map(|helper| {
            let family = match helper.families() {
                Families::Ipv4 => "ip",
                Families::Both => "inet",
            };
            format!(
                "ct helper {} {{ type \"{}\" protocol {}; l3proto {family}; }}\n",
                object(*helper),
                helper.name(),
                protocol_name(helper.protocol()),
            )
        });
        let entries: Vec<_> = helpers
            .iter()
            .map(|helper| {
                let bits = self.bits.bits(helper.mark());
                format!("{bits:#x} : \"{}\"", object(*helper))
            })
            .collect();
        format!(
            "table TABLE {{\n{}chain bind {{
             type filter hook prerouting priority -160; policy accept;
             meta mark & {mask:#x} == 0 accept
             ct state new ct helper set meta mark & {mask:#x} map {{ {} }}
             meta mark set meta mark & {:#x}
             }}\n}}\n",
            objects.collect::<String>(),
            entries.join(", "),
            !mask,
        )
    }
}

fn object(helper: Helper) -> String {
    format!("{}-{}", helper.name(), protocol_name(helper.protocol()))
}

fn real_nft() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut programs = std::env::split_paths(&path).map(|folder| folder.join("nft"));
    programs.find(|program| program.exists()).expect("nft")
}

#[test]
fn the_kernel_alone_tells_the_binding_and_its_absence() {
    let scene = Scene::new();
    assert_eq!(scene.recognise(), Some(BindingState::Absent));
    scene.install(BindingState::Absent);
    assert_eq!(scene.recognise(), Some(CURRENT));
    // In one transaction with the removal of the one before.
    scene.install(BindingState::Different);
    assert_eq!(scene.recognise(), Some(CURRENT));
    scene.nft("delete table TABLE");
    assert_eq!(scene.recognise(), Some(BindingState::Absent));
}

#[test]
fn what_leaves_the_binding_as_it_was_is_not_seen() {
    let scene = Scene::installed();
    for (what, commands) in [
        (
            "a table beside it",
            "table inet other { chain bind { accept; }; }",
        ),
        (
            "a namesake of another family",
            "table ip conntrack-agent-AGENT { chain bind { accept; }; }",
        ),
        (
            "a rule that came and went",
            "insert rule TABLE bind counter",
        ),
        ("a chain that came and went", "add chain TABLE other"),
    ] {
        scene.nft(&commands.replace("AGENT", &scene.agent.to_string()));
        match commands.split(' ').next() {
            Some("insert") => {
                assert_eq!(scene.observe(), BindingState::Different, "{what}");
                let listed = scene.netns.tool("nft", ["-a", "list", "ruleset"], "");
                let rule = listed.lines().find(|line| line.contains("counter"));
                let (_, handle) = rule.unwrap().rsplit_once(' ').unwrap();
                scene.nft(&format!("delete rule TABLE bind handle {handle}"));
            }
            Some("add") => {
                assert_eq!(scene.observe(), BindingState::Different, "{what}");
                scene.nft("delete chain TABLE other");
            }
            _ => {}
        }
        assert_eq!(scene.recognise(), Some(CURRENT), "{what}");
    }
    // Its connections, and the packets that it sees, change nothing either.
    scene.netns.tool("ping", ["-c1", "127.0.0.1"], "");
    assert_eq!(scene.recognise(), Some(CURRENT));
}

#[test]
fn every_edit_is_seen() {
    let scene = Scene::installed();
    for commands in [
        "insert rule TABLE bind counter",
        "add rule TABLE bind accept",
        "flush chain TABLE bind",
        "flush table TABLE",
        "add chain TABLE other",
        "add ct helper TABLE other { type \"ftp\" protocol tcp; l3proto ip; }",
        "add counter TABLE other",
        "add set TABLE other { type mark; }",
        "add map TABLE other { type mark : verdict; elements = { 1 : accept }; }",
        "add table TABLE { flags dormant; }",
        "add chain TABLE bind { policy drop; }",
        "flush ruleset; add table TABLE",
    ] {
        scene.nft(commands);
        assert_eq!(scene.observe(), BindingState::Different, "{commands}");
        scene.install(BindingState::Different);
        assert_eq!(scene.recognise(), Some(CURRENT), "{commands}");
    }
    scene.nft("flush ruleset");
    assert_eq!(scene.observe(), BindingState::Absent);
}

#[test]
fn a_rule_that_is_missing_is_seen() {
    let scene = Scene::installed();
    for rule in 0..3 {
        let listed = scene.netns.tool("nft", ["-a", "list", "ruleset"], "");
        let rules = listed.lines().filter(|line| line.contains("mark"));
        let line = rules.clone().nth(rule).expect("three rules");
        assert_eq!(rules.count(), 3, "{listed}");
        let (_, handle) = line.rsplit_once(' ').unwrap();
        scene.nft(&format!("delete rule TABLE bind handle {handle}"));
        assert_eq!(scene.observe(), BindingState::Different, "{line}");
        scene.install(BindingState::Different);
    }
}

#[test]
fn a_table_like_it_is_told_from_it() {
    let scene = Scene::new();
    let same = scene.by_hand();
    let differing = |from: &str, to: &str| {
        let table = same.replacen(from, to, 1);
        assert_ne!(table, same, "{from}");
        table
    };
    scene.nft(&same);
    assert_eq!(scene.observe(), CURRENT, "in nft's own words");
    for (what, table) in [
        (
            "another priority",
            differing("priority -160", "priority -150"),
        ),
        ("another hook", differing("prerouting", "input")),
        ("another chain", differing("chain bind", "chain binding")),
        (
            "another mask",
            differing("meta mark & 0xff000000 ==", "meta mark & 0xfe000000 =="),
        ),
        ("an entry less", differing("0x1000000 : \"ftp-tcp\", ", "")),
        (
            "an entry of another",
            differing("0x1000000 : \"ftp-tcp\"", "0x1000000 : \"sane-tcp\""),
        ),
        (
            "a key of another",
            differing("0x1000000 : ", "0x7f000000 : "),
        ),
        (
            "another helper",
            differing("type \"ftp\" protocol tcp", "type \"irc\" protocol tcp"),
        ),
        ("another family", differing("l3proto inet", "l3proto ip")),
        (
            "announced connections too",
            differing("ct state new ct helper", "ct helper"),
        ),
        (
            "connections of another state",
            differing("ct state new ct helper", "ct state related ct helper"),
        ),
        (
            "a comment",
            differing("accept\n", "accept comment \"mine\"\n"),
        ),
    ] {
        scene.nft("delete table TABLE");
        scene.nft(&table);
        assert_eq!(scene.observe(), BindingState::Different, "{what}");
    }
}

/// A ruleset that changes while it is read is read again, and is never taken
/// for what it isn't.
#[test]
fn other_tables_may_change_meanwhile() {
    let scene = Scene::installed();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let neighbour = scope.spawn(|| {
            let mut rounds = 0;
            while !over.load(Ordering::Relaxed) {
                scene.netns.nft("table inet other { chain c { accept; }; }");
                scene.netns.nft("delete table inet other");
                rounds += 1;
            }
            rounds
        });
        for _ in 0..500 {
            assert_eq!(scene.observe(), CURRENT);
        }
        over.store(true, Ordering::Relaxed);
        assert!(neighbour.join().unwrap() > 0, "it has changed something");
    });
}

#[test]
fn removing_needs_nft_only_where_there_is_something() {
    let scene = Scene::installed();
    fs::remove_file(&scene.nft).unwrap();
    let nft = Nft::new(&scene.nft);
    let remove = |agent| kernel::remove_binding_of(&nft, &scene.held, agent);
    assert!(matches!(remove(AgentId::random()), Ok(false)));
    let refused = remove(scene.agent);
    assert!(
        matches!(refused, Err(Error::NftMissing { .. })),
        "{refused:?}"
    );
    assert_eq!(scene.observe(), CURRENT);
    symlink(real_nft(), &scene.nft).unwrap();
    assert!(matches!(remove(scene.agent), Ok(true)));
    assert!(matches!(remove(scene.agent), Ok(false)));
    assert_eq!(scene.netns.ruleset(), "");
    drop(scene.lab);
}
