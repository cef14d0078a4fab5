//! The table, the targets, and the file.

use std::path::PathBuf;

use aya::maps::{MapInfo, MapType};
use conntrack_agent::kernel::Instance;
use conntrack_tests::bench::circumstances::Circumstances;
use conntrack_tests::bench::interval::Median;
use serde_json::{Value, json};

use crate::measure::{COPIES, Cost, Row};
use crate::packets::WAYS;

/// All that was measured.
pub(crate) struct Results {
    pub(crate) rounds: usize,
    pub(crate) circumstances: Circumstances,
    /// The files of the other objects.
    pub(crate) others: Vec<PathBuf>,
    pub(crate) maps: Vec<MapType>,
    pub(crate) rows: Vec<Row>,
}

/// Kinds of the maps that the program has, as the kernel knows them.
pub(crate) fn maps(instance: &mut Instance) -> Vec<MapType> {
    let info = instance.program().info().expect("the program's");
    let ids = info.map_ids().expect("its maps");
    let kind = |id| MapInfo::from_id(id).and_then(|info| info.map_type());
    let kinds = ids.expect("a kernel that tells").into_iter().map(kind);
    kinds.map(|kind| kind.expect("the kind of a map")).collect()
}

/// What reading takes a hash, or a walk.
fn is_hash(kind: MapType) -> bool {
    let name = format!("{kind:?}");
    name.contains("Hash") || name.contains("Trie")
}

/// Those that the issue sets, each with what came of it.
fn targets(results: &Results) -> impl Iterator<Item = (String, f64, &Cost)> {
    results.rows.iter().filter_map(|row| {
        let what = format!("{}: {}", row.path.way.name(), row.path.what);
        Some((what, row.path.limit?, row.cost.as_ref().ok()?))
    })
}

/// All of the interval has to be.
fn is_met(cost: &Cost, limit: f64) -> bool {
    cost.ours.high <= limit
}

/// Percent of their time.
const QUIET: f64 = 10.0;

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn shown(median: &Median) -> String {
    let Median { value, low, high } = median;
    format!("{value:.1} [{low:.1}, {high:.1}]")
}

/// Prints all of it.
pub(crate) fn print(machine: &Value, results: &Results) {
    println!("NANOSECONDS A PACKET OVER AN EMPTY PROGRAM, MEDIANS AND THEIR 95 % INTERVALS");
    for (number, other) in results.others.iter().enumerate() {
        println!("({}) {}", number + 1, other.display());
    }
    for way in WAYS {
        print!(
            "\n{:40}{:>7}{:>22}{:>22}",
            way.name(),
            "empty",
            "noise",
            "ours"
        );
        for number in 1..=results.others.len() {
            print!(
                "{:>22}{:>22}",
                format!("({number})"),
                format!("ours over ({number})")
            );
        }
        println!();
        for row in results.rows.iter().filter(|row| row.path.way == way) {
            print!("{:40}", row.path.what);
            match &row.cost {
                Ok(cost) => {
                    print!("{:>7.1}", cost.empty.value);
                    let others = cost.others.iter().flat_map(|(other, ours)| [other, ours]);
                    for median in [&cost.noise, &cost.ours].into_iter().chain(others) {
                        print!("{:>22}", shown(median));
                    }
                    println!();
                }
                Err(why) => println!("not measured: {why}"),
            }
        }
    }
    println!("\nTARGETS");
    for (what, limit, cost) in targets(results) {
        let verdict = if is_met(cost, limit) {
            "met"
        } else {
            "NOT met"
        };
        println!("  {verdict}: {what} ≤ {limit} ns: {}", shown(&cost.ours));
    }
    let verdict = if results.maps.iter().any(|map| is_hash(*map)) {
        "NOT met"
    } else {
        "met"
    };
    println!("  {verdict}: reads no hash map: it has {:?}", results.maps);
    println!("\n{machine:#}\n{:#}", json!(results.circumstances));
    if results.circumstances.others_busy_percent > Some(QUIET) {
        println!(
            "\nOther CPUs were busy. Where they share a core with this one, all takes longer."
        );
    }
}

/// All of it for machines.
pub(crate) fn json(machine: &Value, results: &Results) -> Value {
    let row = |row: &Row| {
        let mut all = json!({ "program": row.path.way.name(), "packet": row.path.what });
        match &row.cost {
            Ok(cost) => {
                all["empty_ns"] = cost.empty.json();
                all["noise_ns"] = cost.noise.json();
                all["ours_over_empty_ns"] = cost.ours.json();
                if !cost.others.is_empty() {
                    let other = |(other, ours): &(Median, Median)| json!({ "over_empty_ns": other.json(), "ours_over_it_ns": ours.json() });
                    all["other_objects"] = cost.others.iter().map(other).collect();
                }
            }
            Err(why) => all["not_measured"] = json!(why),
        }
        all
    };
    let target = |(what, limit, cost): (String, f64, &Cost)| {
        let Median { value, low, high } = cost.ours;
        let interval = [low, high].map(tenths);
        json!({
            "target": what, "limit": limit, "unit": "ns", "measured": tenths(value),
            "interval": interval, "met": is_met(cost, limit),
        })
    };
    let mut all: Vec<_> = targets(results).map(target).collect();
    let hashes = results.maps.iter().filter(|map| is_hash(**map)).count();
    all.push(json!({
        "target": "maps of the program that are hashed", "limit": 0, "unit": "",
        "measured": hashes, "met": hashes == 0,
    }));
    let maps: Vec<_> = results.maps.iter().map(|map| format!("{map:?}")).collect();
    json!({
        "bench": "program", "machine": machine,
        "method": {
            "rounds": results.rounds, "copies_of_each_program": COPIES,
            "ways": WAYS.map(|way| json!({
                "program": way.name(), "packets_a_run": way.times(),
                "rounds": (0..results.rounds).filter(|round| way.is_in(*round)).count(),
            })),
            "interval": "95 %, by order statistics",
        },
        "circumstances": results.circumstances,
        "targets": all,
        "rows": results.rows.iter().map(row).collect::<Vec<_>>(),
        "maps": maps,
    })
}
