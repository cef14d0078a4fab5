//! What a packet costs, against the number of rules.

use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::canvas::{self, BLUE, FAINT, GRAY, GREEN, ORANGE, PURPLE, beside};
use super::{Drawn, thousands, time};
use crate::configuration::{Ours, Variant, Way};
use crate::results::{Estimate, Results};
use crate::rules::COUNTS;
use crate::traffic::{Family, Meeting, Stream};

const HEIGHT: u32 = 500;
/// Nanoseconds, of the axis.
const LEAST: f64 = 20.0;
const MOST: f64 = 1e6;

/// The ways that depend on it, or might.
const WAYS: [(Way, RGBColor); 4] = [
    (Way::Neutron(Variant::Nft), PURPLE),
    (Way::Neutron(Variant::Legacy), ORANGE),
    (Way::Map, GREEN),
    (Way::Ours(Ours::DEFAULT), BLUE),
];

/// Draws it for TCP without a rule for its port.
pub(super) fn draw(results: &Results, family: Family, path: &Path) -> Drawn {
    let stream = Stream {
        family,
        protocol: conntrack_agent::model::Protocol::Tcp,
        meeting: Meeting::Miss,
    };
    let name = stream.name();
    let title = format!("Added cost of a forwarded packet, {}", family.name());
    let subtitle = "Established TCP to a port without a rule, in a router with NAT; over the same router without any helper";
    let area = canvas::canvas(path, HEIGHT, [&title, subtitle], results)?;
    let [fewest, .., most] = COUNTS;
    let mut chart = ChartBuilder::on(&area)
        .margin_right(140)
        .x_label_area_size(46)
        .y_label_area_size(64)
        .build_cartesian_2d(
            (fewest as f64 * 0.8..most as f64 * 1.2).log_scale(),
            (LEAST..MOST).log_scale(),
        )?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(FAINT)
        .axis_style(GRAY)
        .label_style(canvas::text(12, GRAY))
        .axis_desc_style(canvas::text(13, GRAY))
        .x_desc("rules of the router")
        .x_label_formatter(&|rules| thousands(format_args!("{rules:.0}")))
        .y_label_formatter(&|nanoseconds| time(*nanoseconds))
        .draw()?;

    let empty = results.router(Way::Empty.name(), 0);
    if let Some(empty) = empty.and_then(|router| router.added(&name)) {
        let ends = [fewest, most].map(|rules| (rules as f64, empty.median));
        chart.draw_series(DashedLineSeries::new(ends, 4, 4, GRAY.stroke_width(1)))?;
        label(&mut chart, ends[1], "empty tcx program", GRAY)?;
    }
    for (way, color) in WAYS {
        let costs = COUNTS.iter().filter_map(|rules| {
            let added = results.router(way.name(), *rules)?.added(&name)?;
            Some((*rules as f64, added))
        });
        let costs: Vec<(f64, Estimate)> = costs.collect();
        let points = costs.iter().map(|(rules, added)| (*rules, added.median));
        chart.draw_series(LineSeries::new(points.clone(), color.stroke_width(2)))?;
        chart.draw_series(points.map(|point| Circle::new(point, 4, color.filled())))?;
        chart.draw_series(costs.iter().map(|(rules, added)| {
            let ends = [added.low, added.high].map(|end| (*rules, end.max(LEAST)));
            PathElement::new(ends, color.stroke_width(1))
        }))?;
        if let Some((rules, added)) = costs.last() {
            label(&mut chart, (*rules, added.median), way.name(), color)?;
        }
    }
    area.present()
}

type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<LogCoord<f64>, LogCoord<f64>>>;

/// The name of a line, at its end.
fn label(chart: &mut Chart<'_, '_>, at: (f64, f64), name: &str, color: RGBColor) -> Drawn {
    let style = beside(13, color, HPos::Left);
    let text = EmptyElement::at(at) + Text::new(name.to_owned(), (9, 0), style);
    chart.draw_series(std::iter::once(text))?;
    Ok(())
}
