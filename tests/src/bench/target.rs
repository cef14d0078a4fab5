//! What a benchmark is asked for, and what came of it.

use serde_json::{Value, json};

/// A figure, and what it must not exceed.
pub struct Target {
    /// What is measured.
    pub what: &'static str,
    /// In this unit.
    pub limit: f64,
    /// Likewise; none if it was not measured.
    pub measured: Option<f64>,
    /// As it stands behind a number, with the space before it.
    pub unit: &'static str,
}

impl Target {
    fn is_met(&self) -> Option<bool> {
        self.measured.map(|measured| measured <= self.limit)
    }

    /// For people, in a line.
    #[must_use]
    pub fn said(&self) -> String {
        let Self {
            what, limit, unit, ..
        } = self;
        let verdict = match self.is_met() {
            Some(true) => "met",
            Some(false) => "NOT met",
            None => return format!("not measured: {what}"),
        };
        let measured = self.measured.unwrap_or_default();
        format!("{verdict}: {what} ≤ {limit}{unit}: {measured:.2}{unit}")
    }

    /// For machines.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "target": self.what, "limit": self.limit, "unit": self.unit.trim(),
            "measured": self.measured.map(|value| (value * 1000.0).round() / 1000.0),
            "met": self.is_met(),
        })
    }
}
