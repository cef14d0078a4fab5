//! The results as pictures, drawn from their file alone.

mod canvas;
mod counts;
mod ways;

use std::fmt::Display;
use std::fs;
use std::path::Path;

use plotters::prelude::DrawingAreaErrorKind;

use crate::results::Results;
use crate::traffic::Family;

/// What drawing into a file comes to.
type Drawn<T = ()> = Result<T, DrawingAreaErrorKind<std::io::Error>>;

/// Draws all charts into a folder, and says where.
pub(crate) fn draw(results: &Results, folder: &Path) {
    fs::create_dir_all(folder).expect("the charts' folder");
    for family in Family::ALL {
        let version = family.name().to_lowercase();
        let path = |chart: &str| folder.join(format!("datapath-{chart}-{version}.svg"));
        counts::draw(results, family, &path("rules")).expect("a chart");
        ways::draw(results, family, &path("ways")).expect("a chart");
    }
    println!("drawn into {}", folder.display());
}

/// Nanoseconds as an axis has them.
fn time(nanoseconds: f64) -> String {
    match nanoseconds {
        1e6.. => format!("{} ms", nanoseconds / 1e6),
        1e3.. => format!("{} µs", nanoseconds / 1e3),
        _ => format!("{nanoseconds} ns"),
    }
}

/// A whole number with its thousands set apart.
fn thousands(number: impl Display) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    let groups: Vec<_> = groups.map(String::from_utf8_lossy).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charts_are_drawn_of_whatever_was_measured() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path().join("bench");
        draw(&crate::results::tests::some(), &folder);
        let charts = fs::read_dir(&folder).expect("the folder");
        let texts = charts.map(|chart| fs::read_to_string(chart.expect("a chart").path()));
        let whole = texts.filter(|text| text.as_ref().is_ok_and(|text| text.contains("</svg>")));
        assert_eq!(whole.count(), 4);
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(thousands(5), "5");
        assert_eq!(thousands(1_000), "1,000");
        assert_eq!(thousands(1_234_567), "1,234,567");
        let times = [50.0, 1e3, 1e5, 1e6].map(time);
        assert_eq!(times, ["50 ns", "1 µs", "100 µs", "1 ms"]);
    }
}
