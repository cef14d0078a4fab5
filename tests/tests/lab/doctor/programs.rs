//! Programs on the hooks: the agent's that is lost, and those of others.

use super::*;

#[test]
fn programs_of_others() {
    let fixture = Fixture::new();
    let netns = fixture.netns();
    let of_others = "somebody else's";
    let place = format!("{} qr-1", netns.name());
    let is_tcx = !attach::is_by_filters();
    {
        let _foreign = ForeignProgram::attach_first(netns, "qr-1");
        let words = [of_others, &place, "a tcx program", "in front of"];
        fixture.ask().assert_found("programs", "warn", &words);
    }
    fixture.ask().assert_ok("programs");
    {
        let _foreign = ForeignProgram::attach_last(netns, "qr-1");
        let order = if is_tcx { "behind the" } else { "in front of" };
        let words = [of_others, &place, order];
        fixture.ask().assert_found("programs", "warn", &words);
    }
    fixture.ask().assert_ok("programs");
    if is_tcx {
        netns.tool("tc", ["qdisc", "add", "dev", "qr-1", "clsact"], "");
    }
    {
        let _foreign = ForeignProgram::attach_filter(netns, "qr-1", 50_000);
        let words = [of_others, &place, "a tc filter's program", "behind the"];
        fixture.ask().assert_found("programs", "warn", &words);
        netns.tool(
            "tc",
            ["filter", "del", "dev", "qr-1", "ingress", "prio", "50000"],
            "",
        );
    }
    fixture.ask().assert_ok("programs");
    // What isn't the agent's to classify isn't its to watch.
    let elsewhere = Config::of(&fixture.lab).with("interfaces", "[\"qg-*\"]");
    let _foreign = ForeignProgram::attach_first(netns, "qr-1");
    ask_with(&fixture.lab, &elsewhere).assert_ok("programs");
}

/// As Neutron limits floating IPs.
#[test]
fn filters_of_others_that_run_no_program() {
    let fixture = Fixture::new();
    let netns = fixture.netns();
    let tc = |words: &str| netns.tool("tc", words.split(' '), "");
    let is_tcx = !attach::is_by_filters();
    if is_tcx {
        tc("qdisc add dev qr-1 ingress");
    }
    // Of a filter that is in front of the agent's, another remedy.
    let (order, remedy) = if is_tcx {
        ("behind the", "leaves the field alone")
    } else {
        ("in front of", "Linux 6.6")
    };
    let limit = "filter add dev qr-1 parent ffff: protocol ip prio 1 \
                 u32 match ip dst 192.0.2.1 flowid :1";
    fixture.ask().assert_ok("programs");
    tc(limit);
    let place = format!("{} qr-1", netns.name());
    let words = [
        "a tc filter (u32) of somebody else's",
        &place,
        order,
        remedy,
    ];
    fixture.ask().assert_found("programs", "warn", &words);
    tc("filter del dev qr-1 parent ffff: protocol ip prio 1");
    fixture.ask().assert_ok("programs");
    // Classic BPF, which has no program with an id.
    let add = "filter add dev qr-1 parent ffff: prio 50000 bpf bytecode";
    netns.tool("tc", add.split(' ').chain(["1,6 0 0 0"]), "");
    let words = ["a tc filter (bpf) of somebody else's", &place, "behind the"];
    fixture.ask().assert_found("programs", "warn", &words);
    tc("filter del dev qr-1 parent ffff: prio 50000");
    fixture.ask().assert_ok("programs");
}

#[test]
fn an_xdp_program_of_somebody_elses() {
    let fixture = Fixture::new();
    let xdp = ForeignXdp::attach(fixture.netns(), "lo", Xdp::Generic, 0);
    fixture.ask().assert_ok("programs");
    drop(xdp);
    if conntrack_tests::snapshot::xdp_on(fixture.netns(), "qr-1").is_some() {
        // The agents of this run have their own there.
        return;
    }
    let xdp = ForeignXdp::attach(fixture.netns(), "qr-1", Xdp::Generic, 0);
    let words = ["an XDP program", "qr-1"];
    fixture.ask().assert_found("programs", "warn", &words);
    let wanted = Config::of(&fixture.lab).with_xdp("qr-1", Xdp::Generic);
    let words = ["an XDP program", "has no place"];
    ask_with(&fixture.lab, &wanted).assert_found("programs", "warn", &words);
    drop(xdp);
    fixture.ask().assert_ok("programs");
}

/// A macvlan's driver has no XDP.
#[test]
fn an_interface_that_can_not_have_the_xdp_program_that_is_wanted() {
    let native = |lab: &Lab| Config::of(lab).with_xdp("*", Xdp::Native);
    let mut fixture = Fixture::with(|config| config.with_xdp("*", Xdp::Native));
    let netns = fixture.netns();
    ask_with(&fixture.lab, &native(&fixture.lab)).assert_ok("programs");
    netns.ip("link add link qr-1 name qr-9 type macvlan");
    let place = format!("{} qr-9", netns.name());
    fixture.reload();
    let words = ["XDP is wanted", &place, "xdp-generic"];
    ask_with(&fixture.lab, &native(&fixture.lab)).assert_found("programs", "warn", &words);
    let (lab, router) = fixture.kill();
    let generic = Config::of(&lab).with_xdp("*", Xdp::Generic);
    let _agent = Agent::start_with(&lab, &generic, &rules(&router));
    ask_with(&lab, &generic).assert_ok("programs");
}

#[test]
fn an_interface_that_lost_the_agents_program() {
    let (lab, router) = Fixture::new().kill();
    let pins = Pins::new(lab.dir().agent_bpffs_dir());
    let pin = pins.links_of(router.id()).expect("the links").remove(0);
    if pin.is_dir() {
        router
            .netns()
            .tool("tc", ["filter", "del", "dev", "qr-1", "ingress"], "");
        router
            .netns()
            .tool("tc", ["filter", "del", "dev", "qg-1", "ingress"], "");
        let said = ask(&lab);
        assert_eq!(said.results("programs"), ["wrong"; 2], "{said:?}");
    } else {
        fs::remove_file(pin).expect("the link's pin");
        let gone = || {
            let said = ask(&lab);
            (said.results("programs") == ["wrong"]).then_some(said)
        };
        // The kernel lets go of a link some time after its pin.
        let said = conntrack_tests::wait::until(conntrack_tests::wait::patience(), gone);
        let said = said.expect("a finding");
        said.assert_found("programs", "wrong", &["gets no helper"]);
    }
    let _agent = Agent::start(&lab, &rules(&router));
    ask(&lab).assert_ok("programs");
}
