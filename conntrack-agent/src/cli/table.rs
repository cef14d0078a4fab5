//! Formats tables: a header and aligned columns, never truncated.
//!
//! Text that doesn't fit the terminal goes beneath its row. Ids are the reason: two of
//! them fill most of a usual terminal, and half an id is useless.

use comfy_table::{
    Cell, Color, ColumnConstraint, ContentArrangement, Table as Grid, Width, presets,
};

use super::terminal::{Terminal, printable};

/// The number of spaces between two columns.
const GAP: u16 = 2;

/// The smallest width to which text is folded: a namespace's name, which holds an id,
/// fits into it. In a narrower terminal, lines are longer than the terminal is wide.
const LEAST_TEXT: u16 = 48;

/// The placeholder for an empty cell, so that each line has the same number of words.
const NOTHING: &str = "-";

/// A column with its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    /// A column of short text, which is always part of the row.
    Fixed(&'static str),
    /// A fixed column that is coloured by its content.
    State(&'static str),
    /// A column of text of any length; it comes after all others.
    Text(&'static str),
}

impl Column {
    const fn header(self) -> &'static str {
        match self {
            Self::Fixed(header) | Self::State(header) | Self::Text(header) => header,
        }
    }

    const fn is_text(self) -> bool {
        matches!(self, Self::Text(_))
    }
}

/// The cells of a row, one for each column.
pub(super) type Row = Vec<String>;

/// A table to be printed.
pub(super) struct Table<'a> {
    pub(super) columns: &'a [Column],
    pub(super) rows: &'a [Row],
}

impl Table<'_> {
    /// Returns the table's lines, no longer than needed and no wider than the terminal.
    pub(super) fn lines(&self, terminal: Option<Terminal>) -> Vec<String> {
        let colours = terminal.is_some_and(|terminal| terminal.colours);
        let narrow = terminal.filter(|terminal| self.width(self.columns) > terminal.width.into());
        let Some(terminal) = narrow else {
            return lines(&self.grid(self.columns, colours));
        };
        // The header's line first, then one for each row.
        let rows = std::iter::once(None).chain(self.rows.iter().map(Some));
        let grid = lines(&self.grid(&self.fixed(), colours)).into_iter();
        let mut text = Vec::new();
        for (line, row) in grid.zip(rows) {
            text.push(line);
            let cells = row.into_iter().flat_map(|row| self.columns.iter().zip(row));
            let notes = cells.filter(|(column, cell)| column.is_text() && !cell.is_empty());
            for (column, cell) in notes {
                let note = format!("{}: {}", column.header().to_lowercase(), printable(cell));
                text.extend(folded("    ", &note, terminal.width));
            }
        }
        text
    }

    /// Returns the width of the fixed columns, in characters.
    pub(super) fn least_width(&self) -> usize {
        self.width(&self.fixed())
    }

    fn fixed(&self) -> Vec<Column> {
        let fixed = self.columns.iter().filter(|column| !column.is_text());
        fixed.copied().collect()
    }

    fn width(&self, columns: &[Column]) -> usize {
        let widths = columns.iter().map(|column| {
            let place = self.columns.iter().position(|other| other == column);
            let cells = self.rows.iter().filter_map(|row| row.get(place?));
            let widths = cells.map(|cell| printable(cell).chars().count());
            widths.fold(column.header().len(), usize::max)
        });
        widths.sum::<usize>() + usize::from(GAP) * columns.len().saturating_sub(1)
    }

    fn grid(&self, columns: &[Column], colours: bool) -> Grid {
        let mut grid = bare();
        grid.set_header(columns.iter().map(|column| column.header()));
        if colours {
            grid.enforce_styling().style_text_only();
        }
        for row in self.rows {
            let cells = self.columns.iter().zip(row);
            let shown = cells.filter(|(column, _)| columns.contains(column));
            grid.add_row(shown.map(|(column, text)| {
                let text = if text.is_empty() { NOTHING } else { text };
                let cell = Cell::new(printable(text));
                match (column, colour(text)) {
                    (Column::State(_), Some(colour)) => cell.fg(colour),
                    _ => cell,
                }
            }));
        }
        apart(&mut grid);
        grid
    }
}

/// Formats the fields of a resource, each with its name and values.
pub(super) fn details(fields: &[(&str, Vec<String>)], terminal: Option<Terminal>) -> Vec<String> {
    let mut grid = bare();
    for (name, values) in fields {
        let lines: Vec<_> = values.iter().map(|value| printable(value)).collect();
        let text = lines.join("\n");
        grid.add_row([*name, if text.is_empty() { NOTHING } else { &text }]);
    }
    apart(&mut grid);
    let longest = fields.iter().map(|(name, _)| name.len()).max();
    if let Some(terminal) = terminal {
        let names = u16::try_from(longest.unwrap_or(0)).unwrap_or(u16::MAX);
        let left = terminal.width.saturating_sub(names.saturating_add(GAP));
        fold(&mut grid, 1, left);
    }
    lines(&grid)
}

/// Folds text into indented lines that are at most `width` wide, indent included.
fn folded(indent: &str, text: &str, width: u16) -> Vec<String> {
    let mut grid = bare();
    grid.add_row([text]);
    apart(&mut grid);
    let indented = u16::try_from(indent.len()).unwrap_or(u16::MAX);
    fold(&mut grid, 0, width.saturating_sub(indented));
    let lines = lines(&grid).into_iter();
    lines.map(|line| format!("{indent}{line}")).collect()
}

/// Returns a grid of cells without borders, which doesn't query the terminal.
fn bare() -> Grid {
    let mut grid = Grid::new();
    grid.load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .force_no_tty();
    grid
}

/// Sets the space between columns; columns exist only once there is a row.
fn apart(grid: &mut Grid) {
    let last = grid.column_count().saturating_sub(1);
    for (index, column) in grid.column_iter_mut().enumerate() {
        column.set_padding((0, if index == last { 0 } else { GAP }));
    }
}

/// Folds a column at its spaces.
fn fold(grid: &mut Grid, column: usize, width: u16) {
    let width = width.max(LEAST_TEXT);
    if let Some(column) = grid.column_mut(column) {
        column.set_constraint(ColumnConstraint::UpperBoundary(Width::Fixed(width)));
    }
}

fn lines(grid: &Grid) -> Vec<String> {
    grid.lines()
        .map(|line| line.trim_end().to_owned())
        .collect()
}

fn colour(state: &str) -> Option<Color> {
    match state {
        "active" | "ACTIVE" => Some(Color::Green),
        "pending" | "PENDING" | "shadowed" => Some(Color::Yellow),
        "failed" | "ERROR" => Some(Color::Red),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [
        Column::Fixed("ID"),
        Column::State("STATUS"),
        Column::Text("REASON"),
    ];

    fn rows() -> Vec<Row> {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        vec![
            row(["1", "active", ""]),
            row([
                "22222",
                "failed",
                "nft says that it knows no such helper as that one, so there",
            ]),
        ]
    }

    fn shown(width: u16) -> Vec<String> {
        let (columns, rows) = (&COLUMNS[..], &rows()[..]);
        let colours = false;
        Table { columns, rows }.lines(Some(Terminal { width, colours }))
    }

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let wide = [
            "ID     STATUS  REASON",
            "1      active  -",
            "22222  failed  nft says that it knows no such helper as that one, so there",
        ];
        let (columns, rows) = (&COLUMNS[..], &rows()[..]);
        assert_eq!(Table { columns, rows }.lines(None), wide);
        let width = u16::try_from(wide[2].len()).unwrap();
        assert_eq!(shown(width), wide, "it just fits");
        assert_ne!(shown(width - 1), wide);
    }

    #[test]
    fn text_that_does_not_fit_goes_beneath_its_row_and_is_folded() {
        let narrow = [
            "ID     STATUS",
            "1      active",
            "22222  failed",
            "    reason: nft says that it knows no such helper as",
            "    that one, so there",
        ];
        assert_eq!(shown(52), narrow);
        assert_eq!(shown(1), narrow, "it gets no narrower than an id");
    }

    #[test]
    fn an_empty_table_is_its_header() {
        let (columns, rows) = (&COLUMNS[..], &[][..]);
        assert_eq!(Table { columns, rows }.lines(None), ["ID  STATUS  REASON"]);
    }

    #[test]
    fn states_are_coloured_where_that_is_wanted() {
        let (columns, rows) = (&COLUMNS[..], &rows()[..]);
        let lines = |colours| {
            let terminal = Terminal {
                width: 200,
                colours,
            };
            Table { columns, rows }.lines(Some(terminal))
        };
        assert!(lines(false).iter().all(|line| !line.contains('\u{1b}')));
        let is_coloured = |line: String| line.contains('\u{1b}');
        let coloured: Vec<_> = lines(true).into_iter().map(is_coloured).collect();
        assert_eq!(coloured, [false, true, true]);
    }

    #[test]
    fn details_are_a_line_each() {
        let fields = [
            ("id", vec!["1".to_owned()]),
            ("reason", vec![]),
            ("namespaces", vec!["a".to_owned(), "b".to_owned()]),
        ];
        let lines = [
            "id          1",
            "reason      -",
            "namespaces  a",
            "            b",
        ];
        assert_eq!(details(&fields, None), lines);
        let (width, colours) = (80, false);
        assert_eq!(details(&fields, Some(Terminal { width, colours })), lines);
    }
}
