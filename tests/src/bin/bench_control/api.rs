//! One change through the socket of a running agent, durable and in the kernel
//! when it is answered.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use conntrack_agent::model::{RouterId, protocol_name};
use conntrack_tests::agent::{Agent, Config};
use conntrack_tests::bench::samples::{micros, shown};
use conntrack_tests::connection::Connection;
use conntrack_tests::durable::BareRouter;
use conntrack_tests::lab::Lab;
use conntrack_tests::wait;
use serde_json::{Map, Value, json};

use crate::ours::LIMITS;
use crate::report::line;
use crate::rules;
use crate::run::Run;

/// Among how many rules.
pub(crate) const RULES: [usize; 2] = [10, 10_000];
/// What an agent may take to listen: against hanging alone.
const START: Duration = Duration::from_secs(30);
/// In each round.
pub(crate) const CHANGES: usize = 20;

const ROWS: [(&str, &str); 5] = [
    ("create", "create, through the socket"),
    ("delete", "delete, through the socket"),
    ("show", "for comparison: show a rule"),
    ("legacy.difference", "Neutron's, iptables-legacy"),
    ("nft.difference", "Neutron's, iptables-nft"),
];

/// Milliseconds, p50, among the most rules.
const TARGET: f64 = 1.0;

/// How many times as fast as Neutron's way with each iptables, likewise.
const TIMES_FASTER: [(&str, f64); 2] = [("legacy", 100.0), ("nft", 1000.0)];

/// A running agent with this many rules on one router.
pub(crate) struct Socket {
    connection: Connection,
    path: String,
    router: BareRouter,
    next: usize,
    _agent: Agent,
    lab: Lab,
}

impl Socket {
    pub(crate) fn new(state: &Path, count: usize) -> Self {
        let lab = Lab::new();
        let router = BareRouter::new(&lab);
        let config = Config::of(&lab)
            .with("state_dir", format!("{:?}", state.to_string_lossy()))
            .with(
                "limits",
                format!("{{ rules_per_router = {} }}", LIMITS.rules_per_router),
            )
            .with("log", "{ level = \"warn\" }");
        let agent = Agent::spawn(&lab, &config, None, &[]);
        let socket = lab.dir().run_dir().join("agent.sock");
        let mut connection = connect(&socket);
        let path = format!("/v2.0/routers/{}/conntrack_helpers", router.id());
        let all: Vec<_> = (0..count).map(|number| body(router.id(), number)).collect();
        let all = json!({ "conntrack_helpers": all });
        let answer = connection.ask("POST", &path, Some(&all));
        assert_eq!(answer.status, 201, "all rules: {}", answer.message());
        Self {
            connection,
            path,
            router,
            next: count,
            _agent: agent,
            lab,
        }
    }

    pub(crate) fn router(&self) -> RouterId {
        self.router.id()
    }

    pub(crate) fn lab(&self) -> &Lab {
        &self.lab
    }

    /// One rule more, a look at it, and away with it again.
    pub(crate) fn change(&mut self, run: &mut Run) {
        let rule = json!({ "conntrack_helper": body(self.router.id(), self.next) });
        let connection = &mut self.connection;
        let made = run
            .series("create")
            .time(|| connection.ask("POST", &self.path, Some(&rule)));
        let rule = &made.body["conntrack_helper"];
        assert_eq!(
            (made.status, rule["status"].as_str()),
            (201, Some("active"))
        );
        let rule = format!("{}/{}", self.path, rule["id"].as_str().expect("an id"));
        let shown = run
            .series("show")
            .time(|| connection.ask("GET", &rule, None));
        assert_eq!(shown.status, 200);
        let gone = run
            .series("delete")
            .time(|| connection.ask("DELETE", &rule, None));
        assert_eq!(gone.status, 204);
    }
}

/// Connects once the agent listens.
fn connect(socket: &Path) -> Connection {
    let listens = || UnixStream::connect(socket).ok();
    wait::until(START, listens).expect("an agent that listens");
    Connection::open(socket)
}

fn body(router: RouterId, number: usize) -> Value {
    let target = rules::nth(router, number).target;
    json!({
        "protocol": protocol_name(target.helper.protocol()),
        "port": target.port.get(),
        "helper": target.helper.name(),
    })
}

/// Prints all of it, and gives it for machines.
pub(crate) fn report(machine: &Value, runs: &[Run]) -> Value {
    println!("\nONE CHANGE THROUGH THE SOCKET; p50, and (p10–p99) below it\n");
    line("N", runs, |run| Some(run.rules.to_string()));
    for (key, label) in ROWS {
        let at = |run: &Run, percent| run.get(key)?.percentile(percent).map(shown);
        line(label, runs, |run| at(run, 50));
        line("", runs, |run| {
            Some(format!("({}–{})", at(run, 10)?, at(run, 99)?).replace(" µ", "µ"))
        });
    }
    for variant in ["legacy", "nft"] {
        line(&format!("Neutron's {variant} : ours"), runs, |run| {
            ratio(run, variant).map(|ratio| format!("{ratio:.0}"))
        });
    }
    let most = runs.iter().max_by_key(|run| run.rules);
    let p50 = most.and_then(|run| run.get("create")?.percentile(50));
    let millis = p50.map(|time| micros(time) / 1e3);
    let met = millis.map(|millis| millis <= TARGET);
    let measured = millis.map_or_else(|| "nothing".into(), |millis| format!("{millis:.3} ms"));
    println!(
        "\n{}: create among the most rules, p50 ≤ {TARGET} ms: {measured}",
        verdict(met)
    );
    let mut targets = vec![json!({
        "target": "create among 10,000 rules, p50", "limit": TARGET, "unit": "ms",
        "measured": millis, "met": met,
    })];
    for (variant, limit) in TIMES_FASTER {
        let measured = most.and_then(|run| ratio(run, variant));
        let met = measured.map(|times| times >= limit);
        let what = format!("times faster than Neutron's way with {variant}, among 10,000 rules");
        let said = measured.map_or_else(|| "nothing".into(), |times| format!("{times:.0}"));
        println!("{}: {what} ≥ {limit}: {said}", verdict(met));
        targets.push(json!({
            "target": what, "limit": limit, "at_least": true, "unit": "times",
            "measured": measured.map(f64::round), "met": met,
        }));
    }
    for note in runs.iter().flat_map(|run| &run.notes) {
        println!("  {note}");
    }
    println!("\n{machine:#}");
    let runs = runs.iter().map(|run| {
        let series: Map<_, _> = run
            .all()
            .map(|(key, samples)| (key.clone(), samples.json()))
            .collect();
        json!({ "rules": run.rules, "rounds": run.rounds, "series": series, "notes": run.notes })
    });
    let runs: Vec<_> = runs.collect();
    json!({
        "bench": "api", "machine": machine, "runs": runs, "targets": targets,
    })
}

/// How many times as long Neutron's way takes, by the medians.
fn ratio(run: &Run, variant: &str) -> Option<f64> {
    let theirs = run.get(&format!("{variant}.difference"))?.percentile(50)?;
    let ours = run.get("create")?.percentile(50)?;
    Some(theirs.as_secs_f64() / ours.as_secs_f64())
}

fn verdict(met: Option<bool>) -> &'static str {
    if met == Some(true) { "met" } else { "NOT met" }
}
