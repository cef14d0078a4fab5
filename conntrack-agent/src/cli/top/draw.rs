//! Draws one frame of `top`.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Cell, Paragraph, Row, Table, TableState},
};

use super::{
    history::{History, human},
    state::TopState,
};
use crate::{
    cli::terminal::printable,
    resource::{RouterDetail, RuleTraffic},
};

/// The capabilities of the terminal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) colours: bool,
    /// Whether the terminal shows more than ASCII.
    pub(super) blocks: bool,
}

impl Look {
    const fn steps(self) -> &'static [char] {
        if self.blocks {
            &[' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█']
        } else {
            &[' ', '.', ':', '-', '=', '+', '*', '#']
        }
    }

    fn in_colour(self, colour: Color) -> Style {
        if self.colours {
            Style::new().fg(colour)
        } else {
            Style::new()
        }
    }

    /// Returns the style of a state; good states are not highlighted.
    fn state(self, state: &str) -> Style {
        match state {
            "ACTIVE" | "active" => Style::new(),
            "PENDING" | "pending" | "shadowed" => self.in_colour(Color::Yellow),
            _ => self.in_colour(Color::Red).add_modifier(Modifier::BOLD),
        }
    }

    fn count(self, count: u64) -> Span<'static> {
        let style = if count > 0 {
            self.in_colour(Color::Red).add_modifier(Modifier::BOLD)
        } else {
            Style::new()
        };
        Span::styled(count.to_string(), style)
    }
}

/// Draws a frame.
pub(super) fn draw(frame: &mut Frame<'_>, state: &TopState, look: Look) {
    let area = frame.area();
    // News take a quarter of the screen's remaining height.
    let news = (area.height.saturating_sub(6) / 4).clamp(1, 12);
    let [head, body, news, keys] = Layout::vertical([
        Constraint::Length(3),
        Constraint::Min(3),
        Constraint::Length(news + 1),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(heading(state, look)), head);
    match &state.inside {
        None => routers(frame, body, state, look),
        Some(id) => match &state.detail {
            Some(detail) => inside(frame, body, state, detail, look),
            None => frame.render_widget(Paragraph::new(format!("router {id} …")), body),
        },
    }
    frame.render_widget(Paragraph::new(latest(state, news.height, look)), news);
    let text = if state.is_typing {
        format!("filter: {}_  (Enter keeps it, Esc drops it)", state.filter)
    } else if state.inside.is_some() {
        "q quit  Esc back  r now".to_owned()
    } else {
        "q quit  Up/Down select  Enter look into it  s sort  / filter  r now".to_owned()
    };
    let style = Style::new().add_modifier(Modifier::DIM);
    frame.render_widget(Paragraph::new(text).style(style), keys);
}

fn heading(state: &TopState, look: Look) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    match &state.status {
        None => lines.push(Line::raw("conntrack-agent")),
        Some(status) => {
            let seconds = std::time::Duration::from_secs(status.uptime_seconds);
            let uptime = humantime::format_duration(seconds);
            let rules = &status.rules;
            let routers = &status.routers;
            let text = format!(
                "conntrack-agent {}, up {uptime}: {} routers ({} failed, {} pending)",
                status.version, routers.total, routers.failed, routers.pending
            );
            lines.push(Line::raw(printable(&text).into_owned()));
            lines.push(Line::from(vec![
                Span::raw(format!("{} rules: {} active, ", rules.total, rules.active)),
                look.count(rules.degraded as u64),
                Span::raw(" degraded, "),
                look.count(rules.failed as u64),
                Span::raw(format!(
                    " failed, {} pending, {} shadowed",
                    rules.pending, rules.shadowed
                )),
            ]));
        }
    }
    if let Some(why) = &state.away {
        let style = look.in_colour(Color::Red).add_modifier(Modifier::BOLD);
        let text = printable(&format!("waiting for the daemon: {why}")).into_owned();
        lines.push(Line::styled(text, style));
    } else {
        let filter = if state.filter.is_empty() {
            String::new()
        } else {
            format!(", with {:?}", state.filter)
        };
        lines.push(Line::raw(format!("by {}{filter}", state.sort.name())));
    }
    lines
}

/// Returns a right-aligned cell, in which numbers are easier to compare.
fn right(text: &str, width: usize) -> Cell<'static> {
    Cell::new(format!("{text:>width$}"))
}

/// Returns a table of these columns, each a header and its width. A column without a
/// width is as wide as there is room.
fn table<'a>(rows: impl Iterator<Item = Row<'a>>, columns: &[(&str, u16)]) -> Table<'a> {
    let header = columns
        .iter()
        .map(|(name, width)| right(name, usize::from(*width)));
    let widths = columns.iter().map(|(_, width)| match width {
        0 => Constraint::Min(8),
        width => Constraint::Length(*width),
    });
    let bold = Style::new().add_modifier(Modifier::BOLD);
    Table::new(rows, widths).header(Row::new(header).style(bold))
}

fn routers(frame: &mut Frame<'_>, area: Rect, state: &TopState, look: Look) {
    let graph = usize::from(area.width.saturating_sub(71)).clamp(8, 60);
    let shown = state.shown();
    let rows = shown.iter().map(|(router, history)| {
        Row::new([
            Cell::new(router.id.to_string()),
            Cell::new(printable(&router.status).into_owned()).style(look.state(&router.status)),
            right(&router.rules.to_string(), 5),
            right(&human(history.packets()), 6),
            right(&human(history.bytes()), 6),
            Cell::new(Line::from(look.count(router.sums.lacking)).right_aligned()),
            Cell::new(history.graph(graph, look.steps())),
        ])
    });
    // Padded names are those of columns that are aligned to the left.
    let columns = [
        ("ROUTER                              ", 36),
        ("STATUS ", 7),
        ("RULES", 5),
        ("PKT/S", 6),
        ("BYTE/S", 6),
        ("LACK", 4),
        ("OVER TIME", 0),
    ];
    let table =
        table(rows, &columns).row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let selected = (!shown.is_empty()).then(|| state.selected(&shown));
    let mut place = TableState::new().with_selected(selected);
    frame.render_stateful_widget(table, area, &mut place);
}

fn inside(frame: &mut Frame<'_>, area: Rect, state: &TopState, detail: &RouterDetail, look: Look) {
    let mut lines = vec![Line::from(vec![
        Span::raw(format!("router {} ", detail.traffic.id)),
        Span::styled(
            printable(&detail.traffic.status).into_owned(),
            look.state(&detail.traffic.status),
        ),
        Span::raw(match &detail.status_reason {
            Some(why) => format!(": {}", printable(why)),
            None => String::new(),
        }),
    ])];
    lines.extend(detail.namespaces.iter().map(|namespace| {
        let text = format!(
            "{}: {} tracked of {}, {} expected",
            namespace.name,
            known(namespace.tracked),
            known(namespace.tracked_limit),
            known(namespace.expectations)
        );
        Line::raw(printable(&text).into_owned())
    }));
    let wanted = u16::try_from(detail.conntrack_helpers.len()).unwrap_or(u16::MAX);
    let [top, rules, list] = Layout::vertical([
        Constraint::Length(u16::try_from(lines.len()).unwrap_or(3)),
        Constraint::Max(wanted.saturating_add(1)),
        Constraint::Min(2),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(lines), top);

    let graph = usize::from(rules.width.saturating_sub(66)).clamp(8, 80);
    let rows = detail
        .conntrack_helpers
        .iter()
        .map(|RuleTraffic { sums, rule }| {
            let nothing = History::new(*sums, std::time::Instant::now());
            let history = state
                .rule(&rule.protocol, rule.port)
                .filter(|_| rule.status != "shadowed")
                .unwrap_or(&nothing);
            Row::new([
                Cell::new(printable(&format!("{}/{}", rule.protocol, rule.port)).into_owned()),
                Cell::new(printable(&rule.helper).into_owned()),
                Cell::new(printable(&rule.status).into_owned()).style(look.state(&rule.status)),
                right(&known(sums.packets), 9),
                right(&human(history.packets()), 6),
                right(&human(history.bytes()), 6),
                right(&sums.helped.to_string(), 6),
                Cell::new(Line::from(look.count(sums.lacking)).right_aligned()),
                Cell::new(history.graph(graph, look.steps())),
            ])
        });
    let columns = [
        ("RULE     ", 9),
        ("HELPER    ", 10),
        ("STATUS  ", 8),
        ("PACKETS", 9),
        ("PKT/S", 6),
        ("BYTE/S", 6),
        ("HELPED", 6),
        ("LACK", 4),
        ("OVER TIME", 0),
    ];
    frame.render_widget(table(rows, &columns), rules);

    let title = format!(
        "CONNECTIONS WITH A HELPER NOW: {}",
        detail.connections.len()
    );
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let mut lines = vec![Line::styled(title, bold)];
    lines.extend(detail.connections.iter().map(|connection| {
        let text = format!(
            "{} {} {} -> {}",
            connection.helper, connection.protocol, connection.source, connection.destination
        );
        Line::raw(printable(&text).into_owned())
    }));
    frame.render_widget(Paragraph::new(lines), list);
}

/// A count, where it is known.
fn known(count: Option<impl ToString>) -> String {
    count.map_or_else(|| "?".into(), |count| count.to_string())
}

/// Returns the lines of the latest news, the newest at the end.
fn latest(state: &TopState, height: u16, look: Look) -> Vec<Line<'static>> {
    let room = usize::from(height.saturating_sub(1));
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let mut lines = vec![Line::styled("LATELY", bold)];
    let first = state.news.len().saturating_sub(room);
    lines.extend(state.news.iter().skip(first).map(|(text, is_bad)| {
        let style = if *is_bad {
            look.in_colour(Color::Red)
        } else {
            Style::new()
        };
        Line::styled(printable(text).into_owned(), style)
    }));
    lines
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use ratatui::{Terminal, backend::TestBackend};

    use super::*;
    use crate::cli::top::state::tests::{router, sample};

    #[test]
    fn what_the_daemon_says_is_no_command_to_a_terminal() {
        let mut evil = router('a', 1, 0, 0);
        evil.status = "\u{1b}\u{202e}".into();
        let mut state = TopState::new();
        state.take(sample(&[evil]), Instant::now());
        let look = Look {
            colours: false,
            blocks: false,
        };
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal.draw(|frame| draw(frame, &state, look)).unwrap();
        let frame = terminal.backend().to_string();
        assert!(frame.contains("\\u{1b}"), "{frame}");
        assert!(!frame.contains(['\u{1b}', '\u{202e}']), "{frame:?}");
    }
}
