//! Defines the table `[audit]` of the configuration.

use serde::Deserialize;

use super::line::LONGEST_LINE;

/// The destination and the limits of the audit trail. It can't be turned off, so that no
/// change goes unrecorded.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct AuditSettings {
    /// The destination.
    pub to: AuditTo,
    /// The maximum size of one file, in bytes.
    pub max_bytes: u64,
    /// The number of full files that are kept beside the current one.
    pub keep: u32,
    /// The maximum rate of recorded refusals of one peer, per second; further ones are only
    /// counted.
    pub refusals_per_second: u32,
    /// The maximum rate of recorded refusals of all peers together, per second.
    pub refusals_per_second_in_all: u32,
}

/// The destination of the audit trail.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum AuditTo {
    /// The file `audit.jsonl` in the state folder, with one JSON object a line.
    #[default]
    File,
    /// The journal of systemd, with one field for each value.
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
    /// Returns the fault of each value that is out of its range.
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
