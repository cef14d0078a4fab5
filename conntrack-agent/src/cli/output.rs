//! Writes what commands print: to stdout as text or JSON, with control characters
//! escaped.

use std::{
    borrow::Cow,
    ffi::OsStr,
    io::{self, IsTerminal as _, Write},
};

use anyhow::Context as _;
use serde::Serialize;

use super::{
    exit::Failed,
    table::{Column, Row, Table, details},
};

/// The form of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum OutputFormat {
    /// For people.
    Table,
    /// For programs: the API's own resources.
    Json,
}

/// The terminal that the output goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Terminal {
    /// The width in columns.
    pub(super) width: u16,
    /// Whether the output is coloured.
    pub(super) colours: bool,
}

impl Terminal {
    /// Returns the terminal of stdout, if stdout is one.
    pub(super) fn of_stdout() -> Option<Self> {
        /// The width assumed for a terminal that doesn't report one.
        const USUAL_WIDTH: u16 = 80;
        if !io::stdout().is_terminal() {
            return None;
        }
        let width = comfy_table::Table::new().width().filter(|width| *width > 0);
        let variable = |name| std::env::var_os(name);
        Some(Self {
            width: width.unwrap_or(USUAL_WIDTH),
            colours: colours(variable("NO_COLOR").as_deref(), variable("TERM").as_deref()),
        })
    }
}

/// Returns whether the output is coloured, by these environment variables. `NO_COLOR`
/// counts if it is set and not empty (<https://no-color.org>).
fn colours(no_color: Option<&OsStr>, term: Option<&OsStr>) -> bool {
    no_color.is_none_or(OsStr::is_empty) && term.is_none_or(|term| term != "dumb")
}

/// The output: stdout, and the terminal that it may be.
pub(super) struct Output<'a> {
    to: &'a mut dyn Write,
    terminal: Option<Terminal>,
}

impl<'a> Output<'a> {
    pub(super) fn new(to: &'a mut dyn Write, terminal: Option<Terminal>) -> Self {
        Self { to, terminal }
    }

    /// Writes text as it is, without adding a line end.
    pub(super) fn text(&mut self, text: &str) -> Result<(), Failed> {
        self.bytes(text.as_bytes())
    }

    /// Writes text that is given as bytes.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failed> {
        self.to
            .write_all(bytes)
            .and_then(|()| self.to.flush())
            .context("stdout cannot be written")?;
        Ok(())
    }

    /// Writes lines in one piece.
    pub(super) fn lines(&mut self, lines: &[String]) -> Result<(), Failed> {
        let mut text = lines.join("\n");
        if !lines.is_empty() {
            text.push('\n');
        }
        self.text(&text)
    }

    /// Writes a line.
    pub(super) fn line(&mut self, line: impl std::fmt::Display) -> Result<(), Failed> {
        self.text(&format!("{line}\n"))
    }

    /// Writes one or several resources as JSON, in the API's form.
    pub(super) fn json(&mut self, value: &impl Serialize) -> Result<(), Failed> {
        let text = serde_json::to_string_pretty(value).context("the data make no JSON")?;
        self.line(text)
    }

    /// Writes a table, at most as wide as the terminal.
    pub(super) fn table(&mut self, columns: &[Column], rows: &[Row]) -> Result<(), Failed> {
        let lines = Table { columns, rows }.lines(self.terminal);
        self.lines(&lines)
    }

    /// Writes the fields of a resource.
    pub(super) fn details(&mut self, fields: &[(&str, Vec<String>)]) -> Result<(), Failed> {
        self.lines(&details(fields, self.terminal))
    }

    /// Returns whether a table with these columns is wider than the terminal.
    pub(super) fn overflows(&self, columns: &[Column], rows: &[Row]) -> bool {
        self.terminal.is_some_and(|terminal| {
            Table { columns, rows }.least_width() > usize::from(terminal.width)
        })
    }
}

/// Escapes characters in foreign text that a terminal would act on.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().any(is_active) {
        let escaped = |character: char| -> String {
            if is_active(character) {
                character.escape_unicode().to_string()
            } else {
                character.into()
            }
        };
        text.chars().map(escaped).collect::<String>().into()
    } else {
        text.into()
    }
}

/// Returns whether a character is a control character, or changes the direction of the
/// text that follows (Unicode, UAX 9: explicit directional formatting).
fn is_active(character: char) -> bool {
    character.is_control() || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_wanted_unless_the_environment_says_otherwise() {
        let wanted = |no_color: Option<&str>, term: Option<&str>| {
            colours(no_color.map(OsStr::new), term.map(OsStr::new))
        };
        assert!(wanted(None, None));
        assert!(wanted(None, Some("xterm-256color")));
        assert!(wanted(Some(""), Some("xterm")));
        assert!(!wanted(Some("1"), Some("xterm")));
        assert!(!wanted(Some("0"), None), "any value counts");
        assert!(!wanted(None, Some("dumb")));
    }

    #[test]
    fn what_a_terminal_would_obey_is_written_out() {
        for plain in ["", "ftp on tcp port 21", "Müller, 日本"] {
            assert!(matches!(printable(plain), Cow::Borrowed(same) if same == plain));
        }
        for (given, printed) in [
            ("a\u{1b}[2Jb", "a\\u{1b}[2Jb"),
            ("a\nb\tc\0", "a\\u{a}b\\u{9}c\\u{0}"),
            ("\u{7f}\u{9b}", "\\u{7f}\\u{9b}"),
            ("\u{202e}x\u{2069}", "\\u{202e}x\\u{2069}"),
        ] {
            assert_eq!(printable(given), printed);
        }
    }
}
