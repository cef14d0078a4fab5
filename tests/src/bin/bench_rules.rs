//! `cargo xtask bench rules`: what reading a router's rules takes, beside the tools' own
//! listings.
//!
//! Each router is read in each way in turn, another way first in each round. No
//! measurement fails the command.
#![expect(
    clippy::expect_used,
    reason = "a benchmark whose lab fails ends there, and says with what"
)]

use std::env::args;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use conntrack_agent::kernel::{NetnsFolder, ruleset_of};
use conntrack_tests::bench::samples::{Samples, shown};
use conntrack_tests::bench::{machine, write};
use conntrack_tests::lab::Lab;
use serde_json::{Value, json};

const ROUTERS: usize = 20;
const ROUNDS: usize = 15;
/// The floating IPs of a router, each with the rules that Neutron makes for one.
const FLOATING_IPS: usize = 20;

/// The ways to read a router's rules: the agent's, and commands. The last one reads
/// nothing: a process alone.
const WAYS: [&[&str]; 4] = [
    &[],
    &["nft", "-j", "list", "ruleset"],
    &["iptables-legacy-save"],
    &["true"],
];

fn main() -> ExitCode {
    let given: Vec<_> = args().skip(1).collect();
    let json: Option<PathBuf> = match &given[..] {
        [] => None,
        [option, path] if option == "--json" => Some(path.into()),
        _ => {
            eprintln!("usage: bench_rules [--json FILE]");
            return ExitCode::from(2);
        }
    };
    let machine = machine::describe(Path::new("/"));
    let mut routers = Vec::new();
    for writer in ["none", "iptables-nft", "iptables-legacy"] {
        println!("rules of {FLOATING_IPS} floating IPs by {writer}:");
        let measured = measure(writer);
        for (way, samples) in WAYS.iter().zip(&measured) {
            let [low, median, high] = [25, 50, 75].map(|percent| {
                let time = samples.percentile(percent);
                shown(time.expect("samples"))
            });
            println!(
                "  {:24} {median:>9} a router ({low} to {high})",
                name_of(way)
            );
        }
        let ways = WAYS.iter().zip(&measured);
        let ways: Vec<Value> = ways
            .map(|(way, samples)| json!({ "way": name_of(way), "times": samples.json() }))
            .collect();
        routers.push(json!({ "writer": writer, "ways": ways }));
    }
    if let Some(path) = json {
        let results = json!({
            "bench": "rules", "machine": machine, "routers": routers, "targets": [],
            "method": "each router is read in each way in turn; times are those of one reading",
        });
        write(&path, &results);
    }
    ExitCode::SUCCESS
}

fn name_of(way: &[&str]) -> String {
    match way {
        [] => "the agent's reader".into(),
        ["true"] => "a process alone (true)".into(),
        command => command.join(" "),
    }
}

/// Reads routers whose rules this tool has written.
fn measure(writer: &str) -> [Samples; WAYS.len()] {
    let lab = Lab::without_bpffs();
    let folder = NetnsFolder::new(lab.dir().netns_dir());
    let names: Vec<_> = (0..ROUTERS)
        .map(|number| format!("router-{number}"))
        .collect();
    let routers = names.iter().map(|name| {
        let netns = lab.netns(name);
        if writer != "none" {
            netns.tool::<&str>(&format!("{writer}-restore"), [], &rules());
        }
        let held = folder.open(name).expect("a namespace");
        (netns, held.expect("a namespace"))
    });
    let routers: Vec<_> = routers.collect();
    let mut times = WAYS.map(|_| Samples::default());
    for round in 0..ROUNDS {
        for (netns, held) in &routers {
            for turn in 0..WAYS.len() {
                let turn = (turn + round) % WAYS.len();
                times[turn].time(|| match WAYS[turn] {
                    [] => drop(ruleset_of(held).expect("a ruleset")),
                    [program, words @ ..] => netns.run(|| {
                        let mut command = Command::new(program);
                        let status = command.args(words).stdout(Stdio::null()).status();
                        assert!(status.expect("a listing").success(), "{program}");
                    }),
                });
            }
        }
    }
    times
}

/// A router's rules, as Neutron's L3 agent writes them.
fn rules() -> String {
    let mut nat = String::from("*nat\n:neutron-PREROUTING - [0:0]\n:neutron-snat - [0:0]\n");
    nat += "-A PREROUTING -j neutron-PREROUTING\n-A POSTROUTING -j neutron-snat\n";
    let mut mangle = String::from("*mangle\n:neutron-mark - [0:0]\n");
    mangle += "-A PREROUTING -j neutron-mark\n";
    for number in 1..=FLOATING_IPS {
        let (outside, inside) = (format!("192.0.2.{number}"), format!("10.0.0.{number}"));
        nat.extend([
            format!("-A neutron-PREROUTING -d {outside}/32 -j DNAT --to-destination {inside}\n"),
            format!("-A neutron-snat -s {inside}/32 -j SNAT --to-source {outside}\n"),
        ]);
        mangle.extend([format!(
            "-A neutron-mark -d {outside}/32 -j MARK --set-xmark 0x{number}/0xffff\n"
        )]);
    }
    let raw = "*raw\n-A PREROUTING -p tcp --dport 21 -j CT --helper ftp\n";
    format!("{nat}COMMIT\n{mangle}COMMIT\n{raw}COMMIT\n")
}
