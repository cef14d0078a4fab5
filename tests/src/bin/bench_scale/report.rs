//! The table, the targets, and the file.

use std::time::Duration;

use conntrack_tests::bench::samples::{Samples, micros, shown};
use conntrack_tests::bench::target::Target;
use serde_json::{Value, json};

use crate::fleet::{INTERFACES, RULES};
use crate::kernel_memory::Growth;
use crate::observer::Memory;

/// `full_pass_seconds`, as it is by default.
const FULL_PASS: f64 = 600.0;

/// One start of the agent.
pub(crate) struct Start {
    pub(crate) time: Duration,
    /// As its ready line counts them: writes to the kernel by its look at
    /// everything. What a rules file changes is written before that.
    pub(crate) effects: usize,
    pub(crate) memory: Memory,
}

/// The agent with nothing to do.
pub(crate) struct Idle {
    /// A look at everything.
    pub(crate) pass: Duration,
    /// The processor time of it.
    pub(crate) pass_processor: Duration,
    /// Percent of one processor.
    pub(crate) load: f64,
    pub(crate) memory: Memory,
    pub(crate) handles: Value,
}

/// All that was measured.
pub(crate) struct Results {
    pub(crate) routers: usize,
    pub(crate) first: Start,
    pub(crate) restart: Start,
    pub(crate) cold: Start,
    pub(crate) create: Samples,
    pub(crate) delete: Samples,
    pub(crate) scrape: Samples,
    pub(crate) idle: Idle,
    pub(crate) cleanup: Duration,
    /// KiB a router: maps and programs.
    pub(crate) pinned: f64,
    pub(crate) growth: Growth,
    /// From a start's end until every interface is served by a link.
    pub(crate) linking: Duration,
    pub(crate) grace: Samples,
}

impl Results {
    fn targets(&self) -> [Target; 8] {
        let target = |what, measured, limit, unit| Target {
            what,
            limit,
            measured: Some(measured),
            unit,
        };
        let seconds = |start: &Start| start.time.as_secs_f64();
        let memory = [&self.first, &self.restart, &self.cold].map(|start| start.memory.most);
        let most = memory.into_iter().chain([self.idle.memory.most]).max();
        let most = most.unwrap_or_default() as f64 / f64::from(1 << 20);
        [
            target(
                "restart with nothing changed",
                seconds(&self.restart),
                2.0,
                " s",
            ),
            target(
                "writes at that restart",
                self.restart.effects as f64,
                0.0,
                "",
            ),
            target(
                "first start, from a rules file",
                seconds(&self.first),
                20.0,
                " s",
            ),
            target(
                "start after a reboot, from the store",
                seconds(&self.cold),
                20.0,
                " s",
            ),
            target("memory of the agent, at its most", most, 64.0, " MiB"),
            target(
                "kernel memory per router, maps and programs",
                self.pinned,
                40.0,
                " KiB",
            ),
            target(
                "kernel memory per router, all of it",
                self.growth.lasting(),
                40.0,
                " KiB",
            ),
            target(
                "processor while idle, with full passes",
                self.load(),
                0.5,
                " %",
            ),
        ]
    }

    /// Percent of a processor, in the long run: the idle time that was measured
    /// and the share of a pass, part of which may have been in that time too.
    fn load(&self) -> f64 {
        self.idle.load + 100.0 * self.idle.pass_processor.as_secs_f64() / FULL_PASS
    }
}

/// Prints all of it.
pub(crate) fn print(machine: &Value, results: &Results) {
    let interfaces = INTERFACES.len();
    let routers = results.routers;
    println!("\n{routers} ROUTERS, EACH WITH {RULES} RULES AND {interfaces} INTERFACES\n");
    let line = |label: &str, said: String| println!("{label:44}{said:>24}");
    line("", "time; repairs; memory".into());
    for (label, start) in [
        ("first start, from a rules file", &results.first),
        ("restart with nothing changed", &results.restart),
        ("start after a reboot, from the store", &results.cold),
    ] {
        let time = shown(start.time);
        let said = format!(
            "{time}; {}; {}",
            start.effects,
            mebibytes(start.memory.most)
        );
        line(label, said);
    }
    line("", "p50 (p99)".into());
    for (label, times) in [
        ("create, through the socket", &results.create),
        ("delete, through the socket", &results.delete),
        ("metrics of all rules", &results.scrape),
        ("grace period", &results.grace),
    ] {
        let at = |percent| times.percentile(percent).map_or_else(|| "—".into(), shown);
        line(label, format!("{} ({})", at(50), at(99)));
    }
    println!();
    line("after a start, until all are links", shown(results.linking));
    let idle = &results.idle;
    line("a look at everything, nothing changed", shown(idle.pass));
    line("  of that: processor time", shown(idle.pass_processor));
    line("idle: share of a processor", format!("{:.2} %", idle.load));
    line("idle: memory now", mebibytes(idle.memory.now));
    line("idle: threads, descriptors", idle.handles.to_string());
    line("cleanup", shown(results.cleanup));
    line(
        "maps and programs, a router",
        format!("{:.1} KiB", results.pinned),
    );
    line(
        "/proc/meminfo, a router, KiB",
        results.growth.json().to_string(),
    );
    println!("\nTARGETS");
    for target in results.targets() {
        println!("  {}", target.said());
    }
    println!("\n{machine:#}");
}

/// All of it for machines.
pub(crate) fn json(machine: &Value, results: &Results) -> Value {
    let start = |start: &Start| {
        json!({
            "seconds": thousandths(start.time.as_secs_f64()),
            "effects": start.effects, "memory": start.memory.json(),
        })
    };
    let targets = results.targets().map(|target| target.json());
    json!({
        "bench": "scale", "machine": machine, "targets": targets,
        "routers": results.routers, "rules_per_router": RULES,
        "interfaces_per_router": INTERFACES.len(),
        "first_start": start(&results.first),
        "restart": start(&results.restart),
        "start_after_reboot": start(&results.cold),
        "create": results.create.json(), "delete": results.delete.json(),
        "scrape": results.scrape.json(),
        "until_all_are_links_seconds": thousandths(results.linking.as_secs_f64()),
        "grace_period": results.grace.json(),
        "idle": {
            "pass_us": micros(results.idle.pass),
            "pass_processor_us": micros(results.idle.pass_processor),
            "processor_percent": thousandths(results.idle.load),
            "processor_percent_with_passes": thousandths(results.load()),
            "memory": results.idle.memory.json(), "handles": results.idle.handles,
        },
        "cleanup_seconds": thousandths(results.cleanup.as_secs_f64()),
        "kernel_kib_per_router": {
            "maps_and_programs": thousandths(results.pinned),
            "meminfo": results.growth.json(),
            "meminfo_lasting": thousandths(results.growth.lasting()),
        },
    })
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn thousandths(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
