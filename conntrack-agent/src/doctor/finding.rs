//! The finding of a check: a verdict, its place, what was found, and a remedy.

use serde::Serialize;

/// The verdict of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// All is as it should be.
    Ok,
    /// Something is not as it should be, but the agent works.
    Warn,
    /// Connections don't get the helpers that they should, or the agent doesn't start.
    Wrong,
    /// The state could not be read.
    Unknown,
}

/// A finding of one check in one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The name of the check.
    pub check: &'static str,
    /// The place, if it is not the whole host: a namespace, an interface in one, a
    /// folder.
    pub place: Option<String>,
    /// The verdict.
    pub result: Verdict,
    /// The description of what was found.
    pub what: String,
    /// The remedy, where one is needed.
    pub remedy: Option<String>,
}

impl Finding {
    fn new(check: &'static str, result: Verdict, what: String, remedy: Option<String>) -> Self {
        Self {
            check,
            place: None,
            result,
            what,
            remedy,
        }
    }

    pub(super) fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self::new(check, Verdict::Ok, what.into(), None)
    }

    pub(super) fn warn(
        check: &'static str,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(check, Verdict::Warn, what.into(), Some(remedy.into()))
    }

    pub(super) fn wrong(
        check: &'static str,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(check, Verdict::Wrong, what.into(), Some(remedy.into()))
    }

    pub(super) fn unknown(check: &'static str, what: impl Into<String>) -> Self {
        Self::new(check, Verdict::Unknown, what.into(), None)
    }

    pub(super) fn at(self, place: impl Into<String>) -> Self {
        Self {
            place: Some(place.into()),
            ..self
        }
    }
}
