//! What a packet costs, way by way.

use std::path::Path;

use conntrack_agent::model::Protocol;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::canvas::{self, BLUE, FAINT, GRAY, GREEN, ORANGE, PURPLE, beside};
use super::{Drawn, thousands, time};
use crate::configuration::Way;
use crate::results::{Results, Router};
use crate::traffic::{Family, Meeting, Stream};

/// Pixels of one row, and of all that is above and below the rows.
const ROW: u32 = 24;
const AROUND: u32 = 146;
/// Numbers of rules that are shown of ways that have several.
const SHOWN: [usize; 3] = [0, 1, 10];
/// Nanoseconds, of the axis.
const LEAST: f64 = 20.0;
const MOST: f64 = 3_000.0;

/// Draws it for TCP, the cheapest first: a dot for what misses, a ring for what hits.
pub(super) fn draw(results: &Results, family: Family, path: &Path) -> Drawn {
    let [miss, hit] = [Meeting::Miss, Meeting::Hit].map(|meeting| {
        let protocol = Protocol::Tcp;
        let stream = Stream {
            family,
            protocol,
            meeting,
        };
        stream.name()
    });
    let rows = results.routers.iter().filter(|router| is_shown(router));
    let mut rows: Vec<_> = rows
        .filter_map(|router| Some((router, router.added(&miss)?, router.added(&hit)?)))
        .collect();
    rows.sort_by(|(_, a, _), (_, b, _)| a.median.total_cmp(&b.median));
    let height = AROUND + ROW * u32::try_from(rows.len()).unwrap_or_default();
    let title = format!(
        "Added cost of a forwarded packet, {}, in nanoseconds",
        family.name()
    );
    let subtitle = "Established TCP in a router with NAT, over the same router without any helper; dot, first figure: a port without a rule; ring: one with a rule";
    let area = canvas::canvas(path, height, [&title, subtitle], results)?;
    let mut chart = ChartBuilder::on(&area)
        .margin_right(110)
        .x_label_area_size(40)
        .y_label_area_size(260)
        .build_cartesian_2d((LEAST..MOST).log_scale(), rows.len() as f64..0.0)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(FAINT)
        .axis_style(GRAY)
        .label_style(canvas::text(12, GRAY))
        .x_label_formatter(&|nanoseconds| time(*nanoseconds))
        .y_labels(0)
        .disable_y_mesh()
        .draw()?;
    for (row, (router, miss, hit)) in rows.iter().enumerate() {
        let y = row as f64 + 0.5;
        let color = color(router);
        let at = |nanoseconds: f64| (nanoseconds.clamp(LEAST, MOST), y);
        let beside = |color, side| beside(13, color, side);
        chart.draw_series(std::iter::once(
            EmptyElement::at(at(LEAST))
                + Text::new(label(router), (-10, 0), beside(BLACK, HPos::Right)),
        ))?;
        let figures = format!("{:.0} / {:.0}", miss.median, hit.median);
        chart.draw_series(std::iter::once(
            EmptyElement::at(at(MOST)) + Text::new(figures, (10, 0), beside(GRAY, HPos::Left)),
        ))?;
        for (added, style) in [(hit, color.stroke_width(2)), (miss, color.filled())] {
            let whisker = [added.low, added.high].map(at);
            let whisker = PathElement::new(whisker, color.stroke_width(1));
            chart.draw_series(std::iter::once(whisker))?;
            chart.draw_series(std::iter::once(Circle::new(at(added.median), 5, style)))?;
        }
    }
    area.present()
}

fn is_shown(router: &Router) -> bool {
    let costs_nothing = router.rules == 0 && router.way != Way::Empty.name();
    router.nat && SHOWN.contains(&router.rules) && !costs_nothing
}

fn label(router: &Router) -> String {
    match router.rules {
        0 => router.way.clone(),
        1 => format!("{}, 1 rule", router.way),
        rules => format!("{}, {} rules", router.way, thousands(rules)),
    }
}

fn color(router: &Router) -> RGBColor {
    match router.way.split([' ', ',']).next() {
        Some("ours") => BLUE,
        Some("nft") => GREEN,
        Some("iptables-legacy") => ORANGE,
        Some("iptables-nft") => PURPLE,
        _ => GRAY,
    }
}
