//! The results for people.

use crate::configuration::Way;
use crate::results::{Estimate, Results, Router};
use crate::targets::Target;
use crate::traffic::{Family, Stream};

/// Characters of a column of figures.
const COLUMN: usize = 36;

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
                print!("{stream:>COLUMN$}");
            }
            println!();
            whole(results, nat, &streams);
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

/// What a packet takes in all, through the first of the bases.
fn whole(results: &Results, nat: bool, streams: &[String]) {
    let mut bases = results.routers.iter();
    let Some(base) = bases.find(|router| router.nat == nat && router.way == Way::Nothing.name())
    else {
        return;
    };
    print!("{:38}", "in all, sending it included");
    for cost in streams.iter().map(|stream| base.cost(stream)) {
        let shown = cost.map(|cost| format!("{:.0}", cost.whole_ns.median));
        print!("{:>COLUMN$}", shown.unwrap_or_default());
    }
    println!();
}

fn row(router: &Router, streams: &[String]) {
    print!("{:32}{:>6}", router.way, router.rules);
    for stream in streams {
        let added = router.added(stream);
        print!("{:>COLUMN$}", added.map_or_else(|| "—".into(), shown));
    }
    println!();
}

fn shown(of: Estimate) -> String {
    format!("{:.1} [{:.1}, {:.1}]", of.median, of.low, of.high)
}

fn verdict(target: &Target) {
    let verdict = if target.met { "met" } else { "NOT met" };
    let Target {
        what,
        limit,
        unit,
        measured,
        interval: [low, high],
        compared_ns,
        ..
    } = target;
    let compared: Vec<_> = compared_ns.iter().map(|ns| format!("{ns:.1}")).collect();
    println!(
        "  {verdict:7}  {what}: {measured:.1} [{low:.1}, {high:.1}] ≤ {limit:.1} {unit} ({})",
        compared.join(" and ")
    );
}
