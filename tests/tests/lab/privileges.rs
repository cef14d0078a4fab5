//! What the agent may still do once it runs, and that it is enough.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};

use conntrack_tests::agent::{Agent, Config, Reload};
use conntrack_tests::curl::curl;
use conntrack_tests::durable::{BareRouter, stored};
use conntrack_tests::helpers::Rule;
use conntrack_tests::lab::Lab;
use conntrack_tests::served::rules_of;

/// `CAP_NET_ADMIN` (12), `CAP_SYS_ADMIN` (21) and `CAP_BPF` (39), as the lines
/// of /proc/PID/status have them (linux/capability.h).
const THREE: u64 = 1 << 12 | 1 << 21 | 1 << 39;

/// What one thread may do: line by line of its `status`.
fn sets(status: &str) -> BTreeMap<&str, u64> {
    let lines = status.lines().filter_map(|line| line.split_once(":\t"));
    lines
        .filter(|(key, _)| key.starts_with("Cap") || *key == "NoNewPrivs")
        .map(|(key, value)| (key, u64::from_str_radix(value, 16).expect("a number")))
        .collect()
}

fn reduced(bounding: u64) -> BTreeMap<&'static str, u64> {
    BTreeMap::from([
        ("CapInh", 0),
        ("CapPrm", THREE),
        ("CapEff", THREE),
        ("CapBnd", bounding),
        ("CapAmb", 0),
        ("NoNewPrivs", 1),
    ])
}

fn rules(router: &BareRouter, port: u16) -> String {
    router.rules_file(&[Rule::ftp(port)])
}

/// Runs the agent through `launcher`; all that it does must work, by threads
/// and children that may do three things, and no other. `bounding` is what its
/// bounding set must be.
fn check(launcher: &[&str], bounding: u64) {
    let lab = Lab::without_bpffs();
    let [filed, asked] = [(); 2].map(|()| BareRouter::new(&lab));
    let record = lab.dir().path().join("nft-status");
    let script = format!("cat /proc/self/status >> {}", record.display());
    let config = Config::of(&lab)
        .with_nft(&lab, &script)
        .with("api", "{ socket_group = \"nogroup\" }");
    let agent = Agent::launch(&lab, &config, Some(&rules(&filed, 21)), launcher);
    let mut agent = agent.ready().unwrap_or_else(|exit| panic!("{exit:?}"));

    // A change by the API, by a reload; nft's processes come with them.
    let path = rules_of(asked.id());
    let body = r#"{"conntrack_helper": {"protocol": "tcp", "port": 21, "helper": "ftp"}}"#;
    let made = curl(&lab.dir().socket(), "POST", &path, body);
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!(agent.reload(&rules(&filed, 2121)), Reload::Done);
    let mapping = stored(lab.dir()).expect("the store");
    for router in [&filed, &asked] {
        router.assert_has(&mapping);
    }

    let pid = agent.process().pid().as_raw_nonzero();
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("its threads");
    let statuses: Vec<_> = tasks
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok())
        .collect();
    assert!(statuses.len() >= 4, "main, two of the runtime, the agent's");
    let of_nft = fs::read_to_string(&record).expect("nft was run");
    let of_nft: Vec<_> = of_nft.split("Name:").skip(1).collect();
    // The first run is to ask which helpers the kernel has.
    assert!(of_nft.len() >= 3, "{} runs of nft", of_nft.len());
    let threads = statuses.iter().map(String::as_str);
    for status in threads.chain(of_nft) {
        assert_eq!(sets(status), reduced(bounding), "{status}");
    }

    // The end is in its power as well: pins, tables, the bpffs that it mounted.
    assert_eq!(agent.stop().code, Some(0));
    let cleanup = conntrack_tests::agent::subcommand(&lab, "cleanup");
    assert_eq!(cleanup.code, Some(0), "{cleanup:?}");
}

#[test]
fn started_as_root_it_keeps_three_capabilities() {
    // This process has more, so the agent has begun with more.
    let own = fs::read_to_string("/proc/self/status").expect("the status");
    assert_ne!(sets(&own)["CapEff"], THREE);
    check(&[], THREE);
}

#[test]
fn started_with_what_the_service_file_gives_it_works_as_well() {
    const UNIT: &str = include_str!("../../../contrib/systemd/conntrack-agent.service");
    let line = UNIT
        .lines()
        .find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let given = line.expect("a bounding set").split(' ');
    let given: Vec<_> = given
        .map(|name| name.strip_prefix("CAP_").expect("a name").to_lowercase())
        .collect();
    // Neither files of others nor limits beyond the hard ones are in it.
    for not in ["dac_override", "sys_resource"] {
        assert!(!given.iter().any(|name| name == not), "{not}");
    }
    let only = format!("--bounding-set=-all,+{}", given.join(",+"));
    check(&["setpriv", &only], THREE);
}

#[test]
fn started_with_inherited_and_ambient_ones_it_gives_them_up() {
    let more = [
        "--inh-caps=+net_raw,+chown",
        "--ambient-caps=+net_raw,+chown",
    ];
    check(&["setpriv", more[0], more[1]], THREE);
}

#[test]
fn without_setpcap_the_bounding_set_stays_and_nothing_can_be_had_from_it() {
    let without = "--bounding-set=-all,+bpf,+net_admin,+sys_admin,+chown,+net_raw";
    // CAP_CHOWN is 0, CAP_NET_RAW 13.
    check(&["setpriv", without], THREE | 1 | 1 << 13);
}

#[test]
fn a_rules_file_that_only_others_may_read_is_refused_and_the_old_rules_stay() {
    let lab = Lab::new();
    let router = BareRouter::new(&lab);
    let mut agent = Agent::start(&lab, &rules(&router, 21));
    let path = lab.dir().path().join("rules.toml");
    fs::write(&path, rules(&router, 2121)).expect("the rules file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its mode");
    chown(&path, Some(65534), Some(65534)).expect("its owner");
    assert_eq!(agent.reload(&rules(&router, 2121)), Reload::Refused);
    agent.wait_for_log("Permission denied");
    let mapping = stored(lab.dir()).expect("the store");
    router.assert_has(&mapping);
    let ports: Vec<_> = mapping
        .entries()
        .map(|entry| entry.rule.target.port.get())
        .collect();
    assert_eq!(ports, [21]);
    // The twin: root's own.
    chown(&path, Some(0), Some(0)).expect("its owner");
    assert_eq!(agent.reload(&rules(&router, 2121)), Reload::Done);
}
