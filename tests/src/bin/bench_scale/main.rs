//! `cargo xtask bench scale`: a thousand routers on one host.
//!
//! Routers are namespaces with interfaces and without traffic, the agent is a
//! process as an operator runs it. No measurement fails the command; the table
//! says which targets are met.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::cast_precision_loss,
    reason = "a benchmark whose lab fails ends there, and says with what; sizes and counts are small"
)]

mod fleet;
mod grace;
mod kernel_memory;
mod observer;
mod report;

use std::env::args;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use conntrack_agent::model::protocol_name;
use conntrack_tests::agent::{Agent, Config, Reload, listening, subcommand_within};
use conntrack_tests::bench::samples::Samples;
use conntrack_tests::bench::{machine, write};
use conntrack_tests::connection::Connection;
use conntrack_tests::wait;
use serde_json::json;
use tempfile::TempDir;

use crate::fleet::Fleet;
use crate::kernel_memory::Meminfo;
use crate::observer::Observer;
use crate::report::{Idle, Results, Start};

/// Where the agent keeps its state by default is below this.
const STATE: &str = "/var/lib";
/// Through the socket, each on another router, as long as there are others.
const CHANGES: usize = 300;
/// One after the other, of all rules each.
const SCRAPES: usize = 20;
const IDLE: Duration = Duration::from_secs(30);
/// After the start, the looks at routers that were changed are over by then.
const SETTLED: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let Some((json, routers)) = options(args().skip(1)) else {
        eprintln!("usage: bench_scale [--json FILE] [--routers N]");
        return ExitCode::from(2);
    };
    let state = tempfile::Builder::new()
        .prefix("conntrack-agent-bench-")
        .tempdir_in(STATE)
        .expect("a folder where the agent's state would be");
    let machine = machine::describe(state.path());
    let results = measure(routers, &state);
    report::print(&machine, &results);
    if let Some(path) = json {
        write(&path, &report::json(&machine, &results));
    }
    ExitCode::SUCCESS
}

fn options(mut given: impl Iterator<Item = String>) -> Option<(Option<PathBuf>, usize)> {
    let (mut json, mut routers) = (None, 1_000);
    while let Some(option) = given.next() {
        let value = given.next()?;
        match option.as_str() {
            "--json" => json = Some(value.into()),
            "--routers" => routers = value.parse().ok().filter(|count| *count > 0)?,
            _ => return None,
        }
    }
    Some((json, routers))
}

fn measure(routers: usize, state: &TempDir) -> Results {
    let begun = Instant::now();
    let fleet = Fleet::new(routers);
    println!("{routers} routers made in {:.0?}", begun.elapsed());
    let rules = fleet.rules();
    let config =
        Config::of(fleet.lab()).with("state_dir", format!("{:?}", state.path().to_string_lossy()));
    let launch = || launch(&fleet, &config, &rules);

    // Its first start: with a rules file, no store, nothing in the kernel.
    let before = Meminfo::now();
    let (agent, first) = launch();
    println!("first start: {:.2?}", first.time);
    let linking = fleet.until_linked();
    println!("by links alone: {linking:.1?} later");
    drop(agent.stop());
    let growth = Meminfo::now().growth(&before, routers);
    let pinned = kernel_memory::pinned(&fleet);

    let (agent, restart) = launch();
    println!("restart: {:.2?}, {} effects", restart.time, restart.effects);
    drop(agent.stop());

    fleet.lose_kernel_state();
    let (mut agent, cold) = launch();
    println!("start after a reboot: {:.2?}", cold.time);
    let linking_again = fleet.until_linked();
    println!("by links alone: {linking_again:.1?} later");
    let changes = change(&fleet);
    let scrape = scrape(&fleet);
    let idle = idle(&mut agent, &rules);
    let (exit, end) = (agent.stop(), Instant::now());
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let ended = subcommand_within(4 * wait::patience(), fleet.lab(), "cleanup");
    assert_eq!(ended.code, Some(0), "cleanup: {}", ended.stderr);
    let cleanup = end.elapsed();
    fleet.assert_clean();
    let grace = grace::periods();

    Results {
        routers,
        first,
        restart,
        cold,
        create: changes.0,
        delete: changes.1,
        scrape,
        idle,
        cleanup,
        pinned,
        growth,
        linking: linking.max(linking_again),
        grace,
    }
}

/// Starts the agent, and takes the time until it says that it is ready: then
/// all is in the kernel.
fn launch(fleet: &Fleet, config: &Config, rules: &str) -> (Agent, Start) {
    let begun = Instant::now();
    let agent = Agent::spawn(fleet.lab(), config, Some(rules), &[]);
    let (agent, line) = agent
        .ready_within(4 * wait::patience())
        .unwrap_or_else(|exit| panic!("the agent isn't ready: {}", exit.stderr));
    let time = begun.elapsed();
    let number = |key: &str| {
        let value = line.split(key).nth(1).expect("a number in the ready line");
        let digits = value.split(|c: char| !c.is_ascii_digit()).next();
        digits
            .and_then(|digits| digits.parse().ok())
            .expect("a number")
    };
    assert_eq!(number("routers="), fleet.len(), "{line}");
    assert_eq!(number("failed="), 0, "{line}");
    let start = Start {
        time,
        effects: number("effects="),
        memory: Observer::new(agent.pid()).memory(),
    };
    (agent, start)
}

/// One rule more on a router, and away with it again.
fn change(fleet: &Fleet) -> (Samples, Samples) {
    let mut connection = Connection::open(&listening(fleet.lab()));
    let (mut create, mut delete) = (Samples::default(), Samples::default());
    for number in 0..CHANGES {
        let router = fleet.router(number);
        let path = format!("/v2.0/routers/{router}/conntrack_helpers");
        let target = fleet::rule(router, fleet::RULES);
        let rule = json!({ "conntrack_helper": {
            "protocol": protocol_name(target.helper.protocol()),
            "port": target.port.get(),
            "helper": target.helper.name(),
        }});
        let made = create.time(|| connection.ask("POST", &path, Some(&rule)));
        let rule = &made.body["conntrack_helper"];
        let status = (made.status, rule["status"].as_str());
        assert_eq!(status, (201, Some("active")), "{}", made.message());
        let path = format!("{path}/{}", rule["id"].as_str().expect("an id"));
        let gone = delete.time(|| connection.ask("DELETE", &path, None));
        assert_eq!(gone.status, 204, "{}", gone.message());
    }
    (create, delete)
}

/// All metrics, of each rule.
fn scrape(fleet: &Fleet) -> Samples {
    let mut connection = Connection::open(&listening(fleet.lab()));
    let mut times = Samples::default();
    for _ in 0..SCRAPES {
        let (status, body) = times.time(|| connection.read("/metrics"));
        let text = String::from_utf8(body).expect("text");
        assert_eq!(status, 200, "{text}");
        let of_rules = |line: &&str| line.starts_with("conntrack_agent_rule_packets_total{");
        let rules = text.lines().filter(of_rules).count();
        assert_eq!(rules, fleet.len() * fleet::RULES, "rules that are told of");
    }
    times
}

/// What it takes with nothing to do, and what looking at everything takes.
fn idle(agent: &mut Agent, rules: &str) -> Idle {
    let observer = Observer::new(agent.pid());
    // All that the changes have left to do is done in this pass, not in the next.
    reload(agent, rules);
    std::thread::sleep(SETTLED);
    let (before, begun) = (observer.processor_time(), Instant::now());
    reload(agent, rules);
    let pass = begun.elapsed();
    let pass_processor = observer.processor_time().saturating_sub(before);
    std::thread::sleep(SETTLED);
    Idle {
        pass,
        pass_processor,
        load: observer.load(IDLE),
        memory: observer.memory(),
        handles: observer.handles(),
    }
}

fn reload(agent: &mut Agent, rules: &str) {
    let reloaded = agent.reload_within(4 * wait::patience(), rules);
    assert_eq!(reloaded, Ok(Reload::Done));
}
