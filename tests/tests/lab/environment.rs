//! What the agent needs and hasn't got: one clear sentence, and nothing changed.

use conntrack_tests::agent::{Config, Exit, run_to_exit};
use conntrack_tests::helpers::{Protocol, Rule};
use conntrack_tests::lab::Lab;
use conntrack_tests::router_lab::RouterLab;
use conntrack_tests::site::{Crossing, Plan, Site};
use conntrack_tests::snapshot::assert_same;

const CONTROL: [(Protocol, u16); 1] = [(Protocol::Tcp, 2121)];

/// A router with one rule, in this lab.
fn router_in(lab: &Lab) -> RouterLab {
    let site = Site::new(lab, &Plan::new(Crossing::Routed4, &CONTROL));
    site.router_lab(lab, &[Rule::ftp(2121)])
}

/// Runs the agent on a router with one rule; it must end with exit
/// code 1, say so in one sentence with these words, and leave nothing.
fn check(config: impl Fn(Config) -> Config, launcher: &[&str], words: &[&str]) {
    let router = router_in(&Lab::new());
    let before = router.snapshot();
    let config = config(router.config());
    let exit = run_to_exit(&router.lab, &config, &router.rules(), launcher);
    assert_refusal(&exit, words);
    assert_same(&before, &router.snapshot());
}

fn assert_refusal(exit: &Exit, words: &[&str]) {
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert_eq!(exit.stdout, "", "diagnostics go to stderr");
    assert_eq!(exit.stderr.lines().count(), 1, "one sentence: {exit:?}");
    for word in words {
        assert!(exit.stderr.contains(word), "it names {word:?}: {exit:?}");
    }
}

fn check_without(capability: &str) {
    let set = format!("--bounding-set=-{}", capability.to_lowercase());
    let name = format!("CAP_{capability}");
    check(|config| config, &["setpriv", &set], &[&name, "lacks"]);
}

#[test]
fn without_cap_bpf() {
    check_without("BPF");
}

#[test]
fn without_cap_net_admin() {
    check_without("NET_ADMIN");
}

#[test]
fn without_cap_sys_admin() {
    check_without("SYS_ADMIN");
}

#[test]
fn without_nft() {
    const NFT: &str = "/nonexistent/nft";
    let without = |config: Config| config.with("nft", format!("{NFT:?}"));
    check(without, &[], &[NFT, "install the nftables package"]);
}

#[test]
fn without_a_mounted_bpffs_the_agent_mounts_one_and_cleanup_unmounts_it() {
    let router = router_in(&Lab::without_bpffs());
    let before = router.snapshot();

    let agent = router.start();
    let dir = router.lab.dir();
    assert!(dir.mounts().contains(&dir.bpf_dir()));
    assert_eq!(agent.stop().code, Some(0));

    router.assert_cleans_up();
    assert_same(&before, &router.snapshot());
}

#[test]
fn a_bpffs_that_cannot_be_mounted() {
    let occupied = |config: Config| config.with("bpffs_dir", "\"/proc/self/agent\"");
    check(occupied, &[], &["/proc/self", "mount it"]);
}

/// The namespace goes between the agent's finding it and its binding there:
/// the first nft that runs in it removes it from its folder.
#[test]
fn a_namespace_that_vanishes_half_way() {
    let lab = Lab::new();
    let (stays, vanishes) = (router_in(&lab), router_in(&lab));
    let netns = vanishes.netns.path();
    let file = netns.display();
    let script = format!(
        "if [ \"$(stat -Lc %i /proc/self/ns/net)\" = \"$(stat -c %i {file})\" ]; then\n\
         umount --lazy {file}; rm {file}\n\
         fi"
    );

    let without_its_mount = || {
        let mut snapshot = stays.snapshot();
        snapshot.forget(netns);
        snapshot
    };
    let before = without_its_mount();
    let config = Config::of(&lab).with_nft(&lab, &script);
    let rules = stays.rules() + &vanishes.rules();
    let exit = run_to_exit(&lab, &config, &rules, &[]);
    assert!(!netns.exists(), "it has vanished");
    assert_eq!(exit.code, Some(1), "{exit:?}");
    let id = vanishes.id;
    let said: Vec<_> = exit
        .stderr
        .lines()
        .filter(|line| line.starts_with("conntrack-agent:"))
        .collect();
    let [sentence] = said[..] else {
        panic!("one sentence, beside the log: {exit:?}");
    };
    assert!(
        sentence.contains(&format!("qrouter-{id} went away")),
        "it says what happened: {sentence}"
    );
    assert_same(&before, &without_its_mount());
}
