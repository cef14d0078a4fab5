//! What an operator can set of the audit trail.

use serde::Deserialize;

use super::line::LONGEST_LINE;

/// Where the audit trail goes, and how much of it there may be. There is always
/// one: a change that leaves no trace is what it is there against.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct AuditSettings {
    /// Where it goes.
    pub to: AuditTo,
    /// The largest size of one file, in bytes.
    pub max_bytes: u64,
    /// How many full files are kept beside the one that is written.
    pub keep: u32,
    /// Refusals that are recorded of one peer, a second; the others are counted.
    pub refusals_per_second: u32,
    /// Likewise of all peers together.
    pub refusals_per_second_in_all: u32,
}

/// Where the audit trail goes.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum AuditTo {
    /// `audit.jsonl` in the state folder: a JSON object a line.
    #[default]
    File,
    /// systemd's journal: a field a value.
    Journald,
}

impl Default for AuditSettings {
    fn default() -> Self {
        Self {
            to: AuditTo::default(),
            max_bytes: 10 << 20,
            keep: 9,
            refusals_per_second: 1,
            refusals_per_second_in_all: 10,
        }
    }
}

impl AuditSettings {
    /// What is wrong with each value that is out of its range.
    pub(crate) fn faults(&self) -> impl Iterator<Item = String> {
        [
            ("max_bytes", self.max_bytes, LONGEST_LINE, 1 << 30),
            ("keep", self.keep.into(), 1, 1000),
            (
                "refusals_per_second",
                self.refusals_per_second.into(),
                1,
                1000,
            ),
            (
                "refusals_per_second_in_all",
                self.refusals_per_second_in_all.into(),
                1,
                1000,
            ),
        ]
        .into_iter()
        .filter(|(_, value, least, most)| !(least..=most).contains(&value))
        .map(|(key, value, least, most)| {
            format!("audit.{key} = {value}: {least} to {most} are allowed")
        })
    }
}
