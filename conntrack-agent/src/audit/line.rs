//! Formats events as lines of bounded size, with control characters escaped.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::AuditRecord;
use crate::{access::Principal, model::HelperRule};

/// The maximum number of routers, of rules before and of rules after that an event lists; of
/// further ones it has only the count.
const MOST_LISTED: usize = 100;

/// The maximum length of a recorded reason, in bytes.
const LONGEST_REASON: usize = 1024;

/// The maximum length of a line, in bytes: 300 routers and rules of at most 200 bytes, and
/// two texts.
pub(super) const LONGEST_LINE: u64 = 64 << 10;

/// One line of the trail.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    time: String,
    #[serde(flatten)]
    what: What,
}

/// The content of a line.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum What {
    /// A request.
    Request(Box<RequestLine>),
    /// The count of events that are missing in the trail.
    LeftOut(MissingEntries),
}

/// The fields of a request, which the documentation of [`crate::audit`] describes.
#[derive(Debug, Serialize)]
struct RequestLine {
    request: String,
    peer: Principal,
    operation: &'static str,
    routers: Vec<String>,
    router_count: usize,
    before: Vec<HelperRule>,
    before_count: usize,
    after: Vec<HelperRule>,
    after_count: usize,
    outcome: &'static str,
    reason: Option<String>,
    took_us: u64,
}

/// The counts of events that are missing in the trail.
#[derive(Debug, Serialize)]
pub(super) struct MissingEntries {
    since: String,
    refusals: u64,
    unwritten: u64,
}

/// The severity of a line, as a priority of syslog(3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Severity {
    Error = 3,
    Warning = 4,
    Notice = 5,
}

impl Line {
    /// Returns the line of a request.
    pub(super) fn request(event: &AuditRecord, time: SystemTime) -> Self {
        let routers = event.routers.iter().take(MOST_LISTED);
        let request = RequestLine {
            request: event.request.to_string(),
            peer: event.peer.clone(),
            operation: event.operation.name(),
            routers: routers.map(ToString::to_string).collect(),
            router_count: event.routers.len(),
            before: listed(&event.before),
            before_count: event.before.len(),
            after: listed(&event.after),
            after_count: event.after.len(),
            outcome: event.outcome.word(),
            reason: event
                .outcome
                .reason()
                .map(|reason| harmless(reason, LONGEST_REASON)),
            took_us: u64::try_from(event.took.as_micros()).unwrap_or(u64::MAX),
        };
        Self {
            time: text(time),
            what: What::Request(Box::new(request)),
        }
    }

    /// Returns the line that counts the missing events since a time.
    pub(super) fn left_out(
        since: SystemTime,
        refusals: u64,
        unwritten: u64,
        time: SystemTime,
    ) -> Self {
        Self {
            time: text(time),
            what: What::LeftOut(MissingEntries {
                since: text(since),
                refusals,
                unwritten,
            }),
        }
    }

    /// Returns the line's summary for a person.
    pub(super) fn sentence(&self) -> String {
        match &self.what {
            What::Request(request) => {
                let RequestLine {
                    operation,
                    peer,
                    outcome,
                    ..
                } = &**request;
                let outcome = outcome.replace('_', " ");
                let mut sentence = format!("{operation} by {peer}: {outcome}");
                if let Some(reason) = &request.reason {
                    sentence.push_str(": ");
                    sentence.push_str(reason);
                }
                sentence
            }
            What::LeftOut(missing) => format!(
                "since {} {} refusals were left out and {} events could not be written",
                missing.since, missing.refusals, missing.unwritten
            ),
        }
    }

    /// Returns the severity of the line.
    pub(super) fn severity(&self) -> Severity {
        match &self.what {
            What::Request(request) => match request.outcome {
                "done" => Severity::Notice,
                "failed" => Severity::Error,
                _ => Severity::Warning,
            },
            What::LeftOut(missing) if missing.unwritten > 0 => Severity::Error,
            What::LeftOut(_) => Severity::Warning,
        }
    }
}

/// Returns the first rules.
fn listed(rules: &[HelperRule]) -> Vec<HelperRule> {
    rules.iter().take(MOST_LISTED).copied().collect()
}

/// Escapes the control and formatting characters of a text, so that it can't overwrite other
/// lines of a terminal, and cuts it off after `most` bytes.
fn harmless(text: &str, most: usize) -> String {
    const CUT: char = '…';
    let mut harmless = String::new();
    for character in text.chars() {
        let before = harmless.len();
        if matches!(character, '"' | '\'' | '\\') {
            harmless.push(character);
        } else {
            harmless.extend(character.escape_debug());
        }
        if harmless.len() > most {
            harmless.truncate(before);
            harmless.push(CUT);
            break;
        }
    }
    harmless
}

/// Formats a time by RFC 3339, in UTC with milliseconds. A time before 1970 or after 9999
/// becomes the nearest one that the format allows.
fn text(time: SystemTime) -> String {
    const LAST: Duration = Duration::from_secs(253_402_300_799);
    let time = time.clamp(UNIX_EPOCH, UNIX_EPOCH + LAST);
    humantime::format_rfc3339_millis(time).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Outcome;
    use super::*;
    use crate::access::TokenName;
    use crate::audit::testing::{event, rule, time};

    fn value(event: &AuditRecord) -> serde_json::Value {
        serde_json::to_value(Line::request(event, time())).unwrap()
    }

    #[test]
    fn a_request_has_all_fields_in_their_order() {
        let mut event = event(Outcome::Done);
        event.after.push(rule(21));
        event.took = Duration::from_micros(1234);
        let line = serde_json::to_string(&Line::request(&event, time())).unwrap();
        let id = event.after[0].id;
        let expected = format!(
            "{{\"time\":\"2027-01-15T08:00:00.000Z\",\"event\":\"request\",\"request\":\"{}\",\
             \"peer\":{{\"kind\":\"local\",\"pid\":7,\"uid\":1000,\"gid\":100}},\
             \"operation\":\"create\",\
             \"routers\":[\"6ab1c2d3-0a1b-4c2d-8e3f-0123456789ab\"],\"router_count\":1,\
             \"before\":[],\"before_count\":0,\
             \"after\":[{{\"id\":\"{id}\",\"router_id\":\"6ab1c2d3-0a1b-4c2d-8e3f-0123456789ab\",\
             \"protocol\":\"tcp\",\"port\":21,\"helper\":\"ftp\",\"origin\":\"api\"}}],\
             \"after_count\":1,\"outcome\":\"done\",\"reason\":null,\"took_us\":1234}}",
            event.request
        );
        assert_eq!(line, expected);
    }

    #[test]
    fn outcomes_have_names_and_reasons() {
        let reason = || "because".to_owned();
        for (outcome, name, reason, severity) in [
            (Outcome::Done, "done", None, Severity::Notice),
            (
                Outcome::NotAllowed(reason()),
                "not_allowed",
                Some("because"),
                Severity::Warning,
            ),
            (
                Outcome::Refused(reason()),
                "refused",
                Some("because"),
                Severity::Warning,
            ),
            (
                Outcome::Failed(reason()),
                "failed",
                Some("because"),
                Severity::Error,
            ),
        ] {
            let event = event(outcome);
            let value = value(&event);
            assert_eq!(value["outcome"], name);
            assert_eq!(value["reason"], json!(reason));
            let line = Line::request(&event, time());
            assert_eq!(line.severity(), severity);
            assert_eq!(
                line.sentence().ends_with("because"),
                reason.is_some(),
                "{}",
                line.sentence()
            );
        }
    }

    #[test]
    fn of_a_peer_it_has_who_it_is_and_nothing_else() {
        let mut event = event(Outcome::Done);
        for (peer, expected) in [
            (
                Principal::Token {
                    name: TokenName::new("neutron").unwrap(),
                },
                json!({"kind": "token", "name": "neutron"}),
            ),
            (
                Principal::Unknown {
                    address: ([127, 0, 0, 1], 5).into(),
                },
                json!({"kind": "unknown", "address": "127.0.0.1:5"}),
            ),
            (Principal::RulesFile, json!({"kind": "rules_file"})),
        ] {
            event.peer = peer;
            assert_eq!(value(&event)["peer"], expected);
        }
    }

    #[test]
    fn what_is_left_out_is_counted() {
        let since = time() - Duration::from_millis(1500);
        let line = Line::left_out(since, 3, 0, time());
        assert_eq!(
            serde_json::to_string(&line).unwrap(),
            "{\"time\":\"2027-01-15T08:00:00.000Z\",\"event\":\"left_out\",\
             \"since\":\"2027-01-15T07:59:58.500Z\",\"refusals\":3,\"unwritten\":0}"
        );
        assert_eq!(line.severity(), Severity::Warning);
        assert_eq!(
            Line::left_out(since, 3, 1, time()).severity(),
            Severity::Error
        );
    }

    #[test]
    fn a_bulk_change_lists_its_first_rules_and_counts_all() {
        let mut event = event(Outcome::Refused("\\\"".repeat(1 << 20)));
        event.peer = Principal::Token {
            name: TokenName::new(&"a".repeat(32)).unwrap(),
        };
        event.before = (1..=10_000).map(rule).collect();
        event.after = (1..=100).map(rule).collect();
        event.routers = vec![rule(1).target.router; 10_000];
        let value = value(&event);
        let length = |field: &str| value[field].as_array().unwrap().len();
        assert_eq!((length("before"), length("after")), (100, 100));
        assert_eq!(value["before"][99]["port"], 100);
        assert_eq!(value["before_count"], 10_000);
        assert_eq!(value["after_count"], 100);
        assert_eq!(
            (length("routers"), &value["router_count"]),
            (100, &json!(10_000))
        );
        let line = serde_json::to_vec(&Line::request(&event, time())).unwrap();
        assert!((line.len() as u64) < LONGEST_LINE, "{}", line.len());
    }

    #[test]
    fn text_from_outside_is_cut_off_between_characters() {
        assert_eq!(harmless("four", 4), "four");
        assert_eq!(harmless("fives", 4), "five…");
        assert_eq!(harmless("1ääää", 4), "1ä…");
        assert_eq!(harmless("", 4), "");
        let event = event(Outcome::Refused("x".repeat(1 << 20)));
        let reason = value(&event)["reason"].as_str().unwrap().to_owned();
        assert_eq!(reason, "x".repeat(1024) + "…");
    }

    #[test]
    fn text_from_outside_has_no_control_characters() {
        assert_eq!(harmless("\"it's\" a\\b", 99), "\"it's\" a\\b");
        let hostile = "a\n{\"event\":\"request\"}\r\u{1b}[2J\u{9b}2J\u{7f}\u{202e}\0";
        let event = event(Outcome::Refused(hostile.into()));
        let line = serde_json::to_string(&Line::request(&event, time())).unwrap();
        for forbidden in ['\n', '\r', '\u{1b}', '\u{9b}', '\u{7f}', '\u{202e}', '\0'] {
            assert!(!line.contains(forbidden), "{line:?}");
        }
        assert!(line.contains("u{1b}[2J"), "{line}");
        assert_eq!(value(&event)["outcome"], "refused");
    }

    #[test]
    fn a_clock_that_is_far_off_is_written_as_far_as_it_can_be() {
        let year = Duration::from_hours(366 * 24);
        assert_eq!(text(UNIX_EPOCH - year), "1970-01-01T00:00:00.000Z");
        assert_eq!(text(UNIX_EPOCH + 9000 * year), "9999-12-31T23:59:59.000Z");
        assert_eq!(
            text(UNIX_EPOCH + Duration::from_micros(86_400_001_999)),
            "1970-01-02T00:00:00.001Z"
        );
    }
}
