//! The two text formats that Prometheus reads.

/// Which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposition {
    /// OpenMetrics 1.0, which Prometheus asks for.
    OpenMetrics,
    /// Prometheus's own, version 0.0.4: for whoever asks for nothing, and for
    /// `promtool check metrics`, which reads no other.
    Prometheus,
}

impl Exposition {
    /// The one that a request's `Accept` asks for.
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

    /// Its `Content-Type`.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// This text in OpenMetrics, in this format.
    pub(super) fn of(self, text: String) -> String {
        match self {
            Self::OpenMetrics => text,
            Self::Prometheus => prometheus(&text),
        }
    }
}

/// OpenMetrics names a family without the suffix that its samples have, and knows
/// units, infos and an end. Samples are the same in both.
fn prometheus(openmetrics: &str) -> String {
    // The help of a family comes before its type, which says how it is named.
    let mut help: Option<(&str, &str)> = None;
    // In one piece: tens of thousands of small ones would leave the heap in holes.
    let mut text = String::with_capacity(openmetrics.len() + openmetrics.len() / 8);
    let mut push = |parts: &[&str]| {
        text.extend(parts.iter().copied());
        text.push('\n');
    };
    for line in openmetrics.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            push(&[line]);
            continue;
        };
        let (keyword, rest) = comment.split_once(' ').unwrap_or((comment, ""));
        let (family, value) = rest.split_once(' ').unwrap_or((rest, ""));
        match keyword {
            "HELP" => help = Some((family, value)),
            "TYPE" => {
                let (suffix, kind) = match value {
                    "counter" => ("_total", "counter"),
                    "info" => ("_info", "gauge"),
                    "unknown" => ("", "untyped"),
                    other => ("", other),
                };
                if let Some((_, value)) = help.take().filter(|(of, _)| *of == family) {
                    push(&["# HELP ", family, suffix, " ", value]);
                }
                push(&["# TYPE ", family, suffix, " ", kind]);
            }
            // UNIT and EOF.
            _ => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
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
        assert_eq!(Exposition::Prometheus.of(openmetrics.to_owned()), expected);
        assert_eq!(
            Exposition::OpenMetrics.of(openmetrics.to_owned()),
            openmetrics
        );
    }
}
