//! The table, the targets, and the file.

use std::time::Duration;

use conntrack_tests::bench::samples::{micros, shown};
use conntrack_tests::bench::target::Target;
use serde_json::{Map, Value, json};

use crate::run::Run;

/// What the table shows: a heading, or a series and what it is.
const ROWS: [(&str, &str); 39] = [
    ("", "ONE CHANGE AMONG N RULES"),
    ("change.ours", "ours: engine + store + kernel"),
    ("change.decide", "  of that: decide"),
    ("change.store", "  of that: store, on the disk"),
    ("change.observe", "  of that: observe the kernel"),
    ("change.write", "  of that: write to the kernel"),
    ("change.rest", "  of that: the rest (compare, plan)"),
    ("few.ours", "ours among 10, in the same rounds"),
    ("cold.ours", "ours, each after a look at all of it"),
    ("look", "the look at all, 0.5 s after"),
    ("legacy.difference", "Neutron's, iptables-legacy"),
    ("nft.difference", "Neutron's, iptables-nft"),
    ("legacy.whole", "  whole table restored, legacy"),
    ("nft.whole", "  whole table restored, nft"),
    ("", "ONE CHANGE, PARTS ALONE"),
    ("engine", "engine: decide + commit"),
    ("disk.store", "store, on the disk"),
    ("disk.once", "  floor: 4 KiB + fdatasync"),
    ("disk.twice", "  floor: the same twice"),
    ("tmpfs.store", "store, on a tmpfs"),
    ("", "OBSERVING, STEP BY STEP"),
    ("observe.pins", "open the pinned maps and program"),
    ("observe.maps", "read the maps"),
    ("observe.enter", "enter the namespace (a thread)"),
    ("observe.hooks", "list 3 interfaces and their hooks"),
    ("observe.nft", "nft: list the binding"),
    ("", "N RULES IN ONE BATCH, FROM NOTHING"),
    ("batch.ours", "ours: engine + store + kernel"),
    ("batch.decide", "  of that: decide"),
    ("batch.store", "  of that: store, on the disk"),
    ("batch.observe", "  of that: observe the kernel"),
    ("batch.write.load", "  of that: load the instance"),
    ("batch.write.table", "  of that: write the table"),
    ("batch.write.bind", "  of that: install the binding"),
    ("batch.write.attach", "  of that: attach to 3 interfaces"),
    ("batch.rest", "  of that: the rest (compare, plan)"),
    ("more.ours", "ours, onto a router that has a rule"),
    ("batch.legacy", "Neutron's, iptables-legacy"),
    ("batch.nft", "Neutron's, iptables-nft"),
];

/// What one series is compared with another for.
const RATIOS: [(&str, &str, &str); 5] = [
    ("change.ours", "few.ours", "ours : ours among 10"),
    (
        "legacy.difference",
        "change.ours",
        "Neutron's legacy : ours",
    ),
    ("nft.difference", "change.ours", "Neutron's nft : ours"),
    (
        "batch.legacy",
        "batch.ours",
        "Neutron's legacy : ours, batch",
    ),
    ("batch.nft", "batch.ours", "Neutron's nft : ours, batch"),
];

const LABEL: usize = 36;
const CELL: usize = 20;

/// Prints all of it for people.
pub(crate) fn print(machine: &Value, runs: &[Run]) {
    println!("\np50, and (p10–p99) below it\n");
    line("N", runs, |run| Some(run.rules.to_string()));
    for (key, label) in ROWS {
        if key.is_empty() {
            println!("\n{label}");
            continue;
        }
        let at = |run: &Run, percent| run.get(key)?.percentile(percent).map(shown);
        line(label, runs, |run| at(run, 50));
        line("", runs, |run| {
            Some(format!("({}–{})", at(run, 10)?, at(run, 99)?).replace(" µ", "µ"))
        });
    }
    println!("\nRATIOS OF P50");
    for (theirs, ours, label) in RATIOS {
        line(label, runs, |run| {
            ratio(run, theirs, ours).map(|ratio| format!("{ratio:.1}"))
        });
    }
    println!("\nTARGETS");
    for target in targets(runs) {
        println!("  {}", target.said());
    }
    println!("\nNOTES");
    for note in runs.iter().flat_map(|run| &run.notes) {
        println!("  {note}");
    }
    println!("  a change is one rule added or the same rule deleted, in equal parts");
    println!("  Neutron's way runs without Python and with no other rule in the router");
    println!("\n{machine:#}");
}

pub(crate) fn line(label: &str, runs: &[Run], cell: impl Fn(&Run) -> Option<String>) {
    print!("{label:LABEL$}");
    for run in runs {
        print!("{:>CELL$}", cell(run).unwrap_or_else(|| "—".into()));
    }
    println!();
}

/// All of it for machines.
pub(crate) fn json(machine: &Value, runs: &[Run]) -> Value {
    let runs_json = runs.iter().map(|run| {
        let series: Map<_, _> = run
            .all()
            .map(|(key, samples)| (key.clone(), samples.json()))
            .collect();
        let ratios: Map<_, _> = RATIOS
            .iter()
            .filter_map(|(theirs, ours, label)| {
                let ratio = ratio(run, theirs, ours)?;
                Some(((*label).to_owned(), json!((ratio * 100.0).round() / 100.0)))
            })
            .collect();
        json!({
            "rules": run.rules,
            "rounds": run.rounds,
            "maps": run.maps.map(|maps| json!({ "pages": maps.pages, "slots": maps.slots })),
            "series": series,
            "ratios_of_p50": ratios,
            "notes": run.notes,
        })
    });
    let runs_json: Vec<_> = runs_json.collect();
    let targets: Vec<_> = targets(runs).iter().map(Target::json).collect();
    json!({ "bench": "control", "machine": machine, "targets": targets, "runs": runs_json })
}

fn targets(runs: &[Run]) -> [Target; 3] {
    let with = |rules| runs.iter().find(|run| run.rules == rules);
    let millis = |key| Some(micros(p50(with(10_000)?, key)?) / 1e3);
    [
        Target {
            what: "one durable change among 10,000 rules, p50, without the API",
            limit: 0.5,
            measured: millis("change.ours"),
            unit: " ms",
        },
        Target {
            what: "10,000 rules in one batch, from nothing",
            limit: 100.0,
            measured: millis("batch.ours"),
            unit: " ms",
        },
        Target {
            what: "a change among 10,000 rules, in changes among 10",
            limit: 1.2,
            measured: with(10_000).and_then(|run| ratio(run, "change.ours", "few.ours")),
            unit: "",
        },
    ]
}

fn ratio(run: &Run, key: &str, to: &str) -> Option<f64> {
    Some(p50(run, key)?.as_secs_f64() / p50(run, to)?.as_secs_f64())
}

fn p50(run: &Run, key: &str) -> Option<Duration> {
    run.get(key)?.percentile(50)
}
