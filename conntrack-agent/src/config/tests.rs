//! What a configuration may say.

use super::*;
use crate::{access::Principal, kernel::XdpMode};

fn refusal(text: &str) -> String {
    Config::parse(Path::new("agent.toml"), text)
        .unwrap_err()
        .to_string()
}

#[test]
fn an_empty_file_is_the_defaults_and_they_are_good() {
    assert_eq!(
        Config::parse(Path::new("x"), "").unwrap(),
        Config::default()
    );
    let faults = ConfigFile::default().checked().1;
    assert_eq!(faults, Vec::<String>::new());
}

#[test]
#[expect(clippy::too_many_lines, reason = "a list of bad values")]
fn a_bad_value_is_refused_with_what_is_allowed() {
    for (text, parts) in [
        ("stat_dir = \"/x\"", &["stat_dir", "state_dir"][..]),
        ("state_dir = \"x\"", &["state_dir", "absolute"]),
        ("bpffs_dir = \"/sys/fs/bpf/a.b\"", &["bpffs_dir", "dot"]),
        ("namespace_prefixes = []", &["namespace_prefixes", "empty"]),
        ("namespace_prefixes = [\"../\"]", &["\"../\"", "letters"]),
        ("namespace_prefixes = [\"a\", \"a\"]", &["\"a\"", "twice"]),
        ("mark_mask = 0", &["mark_mask", "bits"]),
        ("mark_mask = 0xff0000ff", &["0xff0000ff", "adjoining"]),
        ("mark_mask = 0x7", &["0x00000007", "wide enough"]),
        ("mark_mask = -1", &["mark_mask"]),
        ("nft = \"\"", &["nft"]),
        ("interfaces = []", &["interfaces", "at least one"]),
        (
            "interfaces = [\"q[\"]",
            &["interfaces", "\"q[\"", "allowed"],
        ),
        ("attach = \"xdp\"", &["xdp", "auto", "tcx", "clsact"]),
        (
            "[[interface]]\nname = \"q*\"\nattach = \"tcx\"",
            &["tcx", "`xdp`", "xdp-generic"],
        ),
        (
            "[[interface]]\nname = \"q[\"\nattach = \"xdp\"",
            &["interface 1", "\"q[\"", "allowed"],
        ),
        ("[[interface]]\nname = \"q*\"", &["attach"]),
        ("[[interface]]\nattach = \"xdp\"", &["name"]),
        (
            "[[interface]]\nname = \"q*\"\nattach = \"xdp\"\nmode = 1",
            &["mode", "attach"],
        ),
        (
            "[interface]\nname = \"q*\"\nattach = \"xdp\"",
            &["interface"],
        ),
        (
            "limits.rules_per_router = 0",
            &["rules_per_router", "65534"],
        ),
        (
            "limits.rules_per_router = 65535",
            &["rules_per_router", "65534"],
        ),
        ("limits.routers = 0", &["routers"]),
        (
            "api.limits.body_bytes = 10",
            &["api.limits.body_bytes", "1024"],
        ),
        ("api.limits.connections = 0", &["connections", "65536"]),
        ("api.limits.body_seconds = 601", &["body_seconds", "600"]),
        ("api.sockets = 1", &["sockets", "socket_group"]),
        ("full_pass_seconds = 0", &["full_pass_seconds", "86400"]),
        (
            "allowed_helpers = [\"ftp\", \"gopher\"]",
            &["gopher", "tftp"],
        ),
        ("[log]\nlevel = \"loud\"", &["loud", "info"]),
        ("[log", &["log"]),
        ("[audit]\nto = \"none\"", &["none", "file", "journald"]),
        ("[audit]\nrotate = 3", &["rotate", "keep"]),
        ("audit.max_bytes = 65535", &["max_bytes", "65536"]),
        ("audit.max_bytes = 1073741825", &["max_bytes", "1073741824"]),
        ("audit.keep = 0", &["audit.keep", "1 to 1000"]),
        ("audit.keep = 1001", &["audit.keep", "1 to 1000"]),
        (
            "audit.refusals_per_second = 0",
            &["refusals_per_second", "1 to 1000"],
        ),
        (
            "audit.refusals_per_second_in_all = 1001",
            &["refusals_per_second_in_all", "1 to 1000"],
        ),
        (
            "[[grant]]\nusers = [\"conntrack-agent-has-no-such-user\"]\nrole = \"reader\"",
            &["grant 1", "no user", "has-no-such-user"],
        ),
        (
            "[[grant]]\nusers = [1]\nrole = \"reader\"\nrouters = [\"x\"]",
            &["grant 1", "\"x\"", "UUID"],
        ),
        (
            "[[grant]]\nusers = [1]\nrole = \"king\"",
            &["king", "operator"],
        ),
        ("[grants]", &["grants"]),
        ("[tcp]\nlisten = \"127.0.0.1:1\"", &["token_file"]),
        ("[tcp]\ntoken_file = \"/t\"", &["listen"]),
        (
            "[tcp]\nlisten = \"localhost:1\"\ntoken_file = \"/t\"",
            &["listen", "address"],
        ),
        (
            "[tcp]\nlisten = \"127.0.0.1:0\"\ntoken_file = \"/t\"",
            &["tcp.listen", "65535"],
        ),
        (
            "[tcp]\nlisten = \"127.0.0.1:1\"\ntoken_file = \"t\"",
            &["tcp.token_file", "absolute"],
        ),
        (
            "[tcp]\nlisten = \"127.0.0.1:1\"\ntoken_file = \"/t\"\ntoken = \"x\"",
            &["`token`", "token_file"],
        ),
    ] {
        let message = refusal(text);
        for part in parts {
            assert!(message.contains(part), "{message} lacks {part}");
        }
    }
}

#[test]
fn the_ends_of_a_range_are_in_it() {
    for text in [
        "audit = { max_bytes = 65536, keep = 1, refusals_per_second = 1 }",
        "audit = { max_bytes = 1073741824, keep = 1000, refusals_per_second_in_all = 1000 }",
        "audit.to = \"journald\"",
    ] {
        Config::parse(Path::new("agent.toml"), text).unwrap();
    }
}

#[test]
fn grants_and_a_listener_are_taken_as_they_are_written() {
    let text = "[[grant]]\nusers = [\"root\", 7]\nrole = \"admin\"\n\
                [[grant]]\ntokens = [\"ci\"]\nrole = \"reader\"\n\
                [tcp]\nlisten = \"[::1]:9797\"\ntoken_file = \"/t\"";
    let config = Config::parse(Path::new("x"), text).unwrap();
    let peer = |uid| Principal::Local {
        pid: 1,
        uid,
        gid: 9,
    };
    assert!(!config.access.of(peer(7)).is_nobody());
    assert!(config.access.of(peer(8)).is_nobody());
    let tokens: Vec<_> = config
        .access
        .token_names()
        .map(ToString::to_string)
        .collect();
    assert_eq!(tokens, ["ci"]);
    assert_eq!(config.tcp.unwrap().listen.port(), 9797);
}

#[test]
fn interfaces_for_xdp_are_taken_in_their_order() {
    let text = "[[interface]]\nname = \"qg-*\"\nattach = \"xdp\"\n\
                [[interface]]\nname = \"*\"\nattach = \"xdp-generic\"";
    let config = Config::parse(Path::new("x"), text).unwrap();
    assert_eq!(config.xdp.mode_of("qg-1"), Some(XdpMode::Native));
    assert_eq!(config.xdp.mode_of("qr-1"), Some(XdpMode::Generic));
    assert_eq!(Config::default().xdp.mode_of("qg-1"), None);
}

#[test]
fn cwe_284_only_a_loopback_address_is_listened_on() {
    let tcp = |address: &str| format!("[tcp]\nlisten = \"{address}:9797\"\ntoken_file = \"/t\"");
    let metrics = |address: &str| format!("[metrics]\nlisten = \"{address}:9798\"");
    let zero = refusal("[metrics]\nlisten = \"127.0.0.1:0\"");
    assert!(
        zero.contains("metrics.listen") && zero.contains("65535"),
        "{zero}"
    );
    for address in ["127.0.0.1", "127.1.2.3", "[::1]"] {
        for text in [tcp(address), metrics(address)] {
            assert!(Config::parse(Path::new("x"), &text).is_ok());
        }
    }
    for address in [
        "0.0.0.0",
        "[::]",
        "192.0.2.1",
        "[fe80::1]",
        "[::ffff:127.0.0.1]",
    ] {
        for (text, key) in [
            (tcp(address), "tcp.listen"),
            (metrics(address), "metrics.listen"),
        ] {
            let message = refusal(&text);
            let words = ["loopback", address, key];
            assert!(words.iter().all(|word| message.contains(word)), "{message}");
        }
    }
}

#[test]
fn every_fault_is_named() {
    let message = refusal("state_dir = \"x\"\nmark_mask = 0\nnft = \"\"");
    assert_eq!(message.lines().count(), 4, "{message}");
}
