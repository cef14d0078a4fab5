//! Rules of others that give helpers: of Neutron, of another agent, of anybody.

use super::*;

/// By this program of iptables', of either kind.
fn check_neutron(program: &str) {
    let fixture = Fixture::new();
    let bare = BareRouter::new(&fixture.lab);
    let chains = neutron::table([neutron::assignment("tcp", 21, "ftp")]);
    let restore = format!("{program}-restore");
    for netns in [fixture.netns(), bare.netns()] {
        netns.tool::<&str>(&restore, [], &chains);
    }
    let said = fixture.ask();
    let chain = neutron::chain(0);
    let (ruled, bare_name) = (fixture.netns().name(), bare.netns().name());
    said.assert_found(
        "neutron-chains",
        "wrong",
        &[&chain, "ftp", &ruled, "l3_agent.ini"],
    );
    // Where the agent has nothing it is Neutron's to do.
    said.assert_found("neutron-chains", "warn", &[&chain, &bare_name]);
    said.assert_ok("other-helpers");
    said.assert_ok("marks");
    for netns in [fixture.netns(), bare.netns()] {
        netns.tool(program, ["-t", "raw", "-F"], "");
    }
    fixture.ask().assert_ok("neutron-chains");
}

#[test]
fn neutrons_own_chains_by_legacy_iptables() {
    check_neutron("iptables-legacy");
    check_neutron("ip6tables-legacy");
}

#[test]
fn neutrons_own_chains_by_iptables_nft() {
    check_neutron("iptables-nft");
    check_neutron("ip6tables-nft");
}

/// What `doctor` says of both at once is so.
#[test]
fn neutrons_rule_comes_first_and_goes_on_when_the_agents_is_gone() {
    const PORT: u16 = 2121;
    let lab = Lab::new();
    let control = [(Protocol::Tcp, PORT)];
    let site = Site::new(&lab, &Plan::new(Crossing::Routed4, &control));
    let netns = site.router.netns();
    let irc = Rule {
        helper: "irc",
        ..Rule::ftp(PORT)
    };
    let mut agent = Agent::start(&lab, &rules_file(&[(&site.router, &[irc])]));
    let server = site
        .server
        .run(|| TcpListener::bind(site.server_address(PORT)));
    let _server = server.expect("a listener");
    let connect = || {
        let to = site.published_address(PORT);
        let client = site.client.run(|| TcpStream::connect(to));
        drop(client.expect("a connection"));
    };
    let assert_helper = |helper| {
        connect();
        assert_helpers(netns, &[(PORT, helper)]);
        netns.tool("conntrack", ["-F"], "");
    };
    assert_helper("irc");
    let chains = neutron::table([neutron::assignment("tcp", PORT, "ftp")]);
    netns.tool::<&str>("iptables-legacy-restore", [], &chains);
    assert_helper("ftp");
    assert_eq!(agent.reload(""), Reload::Done);
    assert_helper("ftp");
}

#[test]
fn helpers_that_others_give() {
    let fixture = Fixture::new();
    for rule in [
        // By an object, by a map of objects, behind a jump.
        "tcp dport 21 ct helper set \"somebodys-ftp\"",
        "ct helper set tcp dport map { 21 : \"somebodys-ftp\" }",
        "tcp dport 21 jump further",
        "tcp dport vmap { 21 : jump further }",
    ] {
        fixture.netns().nft(&format!(
            "table inet somebodys {{
                ct helper somebodys-ftp {{ type \"ftp\" protocol tcp; }}
                chain further {{ ct helper set \"somebodys-ftp\"; }}
                chain pre {{ type filter hook prerouting priority 0; {rule}; }}
            }}"
        ));
        let said = fixture.ask();
        said.assert_found("other-helpers", "warn", &["inet somebodys"]);
        said.assert_ok("neutron-chains");
        fixture.netns().nft("delete table inet somebodys");
        fixture.ask().assert_ok("other-helpers");
    }
    // Which no packet meets.
    fixture.netns().nft(
        "table inet somebodys {
            ct helper somebodys-ftp { type \"ftp\" protocol tcp; }
            chain further { ct helper set \"somebodys-ftp\"; }
        }",
    );
    fixture.ask().assert_ok("other-helpers");
}

/// What it was that lost its footprint, say.
#[test]
fn a_table_of_another_agents() {
    let fixture = Fixture::new();
    let name = format!("conntrack-agent-{}", Uuid::new_v4());
    fixture.netns().nft(&format!(
        "table inet {name} {{
            ct helper ftp-tcp {{ type \"ftp\" protocol tcp; }}
            chain bind {{
                type filter hook prerouting priority -160;
                ct helper set meta mark and 0xff000000 map {{ 0x1000000 : \"ftp-tcp\" }}
                meta mark set meta mark and 0x00ffffff
            }}
        }}"
    ));
    let said = fixture.ask();
    said.assert_found("other-helpers", "warn", &[&name]);
    said.assert_found("marks", "wrong", &[&name, "mark_mask"]);
    fixture.netns().nft(&format!("delete table inet {name}"));
    let said = fixture.ask();
    said.assert_ok("other-helpers");
    said.assert_ok("marks");
}

/// The kernel itself is asked, so no program has to be there or to be believed.
#[test]
fn legacy_tables_without_their_programs() {
    let fixture = Fixture::new();
    let command = fixture.netns().tool("sh", ["-c", "command -v nft"], "");
    let config = Config::of(&fixture.lab).with("nft", format!("{:?}", command.trim()));
    let without = || ask_through(&fixture.lab, &config, &["env", "PATH=/nonexistent"]);
    without().assert_ok("neutron-chains");
    let list = ["-t", "raw", "-L", "-n"];
    fixture.netns().tool("iptables-legacy", list, "");
    let said = without();
    for check in ["neutron-chains", "other-helpers", "marks"] {
        said.assert_ok(check);
    }
    let chains = neutron::table([neutron::assignment("tcp", 21, "ftp")]);
    fixture
        .netns()
        .tool::<&str>("iptables-legacy-restore", [], &chains);
    let chain = neutron::chain(0);
    without().assert_found("neutron-chains", "wrong", &[&chain, "ftp"]);
}
