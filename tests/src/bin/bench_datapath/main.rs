//! `cargo xtask bench datapath`: what it costs a forwarded packet, beside the other ways.
//!
//! All routers exist at once. Packets are sent through them in short slices, in random
//! order, on one CPU, and each slice is compared with the base's of the same cycle. No
//! figure fails the command; the table says which targets are met.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::cast_precision_loss,
    reason = "a benchmark whose lab fails ends there, and says with what; counts of packets are small"
)]

mod charts;
mod configuration;
mod connections;
mod measure;
mod network;
mod options;
mod ours;
mod results;
mod rig;
mod rivals;
mod rules;
mod series;
mod stop;
mod table;
mod targets;
mod traffic;
mod watchers;
mod wire;

use std::env::args;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use conntrack_tests::bench::circumstances::Before;
use conntrack_tests::bench::cpu::Reserved;
use conntrack_tests::bench::{machine, write};

use crate::configuration::Configuration;
use crate::measure::Until;
use crate::options::{Options, Work};
use crate::results::Results;
use crate::rig::Rig;
use crate::stop::{Stop, Stopped};

/// Nothing of the agents' is kept longer than the run.
const STATE: &str = "/tmp";
/// As shells have it for SIGINT.
const STOPPED: u8 = 130;

fn main() -> ExitCode {
    let given: Vec<_> = args().skip(1).collect();
    let Some(options) = Options::of(given.iter().map(String::as_str)) else {
        eprintln!("{}", options::USAGE);
        return ExitCode::from(2);
    };
    let results = match options.work {
        Work::Measure(until) => {
            let stop = Stop::on_signals();
            let Ok(results) = run(until, &stop) else {
                eprintln!("stopped; everything is gone again");
                return ExitCode::from(STOPPED);
            };
            table::print(&results);
            if let Some(path) = &options.json {
                write(path, &results.json());
            }
            results
        }
        Work::Draw(path) => Results::read(&path),
    };
    if let Some(folder) = &options.charts {
        charts::draw(&results, folder);
    }
    ExitCode::SUCCESS
}

fn run(until: Until, stop: &Stop) -> Result<Results, Stopped> {
    let begun = Instant::now();
    let machine = machine::describe(Path::new(STATE));
    let reserved = Reserved::last();
    let configurations = Configuration::all();
    let rig = Rig::new(&configurations, stop)?;
    println!(
        "{} routers made in {:.0?}",
        rig.routers.len(),
        begun.elapsed()
    );
    connections::establish(&rig.routers);
    rig.routers.iter().for_each(rivals::withdraw);
    rig.routers.iter().for_each(connections::assert_as_wanted);
    println!("all connections have the helpers that they should");

    let arrived = rig.hosts.arrived();
    let before = Before::now(reserved.number());
    // In a thread of its own: what comes after it runs anywhere again.
    let series = std::thread::scope(|scope| {
        let measuring = scope.spawn(|| {
            reserved.enter();
            measure::measure(&rig.routers, until, stop)
        });
        measuring.join().expect("the measurement")
    })?;
    let circumstances = before.until_now();
    println!(
        "measured {} cycles, {:.0?} after the start",
        series.cycles(),
        begun.elapsed()
    );
    connections::assert_arrived(&rig.hosts, &rig.routers, &arrived, &series.sent);
    rig.routers.iter().for_each(connections::assert_as_wanted);
    Ok(Results::new(machine, circumstances, &series))
}
