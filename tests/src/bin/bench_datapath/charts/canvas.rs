//! What all charts look like.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::Drawn;
use crate::results::Results;

/// Where charts are drawn.
pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

pub(super) const WIDTH: u32 = 860;
const FONT: &str = "sans-serif";
/// Of text that explains.
pub(super) const GRAY: RGBColor = RGBColor(95, 95, 95);
/// Of lines that lead the eye.
pub(super) const FAINT: RGBColor = RGBColor(225, 225, 225);

// Colours that people tell apart who don't tell red from green (Okabe and Ito).
pub(super) const BLUE: RGBColor = RGBColor(0, 114, 178);
pub(super) const GREEN: RGBColor = RGBColor(0, 158, 115);
pub(super) const ORANGE: RGBColor = RGBColor(213, 94, 0);
pub(super) const PURPLE: RGBColor = RGBColor(170, 80, 140);

/// A white area, so that it is readable on a dark page too, with a title above it and
/// where the figures are from below it.
pub(super) fn canvas<'a>(
    path: &'a Path,
    height: u32,
    [title, subtitle]: [&str; 2],
    results: &Results,
) -> Drawn<Area<'a>> {
    const TOP: u32 = 66;
    const BOTTOM: u32 = 30;
    let whole = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    whole.fill(&WHITE)?;
    let (head, rest) = whole.split_vertically(TOP);
    let (area, foot) = rest.split_vertically(height - TOP - BOTTOM);
    head.draw_text(title, &text(19, BLACK), (16, 12))?;
    head.draw_text(subtitle, &text(13, GRAY), (16, 40))?;
    foot.draw_text(&source(results), &text(11, GRAY), (16, 8))?;
    Ok(area)
}

/// Which machine, when, from what.
fn source(results: &Results) -> String {
    let said = |key: &str| results.machine[key].as_str().unwrap_or("?").to_owned();
    let day = said("date")
        .split('T')
        .next()
        .unwrap_or_default()
        .to_owned();
    format!(
        "Linux {}, {}, {day}, {}; medians of {} cycles, bars: 95 % intervals; bench/datapath.json",
        said("kernel"),
        said("cpu"),
        said("commit"),
        results.method.cycles
    )
}

/// Text of this size.
pub(super) fn text(size: u32, color: RGBColor) -> TextStyle<'static> {
    (FONT, size).into_font().color(&color)
}

/// The same, beside a point: its left or right end, at the height of its middle.
pub(super) fn beside(size: u32, color: RGBColor, at: HPos) -> TextStyle<'static> {
    text(size, color).pos(Pos::new(at, VPos::Center))
}
