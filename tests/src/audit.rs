//! The audit trail, as a reader finds it.

use std::fs;

use serde_json::Value;

use crate::lab::LabDir;

/// Its text, from the file that is written now.
#[must_use]
pub fn text(lab: &LabDir) -> String {
    fs::read_to_string(lab.state_dir().join("audit.jsonl")).expect("the audit trail")
}

/// Its events.
#[must_use]
pub fn events(lab: &LabDir) -> Vec<Value> {
    let parse =
        |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
    text(lab).lines().map(parse).collect()
}
