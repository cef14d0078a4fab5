//! `doctor`: each check is provoked, and is silent again after its remedy.

mod carrier;
mod conflicts;
mod helpers;
mod kernel;
mod limits;
mod machine;
mod pins;
mod programs;

use std::ffi::OsStr;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::ops::Deref;
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
use conntrack_tests::process;
use conntrack_tests::served::Served;
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
        let all: Vec<_> = self.of(check).collect();
        let [finding] = found[..] else {
            panic!("{check} is not {result} once: {all:?}");
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
        let sentences = self.stderr.lines().count();
        assert_eq!(sentences, usize::from(is_wrong), "{self:?}");
    }
}

/// `doctor` on this configuration, through `launcher`, and in this form.
fn run(lab: &Lab, config: &Config, launcher: &[&str], form: &str) -> Exit {
    rewrite_config(lab, config);
    let program = binary();
    let mut words = launcher.iter().map(OsStr::new).chain([program.as_os_str()]);
    let mut command = Command::new(words.next().expect("a program"));
    command.args(words).args(["doctor", "-o", form, "--config"]);
    process::run(command.arg(lab.dir().path().join("agent.toml")))
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
struct Fixture(Served);

impl Deref for Fixture {
    type Target = Served;

    fn deref(&self) -> &Served {
        &self.0
    }
}

impl Fixture {
    fn new() -> Self {
        Self::with(|config| config)
    }

    fn with(change: impl FnOnce(Config) -> Config) -> Self {
        let builder = Served::builder().rules(&[Rule::ftp(21)]).config(change);
        for name in ["all", "qr-1", "qg-1"] {
            rp_filter(builder.router.netns(), name, 0);
        }
        Self(builder.start())
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
        assert_eq!(self.0.agent.reload(&rules), Reload::Done);
    }

    /// Kills the agent, and gives what starts it again.
    fn kill(self) -> (Lab, BareRouter) {
        let Served { agent, router, lab } = self.0;
        assert_eq!(agent.kill().code, None);
        (lab, router)
    }
}

fn rules(router: &BareRouter) -> String {
    router.rules_file(&[Rule::ftp(21)])
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

fn nat(netns: &Netns) {
    netns.nft(
        "table ip somebodys-nat {
            chain c { type nat hook prerouting priority dstnat; }
        }",
    );
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
