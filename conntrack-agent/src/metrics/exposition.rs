//! Encodes metrics in the two text formats that Prometheus reads.

use std::fmt;

/// A text format of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposition {
    /// The format OpenMetrics 1.0, which Prometheus asks for.
    OpenMetrics,
    /// Prometheus's own format, version 0.0.4: for clients that ask for none, and for
    /// `promtool check metrics`, which reads no other.
    Prometheus,
}

impl Exposition {
    /// Returns the format that a request's `Accept` header asks for.
    #[must_use]
    pub fn accepted(accept: &str) -> Self {
        let mut ranges = accept.split(',').map(|range| {
            let kind = range.split(';').next().unwrap_or_default();
            kind.trim().to_ascii_lowercase()
        });
        if ranges.any(|kind| kind == "application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// Returns the format's `Content-Type`.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// A writer that takes OpenMetrics piece by piece and makes one text in either format:
/// for ten thousand rules the text takes megabytes, which should not be in memory twice.
#[derive(Debug)]
pub(super) struct Writer {
    exposition: Exposition,
    text: String,
    /// The line that is not complete yet, if lines are converted.
    line: String,
    /// The family and its help, which comes before its type; only the type tells how the
    /// family is named.
    help: Option<(String, String)>,
}

impl Writer {
    /// Creates a writer with room for a text of this many bytes.
    pub(super) fn new(exposition: Exposition, room: usize) -> Self {
        Self {
            exposition,
            text: String::with_capacity(room),
            line: String::new(),
            help: None,
        }
    }

    /// Returns the whole text.
    pub(super) fn text(self) -> String {
        self.text
    }

    /// Converts a line of OpenMetrics, which names a family without the suffix of its
    /// samples, and has units, infos and an end mark. Samples are the same in both
    /// formats.
    fn take(&mut self, line: &str) {
        let Some(comment) = line.strip_prefix("# ") else {
            return self.push(&[line]);
        };
        let (keyword, rest) = comment.split_once(' ').unwrap_or((comment, ""));
        let (family, value) = rest.split_once(' ').unwrap_or((rest, ""));
        match keyword {
            "HELP" => self.help = Some((family.to_owned(), value.to_owned())),
            "TYPE" => {
                let (suffix, kind) = match value {
                    "counter" => ("_total", "counter"),
                    "info" => ("_info", "gauge"),
                    "unknown" => ("", "untyped"),
                    other => ("", other),
                };
                if let Some((_, help)) = self.help.take().filter(|(of, _)| of == family) {
                    self.push(&["# HELP ", family, suffix, " ", &help]);
                }
                self.push(&["# TYPE ", family, suffix, " ", kind]);
            }
            // Prometheus's format has no UNIT and EOF.
            _ => {}
        }
    }

    fn push(&mut self, parts: &[&str]) {
        self.text.extend(parts.iter().copied());
        self.text.push('\n');
    }
}

impl fmt::Write for Writer {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        if self.exposition == Exposition::OpenMetrics {
            self.text.push_str(piece);
            return Ok(());
        }
        let mut lines = piece.split('\n');
        self.line.push_str(lines.next().unwrap_or_default());
        for begun in lines {
            let line = std::mem::take(&mut self.line);
            self.take(&line);
            self.line = line;
            self.line.clear();
            self.line.push_str(begun);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn who_asks_for_openmetrics_gets_it_and_nobody_else() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.2,*/*;q=0.1";
        assert_eq!(Exposition::accepted(prometheus), Exposition::OpenMetrics);
        for other in ["", "*/*", "text/plain", "application/json"] {
            assert_eq!(Exposition::accepted(other), Exposition::Prometheus);
        }
    }

    #[test]
    fn families_get_the_names_of_their_samples() {
        let openmetrics = "\
# HELP a_build Version.
# TYPE a_build info
a_build_info{version=\"1\"} 1
# HELP a_things Things, by kind.
# TYPE a_things counter
a_things_total{kind=\"x\"} 3
# HELP a_wait_seconds Waits.
# TYPE a_wait_seconds histogram
# UNIT a_wait_seconds seconds
a_wait_seconds_sum 0.5
# EOF
";
        let expected = "\
# HELP a_build_info Version.
# TYPE a_build_info gauge
a_build_info{version=\"1\"} 1
# HELP a_things_total Things, by kind.
# TYPE a_things_total counter
a_things_total{kind=\"x\"} 3
# HELP a_wait_seconds Waits.
# TYPE a_wait_seconds histogram
a_wait_seconds_sum 0.5
";
        // In whichever pieces it comes.
        for length in [1, 7, openmetrics.len()] {
            let written = |exposition| {
                let mut writer = Writer::new(exposition, 0);
                for piece in openmetrics.as_bytes().chunks(length) {
                    writer.write_str(str::from_utf8(piece).unwrap()).unwrap();
                }
                writer.text()
            };
            assert_eq!(written(Exposition::Prometheus), expected);
            assert_eq!(written(Exposition::OpenMetrics), openmetrics);
        }
    }
}
