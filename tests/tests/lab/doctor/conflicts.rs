//! Rules of others that use the carrier's field.

use super::*;

#[test]
fn marks_in_conflict() {
    let fixture = Fixture::with(|config| config.with("carrier", "\"mark\""));
    let by_mark = Config::of(&fixture.lab).with("carrier", "\"mark\"");
    let netns = fixture.netns();
    let check = |rule: &str, priority: i32, expected: &str| {
        netns.nft(&marks_of(priority, rule));
        let said = ask_with(&fixture.lab, &by_mark);
        assert_eq!(said.results("marks"), [expected], "{rule}: {said:?}");
        if expected != "ok" {
            let words = ["inet somebodys pre", "-160", "the mangle table"];
            said.assert_found("marks", expected, &words);
        }
        netns.nft("delete table inet somebodys");
        ask_with(&fixture.lab, &by_mark).assert_ok("marks");
    };
    check("meta mark set 0x1", -300, "wrong");
    check("meta mark set meta mark and 0x00ffffff", -300, "wrong");
    check("meta mark set meta mark or 0x80000000", -161, "wrong");
    check("meta mark set ct mark", -170, "wrong");
    check("meta mark set meta mark and 0xffff0000 or 0x1", -300, "ok");
    check("meta mark set 0x1", -150, "ok");
    check("meta mark 0x1 accept", -300, "warn");
    check("meta mark and 0x40000000 != 0 accept", -300, "warn");
    check("meta mark and 0xffff == 0x1 accept", -300, "ok");
    // Compared by size, which takes another byte order.
    check("meta mark 0x1-0x5 accept", -300, "warn");
    check("meta mark < 0x100 accept", -300, "warn");
    check("meta mark { 1-5, 7 } accept", -300, "warn");
    check("meta mark vmap { 1-5 : accept }", -300, "warn");
    check("meta mark and 0xffff0000 > 3 accept", -300, "warn");
    check("meta mark and 0xff > 3 accept", -300, "ok");
    // A route by it.
    check("fib saddr . mark . iif oif missing drop", -300, "warn");
    check("fib saddr . iif oif missing drop", -300, "ok");
    // There are connections from -200 on.
    check("ct mark set meta mark", -170, "warn");
    check("ct mark set meta mark", -300, "ok");
    check("meta mark set ct mark", -300, "ok");
    check("ct mark 0x1 meta mark set 0x1", -300, "ok");
    check("ct state new meta mark set 0x1", -300, "wrong");
    check("meta mark 0x1 accept", 0, "ok");
    check("meta priority set 0x10002", -300, "ok");
    // Between the classifier and prerouting.
    netns.nft(
        "table netdev somebodys {
            chain in { type filter hook ingress device \"qr-1\" priority 0; meta mark set 0x1; }
        }",
    );
    let said = ask_with(&fixture.lab, &by_mark);
    said.assert_found("marks", "wrong", &["netdev somebodys in", "0xff000000"]);
    netns.nft("delete table netdev somebodys");
    // With other bits of the agent's, they are in nobody's way.
    netns.nft(&marks_of(-300, "meta mark set meta mark or 0x10"));
    ask_with(&fixture.lab, &by_mark).assert_ok("marks");
    let low = by_mark.with("mark_mask", "0xff");
    let said = ask_with(&fixture.lab, &low);
    said.assert_found("marks", "wrong", &["0x000000ff", "mark_mask"]);
}

#[test]
fn marks_in_conflict_by_iptables() {
    for program in ["iptables-legacy", "iptables-nft", "ip6tables-legacy"] {
        let fixture = Fixture::new();
        let netns = fixture.netns();
        let check = |rule: &str, expected: &str| {
            let words = ["-t", "raw", "-A", "PREROUTING"];
            let words = words.into_iter().chain(rule.split(' '));
            netns.tool(program, words, "");
            let said = fixture.ask();
            assert_eq!(
                said.results("marks"),
                [expected],
                "{program} {rule}: {said:?}"
            );
            netns.tool(program, ["-t", "raw", "-F"], "");
            fixture.ask().assert_ok("marks");
        };
        check("-j MARK --set-xmark 0x1000000/0xff000000", "wrong");
        check("-j MARK --set-xmark 0x1/0xffff", "ok");
        // There are no connections yet.
        check("-j CONNMARK --restore-mark", "ok");
        check("-m mark --mark 0x1 -j ACCEPT", "warn");
        check("-m mark --mark 0x1/0xffff -j ACCEPT", "ok");
        // As Neutron does it, where all bits are anybody's again.
        let words = "-t mangle -A PREROUTING -j MARK --set-xmark 0x4000000/0xffff0000";
        netns.tool(program, words.split(' '), "");
        fixture.ask().assert_ok("marks");
    }
}

#[test]
fn a_priority_in_conflict_where_it_is_the_carrier() {
    let mut fixture = Fixture::new();
    nat(fixture.netns());
    fixture.reload();
    let netns = fixture.netns();
    netns.nft(&marks_of(-150, "meta priority set 0x10002"));
    let said = fixture.ask();
    said.assert_found("marks", "wrong", &["priority", "inet somebodys pre"]);
    let by_mark = Config::of(&fixture.lab).with("carrier", "\"mark\"");
    ask_with(&fixture.lab, &by_mark).assert_ok("marks");
    netns.nft("delete table inet somebodys");
    // Where NAT is, and there since.
    netns.nft(&marks_of(-100, "meta priority set 0x10002"));
    fixture.ask().assert_found("marks", "wrong", &["priority"]);
    netns.nft("delete table inet somebodys");
    netns.nft(&marks_of(-90, "meta priority set 0x10002"));
    fixture.ask().assert_ok("marks");
    netns.nft("delete table inet somebodys");
    // Among nat chains, in front of the agent's and behind it.
    let nat_chain = |priority: i32| {
        format!(
            "table ip somebodys-nat {{
                chain d {{
                    type nat hook prerouting priority {priority}; meta priority set 0x10002;
                }}
            }}"
        )
    };
    netns.nft(&nat_chain(-120));
    fixture.ask().assert_found("marks", "wrong", &["priority"]);
    netns.nft("delete chain ip somebodys-nat d");
    netns.nft(&nat_chain(-105));
    fixture.ask().assert_ok("marks");
}
