//! The results for people.

use crate::results::{Cost, Results, Router};
use crate::targets::Target;
use crate::traffic::{Family, Stream};

/// Prints all of it.
pub(crate) fn print(results: &Results) {
    for nat in [true, false] {
        for family in Family::ALL {
            let streams: Vec<_> = Stream::all()
                .filter(|stream| stream.family == family)
                .map(Stream::name)
                .collect();
            let with = if nat { "WITH" } else { "WITHOUT" };
            println!(
                "\nADDED NANOSECONDS A PACKET, {}, {with} NAT\n",
                family.name()
            );
            print!("{:32}{:>6}", "", "rules");
            for stream in &streams {
                print!("{stream:>26}");
            }
            println!();
            for router in results.routers.iter().filter(|router| router.nat == nat) {
                row(router, &streams);
            }
        }
    }
    println!("\nTARGETS");
    for target in &results.targets {
        verdict(target);
    }
    let circumstances = &results.circumstances;
    println!("\n{} cycles; {circumstances:#?}", results.method.cycles);
    println!("{:#}", results.machine);
}

fn row(router: &Router, streams: &[String]) {
    let again = if router.copy > 0 { ", again" } else { "" };
    let name = format!("{}{again}", router.way);
    print!("{name:32}{:>6}", router.rules);
    for stream in streams {
        print!(
            "{:>26}",
            router.cost(stream).map_or_else(|| "—".into(), shown)
        );
    }
    println!();
}

/// Of the base itself, what a packet takes in all.
fn shown(cost: &Cost) -> String {
    match cost.added_ns {
        Some(added) => format!("{:.1} [{:.1}, {:.1}]", added.median, added.low, added.high),
        None => format!("(whole: {:.0})", cost.whole_ns.median),
    }
}

fn verdict(target: &Target) {
    let verdict = if target.met { "met" } else { "NOT met" };
    let Target {
        what,
        stream,
        worst_at,
        limit_ns,
        measured_ns,
        compared_ns,
        ..
    } = target;
    let compared: Vec<_> = compared_ns.iter().map(|ns| format!("{ns:.1}")).collect();
    let (median, low, high) = (measured_ns.median, measured_ns.low, measured_ns.high);
    println!(
        "  {verdict}: {stream}: {what}: {median:.1} [{low:.1}, {high:.1}] ≤ {limit_ns:.1} ns at {worst_at} ({})",
        compared.join(" and ")
    );
}
