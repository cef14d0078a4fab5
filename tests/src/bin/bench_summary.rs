//! `cargo xtask bench summary`: what the benchmarks found last, out of their files.
//!
//! Nothing is measured. Each file says when and where it was made, and from which
//! commit; they need not be of one run.
#![expect(
    clippy::expect_used,
    reason = "files that the benchmarks have written; what can't be read ends it"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::Value;

fn main() -> ExitCode {
    let [folder] = &std::env::args_os().skip(1).collect::<Vec<_>>()[..] else {
        eprintln!("usage: bench_summary FOLDER");
        return ExitCode::from(2);
    };
    for path in files(Path::new(folder)) {
        let text = fs::read_to_string(&path).expect("a benchmark's results");
        let results: Value = serde_json::from_str(&text).expect("JSON");
        println!("{}", summary(&results));
    }
    ExitCode::SUCCESS
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the folder of results");
    let paths = entries.map(|entry| entry.expect("an entry of it").path());
    let is_json = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "json");
    let mut files: Vec<_> = paths.filter(is_json).collect();
    files.sort();
    files
}

/// One benchmark: what it ran on, and each of its targets.
fn summary(results: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("unknown").to_owned();
    let machine = &results["machine"];
    let mut lines = vec![format!(
        "{}: {}, commit {}, Linux {}, {}",
        text(&results["bench"]).to_uppercase(),
        text(&machine["date"]),
        text(&machine["commit"]),
        text(&machine["kernel"]),
        text(&machine["cpu"]),
    )];
    let targets = results["targets"].as_array();
    lines.extend(targets.into_iter().flatten().map(target));
    lines.push(String::new());
    lines.join("\n")
}

fn target(target: &Value) -> String {
    let verdict = match target["met"].as_bool() {
        Some(true) => "met",
        Some(false) => "NOT met",
        None => "not measured",
    };
    let what = target["target"].as_str().unwrap_or("unknown");
    let bound = if target["at_least"] == true {
        "≥"
    } else {
        "≤"
    };
    let unit = target["unit"].as_str().unwrap_or_default();
    let measured = match &target["measured"] {
        Value::Null => String::new(),
        measured => format!(": {measured} {unit}"),
    };
    let line = format!("  {verdict:7}  {what} {bound} {} {unit}", target["limit"]);
    format!("{}{}", line.trim_end(), measured.trim_end())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_target_says_whether_it_is_met() {
        let results = json!({
            "bench": "api",
            "machine": { "date": "2026", "commit": "abc", "kernel": "6.18", "cpu": "some" },
            "targets": [
                { "target": "a change", "limit": 1.0, "unit": "ms", "measured": 0.5, "met": true },
                { "target": "faster", "limit": 100.0, "unit": "times", "measured": 9.0,
                  "met": false, "at_least": true },
                { "target": "more", "limit": 1, "unit": "", "measured": null, "met": null },
            ],
        });
        assert_eq!(
            summary(&results),
            "API: 2026, commit abc, Linux 6.18, some\n  \
             met      a change ≤ 1.0 ms: 0.5 ms\n  \
             NOT met  faster ≥ 100.0 times: 9.0 times\n  \
             not measured  more ≤ 1\n"
        );
    }

    #[test]
    fn results_without_targets_are_named_all_the_same() {
        let said = summary(&json!({ "bench": "x" }));
        assert!(said.starts_with("X: unknown"), "{said}");
    }
}
