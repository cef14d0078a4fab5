//! `cargo xtask bench program`: what the loaded programs take for a packet, over
//! programs that do nothing, by `BPF_PROG_TEST_RUN`.
//!
//! Always the same packet, so all that it needs is in the caches and every branch is
//! foretold: this is what the instructions cost, and a router's traffic pays more.
//! No measurement fails the command; the table says which targets are met.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    reason = "a benchmark whose lab fails ends there, and says with what"
)]

mod loaded;
mod measure;
mod packets;
mod report;
mod runs;

use std::env::args;
use std::fs::read;
use std::path::PathBuf;
use std::process::ExitCode;

use conntrack_agent::kernel::Build;
use conntrack_ebpf::abi;
use conntrack_tests::bench::circumstances::Before;
use conntrack_tests::bench::cpu::Reserved;
use conntrack_tests::bench::{machine, write};
use conntrack_tests::lab::Lab;

struct Options {
    json: Option<PathBuf>,
    /// Other objects, whose programs run beside ours.
    beside: Vec<PathBuf>,
    rounds: usize,
}

fn main() -> ExitCode {
    let Some(options) = options(args().skip(1)) else {
        eprintln!("usage: bench_program [--json FILE] [--beside OBJECT]… [--rounds N]");
        return ExitCode::from(2);
    };
    let others = options.beside.iter().map(|path| {
        let object = read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Build::new(abi::VERSION, object)
    });
    let others: Vec<_> = others.collect();
    let lab = Lab::new();
    let machine = machine::describe(lab.dir().path());
    let reserved = Reserved::last();
    reserved.enter();
    let before = Before::now(reserved.number());
    let folder = lab.dir().bpf_dir();
    let (rows, mut instance) = measure::measure(packets::all(), &folder, &others, options.rounds);
    let results = report::Results {
        rounds: options.rounds,
        circumstances: before.until_now(),
        others: options.beside,
        maps: report::maps(&mut instance),
        rows,
    };
    report::print(&machine, &results);
    if let Some(path) = options.json {
        write(&path, &report::json(&machine, &results));
    }
    ExitCode::SUCCESS
}

fn options(mut given: impl Iterator<Item = String>) -> Option<Options> {
    let mut options = Options {
        json: None,
        beside: Vec::new(),
        rounds: 1_000,
    };
    while let Some(option) = given.next() {
        let value = given.next()?;
        match option.as_str() {
            "--json" => options.json = Some(value.into()),
            "--beside" => options.beside.push(value.into()),
            "--rounds" => options.rounds = value.parse().ok().filter(|count| *count > 0)?,
            _ => return None,
        }
    }
    Some(options)
}
