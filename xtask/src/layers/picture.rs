//! The picture of the layers in ARCHITECTURE.md, which is the table in words.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::table::LayerRow;

const BEGIN: &str = "<!-- layers: written by `cargo xtask layers --write` -->\n";
const END: &str = "<!-- layers: end -->\n";

/// Where the imports begin, and where a line has to end.
const COLUMN: usize = 20;
const WIDTH: usize = 96;

/// The file with the picture.
pub(super) const FILE: &str = "ARCHITECTURE.md";

/// What is wrong with the picture, if something is.
pub(super) fn fault(text: &str, table: &[LayerRow]) -> Option<String> {
    const REWRITE: &str = "`cargo xtask layers --write` rewrites it";
    match drawn(text, table) {
        Some(right) if right == text => None,
        Some(_) => Some(format!(
            "{FILE} shows other layers than the table: {REWRITE}"
        )),
        None => Some(format!(
            "{FILE} lacks the lines around the layers: {BEGIN}{END}"
        )),
    }
}

/// Draws the picture in the file anew.
pub(super) fn write(root: &Path, table: &[LayerRow]) -> Result<()> {
    let file = root.join(FILE);
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {FILE}"))?;
    let text = drawn(&text, table)
        .with_context(|| format!("{FILE} lacks the lines around the layers: {BEGIN}{END}"))?;
    fs::write(&file, text).with_context(|| format!("cannot write {FILE}"))
}

/// The text with the right picture; none if it has no place for one.
fn drawn(text: &str, table: &[LayerRow]) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    let picture: String = table.iter().map(line).collect();
    Some(format!(
        "{before}{BEGIN}\n```\n{picture}```\n\n{END}{after}"
    ))
}

fn line(row: &LayerRow) -> String {
    let mut lines = vec![format!("{:COLUMN$}", row.layer)];
    for (at, name) in row.imports.iter().enumerate() {
        let comma = if at + 1 < row.imports.len() { "," } else { "" };
        let word = format!("{name}{comma} ");
        match lines.last_mut() {
            Some(line) if line.len() + word.len() <= WIDTH => line.push_str(&word),
            _ => lines.push(format!("{:COLUMN$}{word}", "")),
        }
    }
    let lines = lines.iter().map(|line| format!("{}\n", line.trim_end()));
    lines.collect()
}
