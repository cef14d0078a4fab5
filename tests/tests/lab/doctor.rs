//! `doctor`: each check is provoked, and is silent again after its remedy.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;

use conntrack_agent::kernel::{Instance, Pins, Usable};
use conntrack_tests::agent::{Agent, Config, Exit, Reload, binary, rewrite_config};
use conntrack_tests::attach::{self, Xdp};
use conntrack_tests::conntrack::assert_helpers;
use conntrack_tests::durable::BareRouter;
use conntrack_tests::foreign::{ForeignProgram, ForeignXdp};
use conntrack_tests::helpers::{Protocol, Rule, rules_file};
use conntrack_tests::lab::Lab;
use conntrack_tests::netns::Netns;
use conntrack_tests::neutron;
use conntrack_tests::site::{Crossing, Plan, Site};
use conntrack_tests::snapshot::{Snapshot, assert_same};
use serde_json::Value;
use uuid::Uuid;

/// What `doctor` says: of each finding its check, place, result, words, remedy.
#[derive(Debug)]
struct Diagnosis {
    code: Option<i32>,
    findings: Vec<Value>,
    stderr: String,
}

impl Diagnosis {
    /// The results of a check, as often as there are.
    fn results(&self, check: &str) -> Vec<&str> {
        let of_it = self.of(check);
        of_it
            .map(|finding| finding["result"].as_str().expect("a result"))
            .collect()
    }

    fn of(&self, check: &str) -> impl Iterator<Item = &Value> {
        let findings = self.findings.iter();
        findings.filter(move |finding| finding["check"] == check)
    }

    /// That this check has found this once, in these words and with a remedy, and
    /// that the exit code fits.
    #[track_caller]
    fn assert_found(&self, check: &str, result: &str, words: &[&str]) {
        let fits = |finding: &&Value| finding["result"] == result;
        let found: Vec<_> = self.of(check).filter(fits).collect();
        let [finding] = found[..] else {
            panic!(
                "{check} is not {result} once: {:?}",
                self.of(check).collect::<Vec<_>>()
            );
        };
        let text = finding.to_string();
        for word in words {
            assert!(text.contains(word), "{finding} lacks {word}");
        }
        let has_remedy = finding["remedy"].is_string();
        assert_eq!(has_remedy, matches!(result, "warn" | "wrong"), "{finding}");
        self.assert_code();
    }

    /// That this check has found nothing, anywhere.
    #[track_caller]
    fn assert_ok(&self, check: &str) {
        let results = self.results(check);
        assert!(!results.is_empty(), "no {check}");
        let found: Vec<_> = self.of(check).collect();
        assert!(results.iter().all(|result| *result == "ok"), "{found:?}");
        self.assert_code();
    }

    /// 1 if anything is wrong, with one sentence; else 0.
    #[track_caller]
    fn assert_code(&self) {
        let mut findings = self.findings.iter();
        let is_wrong = findings.any(|finding| finding["result"] == "wrong");
        assert_eq!(self.code, Some(i32::from(is_wrong)), "{self:?}");
        assert_eq!(
            self.stderr.lines().count(),
            usize::from(is_wrong),
            "{self:?}"
        );
    }
}

/// `doctor` on this configuration, through `launcher`, and in this form.
fn run(lab: &Lab, config: &Config, launcher: &[&str], form: &str) -> Exit {
    rewrite_config(lab, config);
    let binary = binary();
    let mut words = launcher
        .iter()
        .map(std::ffi::OsStr::new)
        .collect::<Vec<_>>();
    words.push(binary.as_os_str());
    let mut command = Command::new(words[0]);
    command
        .args(&words[1..])
        .args(["doctor", "-o", form, "--config"]);
    command.arg(lab.dir().path().join("agent.toml"));
    let output = command.output().expect("doctor");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Exit {
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

fn ask_through(lab: &Lab, config: &Config, launcher: &[&str]) -> Diagnosis {
    let exit = run(lab, config, launcher, "json");
    let findings = serde_json::from_str(&exit.stdout);
    Diagnosis {
        code: exit.code,
        findings: findings.unwrap_or_else(|error| panic!("{error}: {exit:?}")),
        stderr: exit.stderr,
    }
}

fn ask_with(lab: &Lab, config: &Config) -> Diagnosis {
    ask_through(lab, config, &[])
}

fn ask(lab: &Lab) -> Diagnosis {
    ask_with(lab, &Config::of(lab))
}

/// A router with one rule, and the agent that sees to it.
struct Fixture {
    agent: Agent,
    router: BareRouter,
    lab: Lab,
}

impl Fixture {
    fn new() -> Self {
        Self::with(|config| config)
    }

    fn with(change: impl FnOnce(Config) -> Config) -> Self {
        let lab = Lab::new();
        let router = BareRouter::new(&lab);
        for name in ["all", "qr-1", "qg-1"] {
            rp_filter(router.netns(), name, 0);
        }
        let config = change(Config::of(&lab));
        let agent = Agent::start_with(&lab, &config, &rules(&router));
        Self { agent, router, lab }
    }

    fn netns(&self) -> &Netns {
        self.router.netns()
    }

    fn ask(&self) -> Diagnosis {
        ask(&self.lab)
    }

    /// Has the agent look at everything again.
    fn reload(&mut self) {
        let rules = rules(&self.router);
        assert_eq!(self.agent.reload(&rules), Reload::Done);
    }

    /// Kills the agent, and gives what starts it again.
    fn kill(self) -> (Lab, BareRouter) {
        assert_eq!(self.agent.kill().code, None);
        (self.lab, self.router)
    }
}

fn rules(router: &BareRouter) -> String {
    let helper = "{ protocol = \"tcp\", port = 21, helper = \"ftp\" }";
    format!(
        "[[router]]\nid = \"{}\"\nhelpers = [{helper}]\n",
        router.id()
    )
}

fn rp_filter(netns: &Netns, interface: &str, value: u8) {
    let name = format!("ipv4/conf/{interface}/rp_filter");
    netns.sysctl(&name, &value.to_string());
}

#[test]
fn where_all_is_well_nothing_is_found_and_nothing_is_changed() {
    let fixture = Fixture::new();
    let snapshot = || Snapshot::take(&fixture.lab, &[fixture.netns()]);
    let legacy = || {
        let names = || fs::read_to_string("/proc/thread-self/net/ip_tables_names");
        fixture.netns().run(names).unwrap_or_default()
    };
    let before = (snapshot(), legacy());
    let said = fixture.ask();
    for check in [
        "kernel",
        "bpf-jit",
        "capabilities",
        "bpffs",
        "agent",
        "attach",
        "nft",
        "helpers",
        "routers",
        "limits",
        "carrier",
        "neutron-chains",
        "other-helpers",
        "marks",
        "programs",
        "automatic-helpers",
        "rp-filter",
    ] {
        said.assert_ok(check);
    }
    // The machine's own, whatever they are.
    assert_eq!(said.results("parameters").len(), 4, "{said:?}");
    assert_eq!(said.code, Some(0));
    for finding in &said.findings {
        let keys: Vec<_> = finding.as_object().expect("an object").keys().collect();
        assert_eq!(keys, ["check", "place", "remedy", "result", "what"]);
    }
    assert_same(&before.0, &snapshot());
    assert_eq!(legacy(), before.1, "no table of iptables was made");

    // Of an agent that doesn't run, nothing else is to be said.
    let (lab, router) = fixture.kill();
    let again = ask(&lab);
    assert_eq!(again.findings, said.findings);
    assert_same(&before.0, &Snapshot::take(&lab, &[router.netns()]));
}

#[test]
fn on_a_host_without_anything_nothing_is_made() {
    let lab = Lab::without_bpffs();
    let bare = BareRouter::new(&lab);
    let config = Config::of(&lab);
    rewrite_config(&lab, &config);
    let before = Snapshot::take(&lab, &[bare.netns()]);
    let said = ask(&lab);
    assert_eq!(said.code, Some(0), "{said:?}");
    said.assert_found("carrier", "ok", &["mark", "once there are rules"]);
    assert_same(&before, &Snapshot::take(&lab, &[bare.netns()]));
}

#[test]
fn people_get_a_line_for_each_finding_and_its_remedy_beneath() {
    let fixture = Fixture::new();
    let table = |fixture: &Fixture| run(&fixture.lab, &Config::of(&fixture.lab), &[], "table");
    let good = table(&fixture);
    assert_eq!((good.code, good.stderr.as_str()), (Some(0), ""), "{good:?}");
    assert!(
        good.stdout.contains("ok       neutron-chains: "),
        "{good:?}"
    );
    assert!(good.stdout.contains(" 0 wrong, "), "{good:?}");
    fixture
        .netns()
        .nft(&marks_of(-300, "meta mark set 0x01000000"));
    let bad = table(&fixture);
    assert_eq!(bad.code, Some(1));
    let lines: Vec<_> = bad.stdout.lines().collect();
    let wrong = lines
        .iter()
        .position(|line| line.starts_with("WRONG    marks: "));
    let wrong = wrong.unwrap_or_else(|| panic!("{bad:?}"));
    assert!(
        lines[wrong].ends_with(&format!("[{}]", fixture.netns().name())),
        "{bad:?}"
    );
    assert!(lines[wrong + 1].starts_with("         remedy: "), "{bad:?}");
    assert!(
        lines.last().is_some_and(|line| line.contains(" 1 wrong, ")),
        "{bad:?}"
    );
    assert!(bad.stderr.contains("1 of "), "{bad:?}");
}

#[test]
fn without_nft() {
    let lab = Lab::new();
    let without = Config::of(&lab).with("nft", "\"/nonexistent/nft\"");
    let said = ask_with(&lab, &without);
    said.assert_found(
        "nft",
        "wrong",
        &["/nonexistent/nft", "install the nftables package"],
    );
    said.assert_found("helpers", "unknown", &["not without nft"]);
    said.assert_found("carrier", "unknown", &["nft"]);
    let said = ask(&lab);
    for check in ["nft", "helpers"] {
        said.assert_ok(check);
    }
}

#[test]
fn without_a_capability() {
    for capability in ["BPF", "NET_ADMIN", "SYS_ADMIN"] {
        let lab = Lab::new();
        let router = BareRouter::new(&lab);
        let set = format!("--bounding-set=-{}", capability.to_lowercase());
        let said = ask_through(&lab, &Config::of(&lab), &["setpriv", &set]);
        let name = format!("CAP_{capability}");
        said.assert_found("capabilities", "wrong", &[&name]);
        // What can't be asked without it is neither well nor wrong.
        let results = |check| said.results(check);
        let expected = match capability {
            "NET_ADMIN" => "helpers",
            "SYS_ADMIN" => "rp-filter",
            _ => "capabilities",
        };
        assert!(!results(expected).contains(&"ok"), "{said:?}");
        ask(&lab).assert_ok("capabilities");
        drop(router);
    }
}

#[test]
fn without_a_bpffs() {
    let lab = Lab::without_bpffs();
    let said = ask(&lab);
    said.assert_found("bpffs", "warn", &["mount -t bpf bpf"]);
    // One that can't be mounted.
    fs::write(lab.dir().bpf_dir().join("file"), "").expect("a file");
    ask(&lab).assert_found("bpffs", "wrong", &["mount -t bpf bpf"]);
    fs::remove_file(lab.dir().bpf_dir().join("file")).expect("no file");
    // As the remedy says it.
    let mounted = Command::new("mount")
        .args(["-t", "bpf", "bpf"])
        .arg(lab.dir().bpf_dir())
        .status();
    assert!(mounted.expect("mount").success());
    ask(&lab).assert_ok("bpffs");
}

#[test]
fn a_folder_that_was_moved() {
    let (lab, _router) = Fixture::new().kill();
    let other = format!("{:?}", lab.dir().bpf_dir().join("other").to_string_lossy());
    let moved = Config::of(&lab).with("bpffs_dir", other);
    ask_with(&lab, &moved).assert_found("agent", "wrong", &["bpffs_dir"]);
    ask(&lab).assert_ok("agent");
}

#[test]
fn anothers_pins_in_this_agents_folder() {
    let (lab, _router) = Fixture::new().kill();
    let footprint = lab.dir().state_dir().join("footprint.json");
    let own = fs::read_to_string(&footprint).expect("the footprint");
    let mut json: Value = serde_json::from_str(&own).expect("JSON");
    json["agent"] = Uuid::new_v4().to_string().into();
    fs::write(&footprint, json.to_string()).expect("another's footprint");
    ask(&lab).assert_found("agent", "wrong", &["bpffs_dir"]);
    fs::write(&footprint, own).expect("its own");
    ask(&lab).assert_ok("agent");
}

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

#[test]
fn legacy_tables_that_nobody_can_read() {
    let fixture = Fixture::new();
    rp_filter(fixture.netns(), "qr-1", 1);
    let command = fixture.netns().tool("sh", ["-c", "command -v nft"], "");
    let config = Config::of(&fixture.lab).with("nft", format!("{:?}", command.trim()));
    let without = || ask_through(&fixture.lab, &config, &["env", "PATH=/nonexistent"]);
    without().assert_ok("neutron-chains");
    // From now on there is a table to be read.
    let list = ["-t", "raw", "-L", "-n"];
    fixture.netns().tool("iptables-legacy", list, "");
    let said = without();
    for check in ["neutron-chains", "other-helpers", "marks"] {
        said.assert_found(check, "unknown", &["iptables-legacy-save"]);
    }
    said.assert_found("rp-filter", "warn", &["strict"]);
    fixture.ask().assert_ok("neutron-chains");
}

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
    let wanted = Config::of(&fixture.lab).with_xdp("*", Xdp::Generic);
    let words = ["an XDP program", "has no place"];
    ask_with(&fixture.lab, &wanted).assert_found("programs", "warn", &words);
    drop(xdp);
    fixture.ask().assert_ok("programs");
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
        let said = conntrack_tests::wait::until(std::time::Duration::from_secs(10), gone);
        let said = said.expect("a finding");
        said.assert_found("programs", "wrong", &["gets no helper"]);
    }
    let _agent = Agent::start(&lab, &rules(&router));
    ask(&lab).assert_ok("programs");
}

#[test]
fn rules_whose_pins_are_not_whole() {
    let (lab, router) = Fixture::new().kill();
    let instance = Pins::new(lab.dir().agent_bpffs_dir()).instance(router.id());
    assert!(matches!(Instance::open(&instance), Ok(Usable::Whole(_))));
    fs::remove_file(instance.join("SLOTS")).expect("a map's pin");
    ask(&lab).assert_found("routers", "wrong", &[&router.id().to_string()]);
    let _agent = Agent::start(&lab, &rules(&router));
    ask(&lab).assert_ok("routers");
}

#[test]
fn reverse_path_filters() {
    let fixture = Fixture::new();
    let netns = fixture.netns();
    rp_filter(netns, "qr-1", 1);
    let words = ["strict on qr-1:", "rp_filter=2"];
    fixture.ask().assert_found("rp-filter", "warn", &words);
    rp_filter(netns, "qr-1", 2);
    fixture.ask().assert_ok("rp-filter");
    rp_filter(netns, "all", 1);
    fixture
        .ask()
        .assert_found("rp-filter", "warn", &["strict on qg-1:"]);
    rp_filter(netns, "all", 2);
    fixture.ask().assert_ok("rp-filter");
}

/// A table with this rule at prerouting, with this priority.
fn marks_of(priority: i32, rule: &str) -> String {
    format!(
        "table inet somebodys {{
            chain pre {{ type filter hook prerouting priority {priority}; {rule}; }}
        }}"
    )
}

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
            said.assert_found("marks", expected, &["inet somebodys pre", "-160"]);
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
        check("-j CONNMARK --restore-mark", "wrong");
        check(
            "-j CONNMARK --restore-mark --nfmask 0xffff --ctmask 0xffff",
            "ok",
        );
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
    netns.nft(&marks_of(-90, "meta priority set 0x10002"));
    fixture.ask().assert_ok("marks");
}

fn nat(netns: &Netns) {
    netns.nft(
        "table ip somebodys-nat {
            chain c { type nat hook prerouting priority dstnat; }
        }",
    );
}

#[test]
fn the_carrier_and_its_reason() {
    let mut fixture = Fixture::new();
    let found = |said: &Diagnosis, result: &str, words: &[&str]| {
        said.assert_found("carrier", result, words);
    };
    found(&fixture.ask(), "ok", &["mark: the router has no NAT"]);
    nat(fixture.netns());
    fixture.reload();
    found(&fixture.ask(), "ok", &["priority: the router has NAT"]);
    // NAT goes, and the agent isn't there to see it.
    let (lab, router) = fixture.kill();
    router.netns().nft("delete table ip somebodys-nat");
    found(
        &ask(&lab),
        "warn",
        &["priority is in force, and mark is due"],
    );
    let by_priority = Config::of(&lab).with("carrier", "\"priority\"");
    let words = ["no NAT", "carrier = \\\"auto\\\""];
    found(&ask_with(&lab, &by_priority), "warn", &words);
    let _agent = Agent::start(&lab, &rules(&router));
    found(&ask(&lab), "ok", &["mark: the router has no NAT"]);
    let by_mark = Config::of(&lab).with("carrier", "\"mark\"");
    found(
        &ask_with(&lab, &by_mark),
        "ok",
        &["the configuration says so"],
    );
}

/// The namespaces of a distributed router have one carrier.
#[test]
fn the_carrier_of_a_router_with_two_namespaces() {
    let mut fixture = Fixture::new();
    let snat = fixture.lab.netns(&format!("snat-{}", fixture.router.id()));
    nat(&snat);
    fixture.reload();
    let carriers = || -> Vec<Value> {
        let said = fixture.ask();
        said.assert_ok("carrier");
        said.of("carrier").cloned().collect()
    };
    let found = carriers();
    let places: Vec<_> = found.iter().map(|finding| &finding["place"]).collect();
    assert_eq!(
        places,
        [fixture.netns().name().as_str(), snat.name().as_str()]
    );
    for finding in &found {
        let what = finding["what"].as_str().expect("words");
        assert!(what.starts_with("mark: not each"), "{what}");
    }
    nat(fixture.netns());
    let rules = rules(&fixture.router);
    assert_eq!(fixture.agent.reload(&rules), Reload::Done);
    let found = ask(&fixture.lab);
    for finding in found.of("carrier") {
        let what = finding["what"].as_str().expect("words");
        assert!(what.starts_with("priority: each"), "{what}");
    }
}

#[test]
fn a_table_of_the_agents_that_is_lost_or_changed() {
    let (lab, router) = Fixture::new().kill();
    let netns = router.netns();
    let ruleset = netns.ruleset();
    let mut words = ruleset.split_whitespace();
    let name = words.find(|word| word.starts_with("conntrack-agent-"));
    let name = name.expect("the agent's table").to_owned();
    netns.nft(&format!("add rule inet {name} bind counter"));
    ask(&lab).assert_found("carrier", "wrong", &["not as the agent made it"]);
    netns.nft(&format!("delete table inet {name}"));
    ask(&lab).assert_found("carrier", "wrong", &["missing"]);
    let _agent = Agent::start(&lab, &rules(&router));
    ask(&lab).assert_ok("carrier");
}

#[test]
fn a_limit_of_the_configuration_that_is_near() {
    let fixture = Fixture::new();
    let with = |rules: u32| {
        let limits = format!("{{ rules_per_router = {rules} }}");
        let config = Config::of(&fixture.lab).with("limits", limits);
        ask_with(&fixture.lab, &config)
    };
    let words = ["1 of 1 (limits.rules_per_router)", "[limits]"];
    with(1).assert_found("limits", "wrong", &words);
    with(1000).assert_ok("limits");
}

/// The connections of a namespace are counted where they are.
#[test]
fn what_the_kernel_counts_is_the_namespaces_own() {
    let fixture = Fixture::new();
    let said = fixture.ask();
    let name = fixture.netns().name();
    for limit in ["nf_conntrack_max", "nf_conntrack_expect_max"] {
        let about = |finding: &&Value| finding.to_string().contains(limit);
        let found: Vec<_> = said.of("limits").filter(about).collect();
        assert_eq!(found.len(), 1, "{said:?}");
        assert_eq!(found[0]["place"], name.as_str());
        assert_eq!(found[0]["result"], "ok");
    }
}

/// `doctor` as on a machine whose `file` says `text`: in a mount namespace of its own
/// another file lies over it. What is the machine's stays as it is.
fn ask_where(lab: &Lab, file: &str, text: &str) -> Diagnosis {
    let other = lab.dir().path().join(format!("file-{}", Uuid::new_v4()));
    fs::write(&other, text).expect("a file");
    let other = other.to_str().expect("text");
    let script = "mount --bind \"$0\" \"$1\" && shift && exec \"$@\"";
    let launcher = [
        "unshare",
        "--mount",
        "--propagation=private",
        "sh",
        "-c",
        script,
        other,
        file,
    ];
    ask_through(lab, &Config::of(lab), &launcher)
}

#[test]
fn what_is_unsafe_on_the_whole_machine() {
    let fixture = Fixture::new();
    let lab = &fixture.lab;
    let sip = "/sys/module/nf_conntrack_sip/parameters";
    let cases = [
        (
            "parameters",
            "/sys/module/nf_conntrack_ftp/parameters/loose".to_owned(),
            ["Y\n", "N\n"],
            ["nf_conntrack_ftp", "loose"],
        ),
        (
            "parameters",
            format!("{sip}/sip_direct_signalling"),
            ["0\n", "1\n"],
            ["nf_conntrack_sip", "sip_direct_signalling"],
        ),
        (
            "parameters",
            format!("{sip}/sip_direct_media"),
            ["0\n", "1\n"],
            ["nf_conntrack_sip", "sip_direct_media"],
        ),
        (
            "parameters",
            "/sys/module/nf_conntrack_h323/parameters/gkrouted_only".to_owned(),
            ["0\n", "1\n"],
            ["nf_conntrack_h323", "gkrouted_only"],
        ),
        (
            "bpf-jit",
            "/proc/sys/net/core/bpf_jit_enable".to_owned(),
            ["0\n", "1\n"],
            ["bpf_jit_enable", "sysctl"],
        ),
        (
            "kernel",
            "/proc/sys/kernel/osrelease".to_owned(),
            ["5.15.0-91-generic\n", "6.12.0\n"],
            ["5.15", "6.1"],
        ),
    ];
    for (check, file, [unsafe_text, safe_text], words) in &cases {
        ask_where(lab, file, unsafe_text).assert_found(check, "warn", words);
        ask_where(lab, file, safe_text).assert_ok(check);
    }
}

/// Really near: a flow for each of so many connections, which live until they are
/// flushed.
#[test]
fn a_connection_table_that_is_nearly_full_is_warned_of() {
    let fixture = Fixture::new();
    let netns = fixture.netns();
    netns.ip("link set lo up");
    netns.sysctl("netfilter/nf_conntrack_udp_timeout", "3600");
    let number = |name: &str| -> usize {
        let path = format!("/proc/sys/net/netfilter/{name}");
        let text = netns.tool("cat", [path.as_str()], "");
        text.trim().parse().expect("a number")
    };
    let most = number("nf_conntrack_max");
    let fill = |hundredths: usize, from: u8| {
        let wanted = most * hundredths / 100;
        netns.run(|| {
            let mut sockets = (1..=u8::MAX).map(|host| {
                let socket = UdpSocket::bind(SocketAddr::from(([127, 0, from, host], 0)));
                socket.expect("a socket")
            });
            while number("nf_conntrack_count") < wanted {
                let socket = sockets.next().expect("one more address");
                let missing = wanted - number("nf_conntrack_count");
                for port in (1_024..=u16::MAX).take(missing) {
                    // Nobody is there, which an earlier packet's ICMP may say.
                    drop(socket.send_to(b"\0", SocketAddr::from(([127, 0, 0, 1], port))));
                }
            }
        });
    };
    fixture.ask().assert_ok("limits");
    fill(81, 1);
    let words = ["nf_conntrack_max", &netns.name(), "raise"];
    fixture.ask().assert_found("limits", "warn", &words);
    fill(96, 2);
    fixture.ask().assert_found("limits", "wrong", &words);
    netns.tool("conntrack", ["-F"], "");
    fixture.ask().assert_ok("limits");
}

#[test]
fn a_namespace_that_is_none_keeps_no_other_from_being_looked_at() {
    let fixture = Fixture::new();
    rp_filter(fixture.netns(), "qr-1", 1);
    let name = format!("qrouter-{}", Uuid::new_v4());
    let file = fixture.lab.dir().netns_dir().join(&name);
    fs::write(&file, "").expect("a plain file");
    let said = fixture.ask();
    said.assert_found("routers", "unknown", &[&name]);
    said.assert_found("rp-filter", "warn", &[&fixture.netns().name()]);
    fs::remove_file(file).expect("no file");
    fixture.ask().assert_ok("routers");
}

#[test]
fn a_configuration_with_faults_is_refused_as_ever() {
    let lab = Lab::new();
    let config = Config::of(&lab).with("mark_mask", "0x5");
    let exit = run(&lab, &config, &[], "json");
    assert_eq!(
        (exit.code, exit.stdout.as_str()),
        (Some(78), ""),
        "{exit:?}"
    );
}
