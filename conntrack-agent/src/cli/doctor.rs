//! The `doctor` command: prints the checks' findings, as text or JSON.

use super::{
    exit::{Failed, Status},
    output::Output,
    terminal::printable,
};
use crate::doctor::{Finding, Verdict};

/// The maximum number of places that the text names for one finding; JSON has them all.
const PLACES: usize = 4;

/// Prints findings, and fails if any is `wrong`.
pub(super) fn show(output: &mut Output<'_>, findings: &[Finding]) -> Result<(), Failed> {
    output.resource(findings, |output| output.lines(&lines(findings)))?;
    match count(findings, Verdict::Wrong) {
        0 => Ok(()),
        wrong => Err(Failed(
            Status::Failure,
            anyhow::anyhow!("{wrong} of {} findings are wrong", findings.len()),
        )),
    }
}

fn count(findings: &[Finding], result: Verdict) -> usize {
    let results = findings.iter().map(|finding| finding.result);
    results.filter(|other| *other == result).count()
}

const fn word(result: Verdict) -> &'static str {
    match result {
        Verdict::Ok => "ok",
        Verdict::Warn => "warn",
        Verdict::Wrong => "WRONG",
        Verdict::Unknown => "unknown",
    }
}

/// Formats findings, each in a line with its remedy beneath it. Findings that differ only
/// in their place share a line: a host can have a thousand routers.
fn lines(findings: &[Finding]) -> Vec<String> {
    let mut lines = Vec::new();
    for (finding, places) in grouped(findings) {
        let Finding {
            check,
            result,
            what,
            remedy,
            ..
        } = finding;
        let place = match places.len().checked_sub(PLACES) {
            _ if places.is_empty() => String::new(),
            None | Some(0) => format!(" [{}]", places.join(", ")),
            Some(more) => format!(" [{}, and {more} more]", places[..PLACES].join(", ")),
        };
        let line = format!("{:<7}  {check}: {what}{place}", word(*result));
        lines.push(printable(&line).into_owned());
        if let Some(remedy) = remedy {
            lines.push(printable(&format!("         remedy: {remedy}")).into_owned());
        }
    }
    let [ok, warn, wrong, unknown] = [Verdict::Ok, Verdict::Warn, Verdict::Wrong, Verdict::Unknown]
        .map(|result| count(findings, result));
    lines.push(format!(
        "{ok} ok, {warn} warnings, {wrong} wrong, {unknown} unknown"
    ));
    lines
}

/// Groups findings that differ only in their place, in the order of the first of each
/// group.
fn grouped(findings: &[Finding]) -> Vec<(&Finding, Vec<&str>)> {
    let mut groups: Vec<(&Finding, Vec<&str>)> = Vec::new();
    for finding in findings {
        let is_same = |(first, _): &&mut (&Finding, Vec<&str>)| {
            let Finding {
                check,
                place: _,
                result,
                what,
                remedy,
            } = finding;
            (first.check, first.result) == (check, *result)
                && first.what == *what
                && first.remedy == *remedy
        };
        let place = finding.place.as_deref();
        match groups.iter_mut().find(is_same) {
            Some((_, places)) => places.extend(place),
            None => groups.push((finding, place.into_iter().collect())),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::OutputFormat;

    fn finding(result: Verdict, place: Option<&str>, remedy: Option<&str>) -> Finding {
        Finding {
            check: "marks",
            place: place.map(str::to_owned),
            result,
            what: "so it is".into(),
            remedy: remedy.map(str::to_owned),
        }
    }

    fn show_them(format: OutputFormat, findings: &[Finding]) -> (bool, String) {
        let mut text = Vec::new();
        let mut output = Output::new(&mut text, None);
        output.format = format;
        let done = show(&mut output, findings);
        (done.is_ok(), String::from_utf8(text).unwrap())
    }

    #[test]
    fn a_finding_is_a_line_and_its_remedy_another() {
        let findings = [
            finding(Verdict::Ok, None, None),
            finding(Verdict::Warn, Some("here"), Some("do it")),
            finding(Verdict::Unknown, Some("there"), None),
        ];
        let expected = "ok       marks: so it is\n\
                        warn     marks: so it is [here]\n         \
                        remedy: do it\n\
                        unknown  marks: so it is [there]\n\
                        1 ok, 1 warnings, 0 wrong, 1 unknown\n";
        let shown = show_them(OutputFormat::Table, &findings);
        assert_eq!(shown, (true, expected.into()));
    }

    #[test]
    fn what_is_wrong_is_a_failure_and_is_shown_all_the_same() {
        let findings = [finding(Verdict::Wrong, Some("here"), Some("do it"))];
        let (is_good, text) = show_them(OutputFormat::Table, &findings);
        assert!(!is_good);
        let line = "WRONG    marks: so it is [here]\n";
        assert!(text.starts_with(line), "{text}");
        let (is_good, json) = show_them(OutputFormat::Json, &findings);
        assert!(!is_good);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let expected = serde_json::json!([{
            "check": "marks", "place": "here", "result": "wrong",
            "what": "so it is", "remedy": "do it",
        }]);
        assert_eq!(json, expected);
    }

    #[test]
    fn what_differs_in_its_place_alone_is_one_line() {
        let at = |number| finding(Verdict::Ok, Some(&format!("ns-{number}")), None);
        let findings: Vec<_> = (0..10).map(at).collect();
        let (_, all) = show_them(OutputFormat::Table, &findings);
        let expected = "ok       marks: so it is [ns-0, ns-1, ns-2, ns-3, and 6 more]\n\
                        10 ok, 0 warnings, 0 wrong, 0 unknown\n";
        assert_eq!(all, expected);
        let (_, four) = show_them(OutputFormat::Table, &findings[..4]);
        assert!(four.contains("ns-3]\n"), "{four}");
    }

    #[test]
    fn what_others_named_is_no_command_to_a_terminal() {
        let findings = [finding(Verdict::Warn, Some("a\u{1b}[2J"), Some("b\u{7}"))];
        let (_, text) = show_them(OutputFormat::Table, &findings);
        let is_control = |character: char| character != '\n' && character.is_control();
        assert!(!text.contains(is_control), "{text:?}");
    }
}
