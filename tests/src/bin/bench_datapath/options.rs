//! What the command line says.

use std::path::PathBuf;
use std::time::Duration;

use crate::measure::{FEWEST, Until};

pub(crate) const USAGE: &str =
    "usage: bench_datapath [--json FILE] [--charts FOLDER] [--cycles N | --quick]
       bench_datapath --charts-only --json FILE --charts FOLDER";

/// The measurement's part of a whole run, and of one for trying out.
const WHOLE: Duration = Duration::from_mins(3);
const QUICK: Duration = Duration::from_secs(15);

/// What to do.
#[derive(Debug, PartialEq)]
pub(crate) enum Work {
    /// Make all routers, and measure for so long.
    Measure(Until),
    /// Read the results from a file.
    Draw(PathBuf),
}

/// What to do, and what to leave where.
#[derive(Debug, PartialEq)]
pub(crate) struct Options {
    pub(crate) work: Work,
    pub(crate) json: Option<PathBuf>,
    pub(crate) charts: Option<PathBuf>,
}

impl Options {
    /// None if they are wrong.
    pub(crate) fn of<'a>(mut given: impl Iterator<Item = &'a str>) -> Option<Self> {
        let (mut json, mut charts): (Option<PathBuf>, Option<PathBuf>) = (None, None);
        let (mut until, mut draws) = (Until::Elapsed(WHOLE), false);
        while let Some(option) = given.next() {
            match option {
                "--json" => json = Some(given.next()?.into()),
                "--charts" => charts = Some(given.next()?.into()),
                "--charts-only" => draws = true,
                "--quick" => until = Until::Elapsed(QUICK),
                "--cycles" => {
                    let cycles = given.next()?.parse().ok();
                    until = Until::Cycles(cycles.filter(|cycles| *cycles >= FEWEST)?);
                }
                _ => return None,
            }
        }
        let work = match (draws, &json, &charts) {
            (false, ..) => Work::Measure(until),
            (true, Some(json), Some(_)) => Work::Draw(json.clone()),
            (true, ..) => return None,
        };
        Some(Self { work, json, charts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Option<Options> {
        Options::of(line.split_whitespace())
    }

    #[test]
    fn by_itself_it_measures_and_leaves_nothing() {
        let options = of("").expect("no options");
        assert_eq!(options.work, Work::Measure(Until::Elapsed(WHOLE)));
        assert_eq!((options.json, options.charts), (None, None));
    }

    #[test]
    fn charts_alone_need_a_file_to_draw_from_and_a_place() {
        assert_eq!(of("--charts-only --json a"), None);
        assert_eq!(of("--charts-only --charts b"), None);
        let options = of("--charts-only --json a --charts b").expect("both");
        assert_eq!(options.work, Work::Draw("a".into()));
    }

    #[test]
    fn too_few_cycles_are_no_measurement() {
        assert_eq!(of("--cycles 59"), None);
        assert_eq!(of("--cycles"), None);
        assert_eq!(of("--cicles 60"), None);
        let options = of("--cycles 60").expect("enough");
        assert_eq!(options.work, Work::Measure(Until::Cycles(60)));
    }
}
