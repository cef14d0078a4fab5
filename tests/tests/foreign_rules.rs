//! How other tools' rules are read: as nft, both iptables and tc write them, by the
//! kernel's own bytes.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::process::Command;

use conntrack_agent::kernel::{self, NetnsFolder, RuleAction, Ruleset, ruleset_of};
use conntrack_tests::{lab::Lab, netns::Netns};

struct Fixture {
    netns: Netns,
    held: kernel::Netns,
    _lab: Lab,
}

impl Fixture {
    fn new() -> Self {
        let lab = Lab::without_bpffs();
        let netns = lab.netns("router");
        netns.ip("link add qr-1 type veth peer name peer");
        let folder = NetnsFolder::new(lab.dir().netns_dir());
        let held = folder.open("router").expect("a namespace");
        Self {
            netns,
            held: held.expect("a namespace"),
            _lab: lab,
        }
    }

    fn ruleset(&self) -> Ruleset {
        ruleset_of(&self.held).expect("a ruleset")
    }

    fn tool(&self, words: &str) {
        let mut words = words.split(' ');
        let program = words.next().expect("a program");
        self.netns.tool(program, words, "");
    }

    /// Adds a filter of tc's. Returns false if the kernel has no such filter or
    /// action, as many have not.
    fn has_filter(&self, filter: &str) -> bool {
        let add = format!("filter add dev qr-1 ingress protocol ip pref 9 {filter}");
        let words = add.split(' ').map(|word| word.replace('_', " "));
        let mut tc = Command::new("tc");
        tc.args(words);
        let output = self.netns.run(|| tc.output().expect("tc"));
        let said = String::from_utf8_lossy(&output.stderr);
        let is_lacking = said.contains("classifier not found") || said.contains("load TC action");
        assert!(output.status.success() || is_lacking, "{filter}: {said}");
        output.status.success()
    }
}

/// A rule in short: where it is, which protocol and port it is for, and what it does.
fn told(ruleset: &Ruleset) -> Vec<String> {
    let rules = ruleset.rules.iter().filter(|rule| {
        let only_jumps = |action| matches!(action, &RuleAction::Jumps(_));
        !rule.actions.iter().all(only_jumps)
    });
    let told = rules.map(|rule| {
        let chain = ruleset
            .chains
            .iter()
            .find(|chain| chain.table == rule.table && chain.name == rule.chain)
            .unwrap_or_else(|| panic!("{rule:?} has no chain"));
        let number = |number: Option<u16>| number.map_or("*".into(), |number| number.to_string());
        format!(
            "{} {} {:?} {} {} {:?}",
            rule.table,
            rule.chain,
            chain.hook,
            number(rule.scope.protocol.map(u16::from)),
            number(rule.scope.port),
            rule.actions,
        )
    });
    told.collect()
}

/// Each rule by itself, in a namespace that has no other.
#[track_caller]
fn check(set_up: &str, expected: &str, take_away: &str) {
    let fixture = Fixture::new();
    fixture.tool(set_up);
    assert_eq!(told(&fixture.ruleset()), [expected], "{set_up}");
    fixture.tool(take_away);
    assert_eq!(told(&fixture.ruleset()), [""; 0], "{take_away}");
}

#[test]
fn rules_of_both_iptables() {
    for (program, family) in [
        ("iptables-legacy", "iptables-legacy"),
        ("ip6tables-legacy", "ip6tables-legacy"),
        ("iptables-nft", "ip"),
        ("ip6tables-nft", "ip6"),
    ] {
        for (table, rule, hook, scope, action) in [
            (
                "raw",
                "-p tcp --dport 21 -j CT --helper ftp",
                "Prerouting(-300)",
                "6 21",
                "GivesHelper(Some(\"ftp\"))",
            ),
            (
                "raw",
                "-p udp --dport 69:70 -j CT --notrack",
                "Prerouting(-300)",
                "17 *",
                "SetsUntracked",
            ),
            (
                "raw",
                "-p tcp ! --dport 21 -j NOTRACK",
                "Prerouting(-300)",
                "6 *",
                "SetsUntracked",
            ),
            (
                "mangle",
                "-j MARK --set-xmark 0x4000000/0xffff0000",
                "Prerouting(-150)",
                "* *",
                "WritesMark(4294901760)",
            ),
            (
                "mangle",
                "-p udp -j CONNMARK --restore-mark --nfmask 0xff --ctmask 0xff",
                "Prerouting(-150)",
                "17 *",
                "WithConnection(WritesMark(255))",
            ),
            (
                "nat",
                "-p tcp --dport 2121 -j REDIRECT --to-ports 21",
                "Nat(-100)",
                "6 2121",
                "Translates",
            ),
        ] {
            check(
                &format!("{program} -t {table} -A PREROUTING {rule}"),
                &format!("{family} {table} PREROUTING Some({hook}) {scope} [{action}]"),
                &format!("{program} -t {table} -F"),
            );
        }
        check(
            &format!("{program} -t mangle -A FORWARD -j CLASSIFY --set-class 1:2"),
            &format!("{family} mangle FORWARD Some(Elsewhere) * * [WritesPriority]"),
            &format!("{program} -t mangle -F"),
        );
    }
}

#[test]
fn rules_of_nft() {
    for (kind, rule, hook, scope, action) in [
        (
            "nat hook prerouting priority -120",
            "tcp dport 2121 dnat ip to 192.0.2.1:21",
            "Nat(-120)",
            "6 2121",
            "Translates",
        ),
        (
            "nat hook prerouting priority -100",
            "udp dport { 69, 70 } redirect to :69",
            "Nat(-100)",
            "17 *",
            "Translates",
        ),
        (
            "nat hook postrouting priority 100",
            "masquerade",
            "Elsewhere",
            "* *",
            "Translates",
        ),
        (
            "filter hook prerouting priority -300",
            "th dport 21 notrack",
            "Prerouting(-300)",
            "* 21",
            "SetsUntracked",
        ),
        (
            "filter hook prerouting priority -150",
            "meta l4proto udp meta priority set 0x10002",
            "Prerouting(-150)",
            "17 *",
            "WritesPriority",
        ),
        (
            "filter hook prerouting priority -150",
            "meta mark set meta mark and 0xffffff00 or 0x12",
            "Prerouting(-150)",
            "* *",
            "WritesMark(255)",
        ),
    ] {
        let fixture = Fixture::new();
        fixture.netns.nft(&format!(
            "table inet theirs {{\n chain c {{ type {kind}; {rule}; }}\n}}"
        ));
        let expected = format!("inet theirs c Some({hook}) {scope} [{action}]");
        assert_eq!(told(&fixture.ruleset()), [expected], "{rule}");
    }
}

/// By which nft and iptables name it.
#[test]
fn a_rule_has_the_handle_that_its_tool_shows() {
    let fixture = Fixture::new();
    fixture.netns.nft(
        "table inet theirs {
            chain c {
                type filter hook prerouting priority 0; accept; notrack; accept; meta mark set 1;
            }
        }",
    );
    let listed = fixture.netns.tool("nft", ["-a", "list", "ruleset"], "");
    fixture.tool("iptables-legacy -t raw -N own");
    fixture.tool("iptables-legacy -t raw -A own -j ACCEPT");
    fixture.tool("iptables-legacy -t raw -A own -j NOTRACK");
    let ruleset = fixture.ruleset();
    let handles: Vec<_> = ruleset.rules.iter().map(|rule| rule.handle).collect();
    let [untracked, marked, by_number] = handles[..] else {
        panic!("{ruleset:?}")
    };
    for (rule, handle) in [("notrack", untracked), ("meta mark set 0x00000001", marked)] {
        assert!(
            listed.contains(&format!("{rule} # handle {handle}\n")),
            "{listed}"
        );
    }
    assert_eq!(by_number, 2);
}

#[test]
fn filters_of_tc() {
    for (qdisc, filter, actions) in [
        (
            "clsact",
            "u32 match ip dport 21 0xffff action mirred egress redirect dev peer",
            "",
        ),
        (
            "ingress",
            "matchall action skbedit mark 1",
            "[WritesMark(4294967295)]",
        ),
        (
            "clsact",
            "u32 match ip dport 21 0xffff action skbedit priority 1:2 mark 1/0xff",
            "[WritesMark(255), WritesPriority]",
        ),
        (
            "clsact",
            "flower action skbedit inheritdsfield",
            "[WritesPriority]",
        ),
        (
            "clsact",
            "matchall action connmark",
            "[WithConnection(WritesMark(4294967295))]",
        ),
        (
            "clsact",
            "matchall action pass action skbedit priority 1:2",
            "[WritesPriority]",
        ),
        (
            "clsact",
            "basic action skbedit priority 1:2",
            "[WritesPriority]",
        ),
        (
            "clsact",
            "bpf bytecode 1,6_0_0_0 action skbedit priority 1:2",
            "[WritesPriority]",
        ),
        (
            "clsact",
            "handle 1 fw action skbedit priority 1:2",
            "[WritesPriority]",
        ),
    ] {
        let fixture = Fixture::new();
        fixture.tool(&format!("tc qdisc add dev qr-1 {qdisc}"));
        assert_eq!(told(&fixture.ruleset()), [""; 0], "{filter}");
        if !fixture.has_filter(filter) {
            println!("not tried, as this kernel lacks a part of it: {filter}");
            continue;
        }
        let place = "tc qr-1 ingress pref 9 Some(TcFilter(9)) * *";
        let expected = (!actions.is_empty()).then(|| format!("{place} {actions}"));
        assert_eq!(
            told(&fixture.ruleset()),
            Vec::from_iter(expected),
            "{filter}"
        );
    }
}
