//! Connections while the agent is killed, restarted, upgraded and refused: each
//! new one must get its helper.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "tests panic, where and with what they found"
)]

#[path = "hitless/connections.rs"]
mod connections;
#[path = "hitless/events.rs"]
mod events;

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use conntrack_agent::kernel::{Build, Instance, Pins, Usable};
use conntrack_agent::model::{Destination, RouterId};
use conntrack_ebpf::abi;
use conntrack_tests::agent::{Agent, Config, run_release_to_exit};
use conntrack_tests::clients::ftp::{Mode, fetch};
use conntrack_tests::helpers::{Protocol, Rule, rules_file};
use conntrack_tests::lab::Lab;
use conntrack_tests::release::Release;
use conntrack_tests::servers::ftp::FtpServer;
use conntrack_tests::site::{Crossing, Plan, Site};
use conntrack_tests::snapshot::{Snapshot, assert_same, ingress_programs};
use conntrack_tests::wait;

use connections::Connections;
use events::Events;

/// Where the synthetic control connections go.
const PORT: u16 = 21;
/// Where a real server is.
const FTP_PORT: u16 = 2121;

/// How often everything happens at the least; it goes on until there are enough
/// connections.
const ROUNDS: usize = 5;
const CONNECTIONS: usize = 100_000;
const RATE: u32 = 1000;
/// Likewise by tc filters.
const ROUNDS_BY_FILTERS: usize = 3;
const CONNECTIONS_BY_FILTERS: usize = 20_000;
/// In each round.
const KILLS: usize = 20;
const UPGRADES: usize = 4;

/// Other rules: as many as fit, and as many as don't.
const FEW: u16 = 4;
const MANY: u16 = 400;

struct Fixture {
    server: FtpServer,
    site: Site,
    lab: Lab,
    /// How the agents attach.
    attach: &'static str,
    /// What carries helper marks, as the agent that was started last has it.
    carrier: &'static str,
    rng: fastrand::Rng,
    /// How long a start takes.
    start: Duration,
    /// The release that ran last.
    abi: u32,
    build: u32,
    done: Done,
}

/// What happened while connections were made.
#[derive(Default, Debug)]
struct Done {
    kills: usize,
    upgrades: usize,
    abi_changes: usize,
    /// How often another carrier was wanted than before.
    carriers: usize,
    refusals: usize,
    sessions: usize,
}

impl Fixture {
    fn new(attach: &'static str) -> Self {
        let seed = fastrand::u64(..);
        println!("hitless: seed {seed}");
        let lab = Lab::new();
        let control = [(Protocol::Tcp, PORT), (Protocol::Tcp, FTP_PORT)];
        let site = Site::new(&lab, &Plan::new(Crossing::Snat4, &control));
        let server = FtpServer::start(&site.server, site.server_address(FTP_PORT));
        Self {
            server,
            site,
            lab,
            attach,
            carrier: "",
            rng: fastrand::Rng::with_seed(seed),
            start: Duration::from_millis(500),
            abi: abi::VERSION,
            build: 0,
            done: Done::default(),
        }
    }

    /// The release that ran last.
    fn release(&self) -> Release {
        let program = env!("CARGO_BIN_EXE_another_release");
        Release::new(&self.lab, program, self.abi, self.build)
    }

    /// The rules that the connections need, and some that come and go.
    fn rules(&mut self, others: u16) -> String {
        let others = (0..self.rng.u16(..others)).map(|n| Rule::tftp(1000 + n));
        let rules: Vec<_> = others
            .chain([Rule::ftp(PORT), Rule::ftp(FTP_PORT)])
            .collect();
        rules_file(&[(&self.site.router, &rules)])
    }

    fn program(&self) -> Vec<u32> {
        ingress_programs(self.site.router.netns(), self.site.router.client_side())
    }

    /// Starts that release, with up to so many other rules.
    fn start(&mut self, others: u16) -> Agent {
        let begun = Instant::now();
        let agent = self.spawn(others).ready();
        let agent = agent.unwrap_or_else(|exit| panic!("no start: {exit:?}"));
        self.start = begun.elapsed();
        assert_eq!(self.program().len(), 1, "one program, whatever happened");
        agent
    }

    /// Starts it and kills it before it is ready, as far as one can tell.
    fn start_and_kill(&mut self, others: u16) {
        let agent = self.spawn(others);
        thread::sleep(self.start.mul_f64(self.rng.f64()));
        self.kill(agent);
    }

    fn spawn(&mut self, others: u16) -> Agent {
        let rules = self.rules(others);
        let attach = format!("{:?}", self.attach);
        let carrier = self.rng.choice(["\"mark\"", "\"priority\""]);
        let carrier = carrier.expect("one of them");
        self.done.carriers += usize::from(carrier != self.carrier);
        self.carrier = carrier;
        let config = Config::of(&self.lab).with("attach", attach);
        let config = config.with("carrier", carrier);
        Agent::spawn_release(&self.lab, &config, Some(&rules), &self.release(), &[])
    }

    fn kill(&mut self, agent: Agent) {
        assert_eq!(agent.kill().code, None, "a signal ended it");
        self.done.kills += 1;
    }

    fn assert_session(&mut self) {
        let address = self.site.published_address(FTP_PORT);
        let came = fetch(&self.site.client, address, Mode::Active);
        assert!(came.expect("a real session") == self.server.bytes);
        self.done.sessions += 1;
    }

    /// The pins as the release that ran last has them.
    fn pins(&self) -> Pins {
        let build = Build::new(self.abi, Vec::new());
        Pins::of(&build, self.lab.dir().agent_bpffs_dir())
    }

    fn router(&self) -> RouterId {
        let id = self.site.router.id().to_string();
        id.parse().expect("a router id")
    }

    fn packets(&self) -> u64 {
        let Ok(Usable::Whole(instance)) = Instance::open(&self.pins().instance(self.router()))
        else {
            panic!("no whole instance");
        };
        let to = Destination {
            protocol: abi::Protocol::Tcp,
            port: PORT,
        };
        let counters = instance.counters(to).expect("the counters");
        counters.expect("a rule").packets
    }

    /// Killed in the middle of its work and in the middle of its start.
    fn kills(&mut self) {
        let program = self.program();
        for _ in 0..KILLS {
            if self.rng.bool() {
                self.start_and_kill(FEW);
            } else {
                let agent = self.start(FEW);
                thread::sleep(Duration::from_millis(self.rng.u64(..20)));
                self.kill(agent);
            }
        }
        assert_eq!(self.program(), program, "nothing was to be replaced");
        self.assert_session();
    }

    /// Each goes on where the one before was killed.
    fn upgrades(&mut self) {
        for _ in 0..UPGRADES {
            let (program, packets) = (self.program(), self.packets());
            self.build += 1;
            let others = self.rng.choice([FEW, MANY]).unwrap_or(FEW);
            for _ in 0..self.rng.u8(..3) {
                self.start_and_kill(others);
            }
            let agent = self.start(others);
            assert_ne!(self.program(), program, "build {}", self.build);
            assert!(self.packets() >= packets, "counts go on");
            self.kill(agent);
            self.done.upgrades += 1;
        }
        self.assert_session();
    }

    fn next_abi(&mut self) {
        let program = self.program();
        self.abi += 1;
        for _ in 0..self.rng.u8(..3) {
            self.start_and_kill(FEW);
        }
        let agent = self.start(FEW);
        assert_ne!(self.program(), program, "ABI {}", self.abi);
        let there = Pins::of_all_versions(&self.lab.dir().agent_bpffs_dir());
        let there = there.expect("the pins");
        let there: Vec<_> = there.iter().map(Pins::abi).collect();
        assert_eq!(there, [self.abi]);
        self.kill(agent);
        self.done.abi_changes += 1;
        self.assert_session();
    }

    fn downgrade(&mut self) {
        let namespaces = [self.site.router.netns()];
        let before = Snapshot::take(&self.lab, &namespaces);
        let program = env!("CARGO_BIN_EXE_another_release");
        let older = Release::new(&self.lab, program, self.abi - 1, self.build);
        let refused = run_release_to_exit(&self.lab, None, &older);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains("ABI version"), "{refused:?}");
        assert_same(&before, &Snapshot::take(&self.lab, &namespaces));
        self.done.refusals += 1;
    }
}

#[test]
fn no_connection_misses_its_helper() {
    run("tcx", ROUNDS, CONNECTIONS);
}

#[test]
fn no_connection_misses_its_helper_by_tc_filters() {
    run("clsact", ROUNDS_BY_FILTERS, CONNECTIONS_BY_FILTERS);
}

fn run(attach: &'static str, least: usize, connections_wanted: usize) {
    let begun = Instant::now();
    let mut fixture = Fixture::new(attach);
    let agent = fixture.start(FEW);
    let events = Events::listen(fixture.site.router.netns(), PORT);
    let connections = Connections::begin(&fixture.site, PORT, RATE);

    fixture.kill(agent);
    let mut rounds = 0;
    while rounds < least || connections.made() < connections_wanted {
        fixture.kills();
        fixture.upgrades();
        fixture.next_abi();
        fixture.downgrade();
        rounds += 1;
    }
    let (made, failed) = connections.end();

    let seen = events.end(&made);
    println!(
        "hitless, {attach}: {} connections in {:.0?}, {failed} failed; {} with helper, {} without, \
         {} not seen; {rounds} rounds: {:?}",
        made.len(),
        begun.elapsed(),
        seen.with.len(),
        seen.without.len(),
        made.difference(&seen.all()).count(),
        fixture.done,
    );
    assert_eq!(failed, 0, "connections failed");
    assert!(made.len() >= connections_wanted);
    assert_eq!(seen.without, BTreeSet::new(), "without a helper");
    assert_eq!(seen.with, made, "each is seen");
}

/// The twin: what makes a connection miss its helper is seen.
#[test]
fn a_gap_is_seen() {
    let mut fixture = Fixture::new("tcx");
    let agent = fixture.start(FEW);
    let events = Events::listen(fixture.site.router.netns(), PORT);
    let connections = Connections::begin(&fixture.site, PORT, RATE);
    let more = |count: usize| {
        let goal = connections.made() + count;
        let enough = || (connections.made() >= goal).then_some(());
        wait::until(4 * wait::patience(), enough).expect("more connections");
    };
    more(500);
    fixture.kill(agent);
    let links = fixture.pins().links_of(fixture.router());
    for link in links.expect("the links") {
        fs::remove_file(link).expect("a pinned link");
    }
    let detached = || fixture.program().is_empty().then_some(());
    wait::until(4 * wait::patience(), detached).expect("the links are released");
    more(500);
    let agent = fixture.start(FEW);
    more(500);
    let (made, failed) = connections.end();
    fixture.kill(agent);
    let seen = events.end(&made);
    println!(
        "hitless: a gap: {} connections, {} with helper, {} without",
        made.len(),
        seen.with.len(),
        seen.without.len()
    );
    assert_eq!(failed, 0);
    assert!(seen.with.len() >= 1000, "before and after");
    assert!(seen.without.len() >= 500, "in between");
    assert_eq!(seen.all(), made, "each is seen");
}
