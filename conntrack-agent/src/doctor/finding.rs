//! The finding of a check: a verdict, its place, what was found, and a remedy.

use serde::Serialize;

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Not as it should be, and the agent works.
    Warn,
    /// So that connections don't get the helpers that they should, or the agent
    /// doesn't start.
    Wrong,
    /// It could not be asked.
    Unknown,
}

/// What one check has found in one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check.
    pub check: &'static str,
    /// Where, if not on the whole machine: a namespace, an interface of one, a
    /// folder.
    pub place: Option<String>,
    /// How it is.
    pub result: Verdict,
    /// What was found.
    pub what: String,
    /// What would help, where anything has to.
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
