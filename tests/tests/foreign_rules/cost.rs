//! The cost of a reading, beside that of the tools' own listings.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use conntrack_agent::kernel::{self, NetnsFolder, ruleset_of};
use conntrack_tests::{lab::Lab, netns::Netns};

const ROUTERS: usize = 20;
const ROUNDS: usize = 15;
/// The floating IPs of a router, each with the rules that Neutron makes for one.
const FLOATING_IPS: usize = 20;

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
    format!(
        "{nat}COMMIT\n{mangle}COMMIT\n*raw\n-A PREROUTING -p tcp --dport 21 -j CT --helper ftp\nCOMMIT\n"
    )
}

/// A reading of a router's rules.
type Reading = Box<dyn Fn(&Netns, &kernel::Netns)>;

struct Contender {
    name: &'static str,
    run: Reading,
}

fn tool(name: &'static str, words: &'static [&'static str]) -> Contender {
    let run = move |netns: &Netns, _: &kernel::Netns| {
        netns.run(|| {
            let mut command = Command::new(words[0]);
            let status = command.args(&words[1..]).stdout(Stdio::null()).status();
            assert!(status.expect("a listing").success(), "{words:?}");
        });
    };
    Contender {
        name,
        run: Box::new(run),
    }
}

/// Each router is read by each in turn, another first in each round.
#[test]
#[ignore = "a measurement: run it with --ignored --nocapture"]
fn a_reading_beside_the_tools_listings() {
    let contenders = [
        Contender {
            name: "the reader",
            run: Box::new(|_, held| drop(ruleset_of(held).expect("a ruleset"))),
        },
        tool("nft -j list ruleset", &["nft", "-j", "list", "ruleset"]),
        tool("true (a process alone)", &["true"]),
        tool("iptables-legacy-save", &["iptables-legacy-save"]),
    ];
    for restore in [
        None,
        Some("iptables-nft-restore"),
        Some("iptables-legacy-restore"),
    ] {
        let lab = Lab::without_bpffs();
        let folder = NetnsFolder::new(lab.dir().netns_dir());
        let routers: Vec<_> = (0..ROUTERS)
            .map(|number| {
                let name = format!("router-{number}");
                let netns = lab.netns(&name);
                if let Some(restore) = restore {
                    netns.tool::<&str>(restore, [], &rules());
                }
                let held = folder.open(&name).expect("a namespace");
                (netns, held.expect("a namespace"))
            })
            .collect();
        let mut times = vec![Vec::new(); contenders.len()];
        for round in 0..ROUNDS {
            for (netns, held) in &routers {
                for turn in 0..contenders.len() {
                    let turn = (turn + round) % contenders.len();
                    let began = Instant::now();
                    (contenders[turn].run)(netns, held);
                    times[turn].push(began.elapsed());
                }
            }
        }
        println!("{}:", restore.unwrap_or("no rules"));
        for (contender, times) in contenders.iter().zip(&mut times) {
            times.sort_unstable();
            let at = |percent: usize| micros(times[times.len() * percent / 100]);
            println!(
                "  {:24} {:>7.0} µs a router (median; {:.0} to {:.0} are half of them)",
                contender.name,
                at(50),
                at(25),
                at(75)
            );
        }
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
