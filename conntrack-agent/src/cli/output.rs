//! Writes what commands print: to stdout as text or JSON, with control characters
//! escaped.

use std::io::Write;

use anyhow::Context as _;
use serde::Serialize;

use super::{
    exit::Failed,
    table::{Column, Row, Table, details},
    terminal::Terminal,
};

/// The form of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum OutputFormat {
    /// For people.
    Table,
    /// For programs: the API's own resources.
    Json,
}

/// stdout, and what is known about who reads it.
pub(super) struct Output<'a> {
    to: &'a mut dyn Write,
    pub(super) terminal: Option<Terminal>,
    /// The form of the data that was asked for.
    pub(super) format: OutputFormat,
}

impl<'a> Output<'a> {
    pub(super) fn new(to: &'a mut dyn Write, terminal: Option<Terminal>) -> Self {
        let format = OutputFormat::Table;
        Self {
            to,
            terminal,
            format,
        }
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

    /// Writes one or several resources in the form that was asked for: as JSON, or with
    /// this function.
    pub(super) fn resource<T: Serialize + ?Sized>(
        &mut self,
        value: &T,
        for_people: impl FnOnce(&mut Self) -> Result<(), Failed>,
    ) -> Result<(), Failed> {
        match self.format {
            OutputFormat::Json => self.json(value),
            OutputFormat::Table => for_people(self),
        }
    }

    /// Writes one or several resources as JSON, in the API's form.
    pub(super) fn json<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Failed> {
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
