//! What the command line says.

use std::path::PathBuf;
use std::time::Duration;

use crate::measure::Until;

pub(crate) const USAGE: &str = "usage: bench_datapath [--json FILE] [--cycles N | --quick]";

/// The measurement's part of a whole run, and of one for trying out.
const WHOLE: Duration = Duration::from_secs(170);
const QUICK: Duration = Duration::from_secs(15);

/// What to do.
pub(crate) struct Options {
    pub(crate) json: Option<PathBuf>,
    pub(crate) until: Until,
}

impl Options {
    /// None if they are wrong.
    pub(crate) fn of(mut given: impl Iterator<Item = String>) -> Option<Self> {
        let mut options = Self {
            json: None,
            until: Until::Elapsed(WHOLE),
        };
        while let Some(option) = given.next() {
            match option.as_str() {
                "--json" => options.json = Some(given.next()?.into()),
                "--quick" => options.until = Until::Elapsed(QUICK),
                "--cycles" => {
                    let cycles = given.next()?.parse().ok();
                    options.until = Until::Cycles(cycles.filter(|cycles| *cycles > 0)?);
                }
                _ => return None,
            }
        }
        Some(options)
    }
}
