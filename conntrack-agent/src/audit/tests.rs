//! The trail as a whole.

use std::{
    io::Write,
    os::unix::{fs::MetadataExt as _, net::UnixDatagram},
    sync::Arc,
    thread,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use tracing_subscriber::fmt::MakeWriter;

use super::*;
use line::LONGEST_LINE;
use testing::{event, rule, time};

fn config() -> AuditSettings {
    AuditSettings {
        refusals_per_second: 1,
        ..AuditSettings::default()
    }
}

fn refused() -> AuditRecord {
    event(Outcome::Refused("too much".into()))
}

fn lines(root: &TempDir) -> Vec<Value> {
    let text = fs::read_to_string(root.path().join("audit.jsonl")).unwrap();
    let parsed = text.lines().map(|line| serde_json::from_str(line).unwrap());
    parsed.collect()
}

/// `request` or `left_out`, of each line.
fn kinds(lines: &[Value]) -> Vec<&str> {
    let kinds = lines.iter().map(|line| line["event"].as_str().unwrap());
    kinds.collect()
}

#[test]
fn events_are_lines_of_a_file_in_the_state_folder() {
    let root = tempfile::tempdir().unwrap();
    let first = event(Outcome::Done);
    let second = refused();
    let auditor = Auditor::open(&AuditSettings::default(), root.path()).unwrap();
    auditor.record(&first);
    drop(auditor);
    let auditor = Auditor::open(&AuditSettings::default(), root.path()).unwrap();
    auditor.record(&second);
    let lines = lines(&root);
    assert_eq!(kinds(&lines), ["request", "request"]);
    assert_eq!(lines[0]["request"], first.request.to_string());
    assert_eq!(lines[1]["request"], second.request.to_string());
    let file = fs::metadata(root.path().join("audit.jsonl")).unwrap();
    assert_eq!(file.mode() & 0o777, 0o600);
}

#[test]
fn a_trail_that_cannot_be_written_is_said_at_the_start() {
    let root = tempfile::tempdir().unwrap();
    let missing = root.path().join("missing");
    let error = Auditor::open(&AuditSettings::default(), &missing).unwrap_err();
    assert!(error.to_string().contains("audit.jsonl"), "{error}");
    assert!(!missing.exists());
}

#[test]
fn refusals_over_the_limit_are_counted_before_the_next_event() {
    let root = tempfile::tempdir().unwrap();
    let auditor = Auditor::open(&config(), root.path()).unwrap();
    let start = Instant::now();
    for _ in 0..100 {
        auditor.trail().record(&refused(), time(), start);
    }
    assert_eq!(lines(&root).len(), 10);
    let later = (
        time() + Duration::from_secs(1),
        start + Duration::from_secs(1),
    );
    auditor.trail().record(&refused(), later.0, later.1);
    let written = lines(&root);
    assert_eq!(kinds(&written)[9..], ["request", "left_out", "request"]);
    assert_eq!(written[10]["refusals"], 90);
    assert_eq!(written[10]["unwritten"], 0);
    assert_eq!(written[10]["since"], "2027-01-15T08:00:00.000Z");
    assert_eq!(written[10]["time"], "2027-01-15T08:00:01.000Z");
    // And said once.
    auditor
        .trail()
        .record(&event(Outcome::Done), later.0, later.1);
    auditor.catch_up();
    assert_eq!(kinds(&lines(&root))[11..], ["request", "request"]);
}

#[test]
fn what_was_left_out_is_said_at_the_end_too() {
    let root = tempfile::tempdir().unwrap();
    let auditor = Auditor::open(&config(), root.path()).unwrap();
    let now = Instant::now();
    for _ in 0..12 {
        auditor.trail().record(&refused(), time(), now);
    }
    auditor.catch_up();
    assert_eq!(lines(&root)[10]["refusals"], 2);
    auditor.trail().record(&refused(), time(), now);
    drop(auditor);
    assert_eq!(lines(&root)[11]["refusals"], 1);
    assert_eq!(lines(&root).len(), 12);
}

#[test]
fn changes_and_failures_are_never_left_out() {
    let root = tempfile::tempdir().unwrap();
    let auditor = Auditor::open(&config(), root.path()).unwrap();
    let now = Instant::now();
    for outcome in [Outcome::Done, Outcome::Failed("no room".into())] {
        for _ in 0..500 {
            auditor.trail().record(&event(outcome.clone()), time(), now);
        }
    }
    assert_eq!(kinds(&lines(&root)), ["request"; 1000]);
    let outcome = Outcome::NotAllowed("no grant".into());
    for _ in 0..500 {
        auditor.trail().record(&event(outcome.clone()), time(), now);
    }
    assert_eq!(lines(&root).len(), 1010);
}

#[test]
fn a_client_that_changes_without_end_fills_only_what_is_kept() {
    let root = tempfile::tempdir().unwrap();
    let config = AuditSettings {
        max_bytes: LONGEST_LINE,
        keep: 2,
        ..AuditSettings::default()
    };
    let auditor = Auditor::open(&config, root.path()).unwrap();
    let mut event = event(Outcome::Done);
    event.before = (1..=10_000).map(rule).collect();
    event.after = event.before.clone();
    for _ in 0..20 {
        auditor.record(&event);
    }
    let files = files(root.path()).unwrap();
    assert_eq!(files.len(), 3);
    for file in files {
        assert!(fs::metadata(file).unwrap().len() <= LONGEST_LINE);
    }
}

#[test]
fn the_files_are_the_trail_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    for name in [
        "audit.jsonl",
        "audit.jsonl.1",
        "audit.jsonl.12",
        "audit.jsonl.old",
        "audit.jsonl.",
        "audit.jsonl1",
        "mapping.redb",
    ] {
        fs::write(root.path().join(name), "").unwrap();
    }
    let mut files = files(root.path()).unwrap();
    files.sort();
    let ours = ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.12"];
    assert_eq!(files, ours.map(|name| root.path().join(name)));
}

/// What the log of this thread says.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Write for Said {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(text)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Said {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Said {
    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

#[test]
fn a_full_disk_is_said_once_and_what_is_missing_when_there_is_room() {
    let said = Said::default();
    let log = tracing_subscriber::fmt()
        .with_writer(said.clone())
        .with_ansi(false)
        .finish();
    let _log = tracing::subscriber::set_default(log);
    let root = tempfile::tempdir().unwrap();
    let auditor = Auditor::new(Sink::File(Lines::full()), &config());
    for _ in 0..3 {
        auditor.record(&event(Outcome::Done));
    }
    auditor.catch_up();
    let lines_said = said.lines();
    assert_eq!(lines_said.len(), 1, "{lines_said:?}");
    for part in ["ERROR", "audit.jsonl", "No space left on device"] {
        assert!(lines_said[0].contains(part), "{lines_said:?}");
    }

    match &mut auditor.trail().sink {
        Sink::File(lines) => lines.move_to(&root.path().join("audit.jsonl")),
        Sink::Journal(_) => unreachable!(),
    }
    for _ in 0..2 {
        auditor.record(&event(Outcome::Done));
    }
    let lines_said = said.lines();
    assert_eq!(lines_said.len(), 2, "{lines_said:?}");
    assert!(lines_said[1].contains("unwritten=3"), "{lines_said:?}");
    let lines = lines(&root);
    assert_eq!(kinds(&lines), ["left_out", "request", "request"]);
    assert_eq!(lines[0]["unwritten"], 3);
}

#[test]
fn a_journald_that_is_gone_is_said_by_the_journal_when_it_is_back() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("socket");
    let journald = UnixDatagram::bind(&path).unwrap();
    let journal = Journal::open(&path).unwrap();
    let auditor = Auditor::new(Sink::Journal(journal), &config());
    drop(journald);
    auditor.record(&event(Outcome::Done));
    fs::remove_file(&path).unwrap();
    auditor.record(&event(Outcome::Done));
    let journald = UnixDatagram::bind(&path).unwrap();
    auditor.record(&event(Outcome::Done));
    let received = || {
        let mut buffer = [0; 9000];
        let length = journald.recv(&mut buffer).unwrap();
        journal::parsed(&buffer[..length])
    };
    let has = |fields: &[(String, String)], name: &str, value: &str| {
        fields.contains(&(name.into(), value.into()))
    };
    let (gap, request) = (received(), received());
    assert!(has(&gap, "CONNTRACK_EVENT", "left_out"), "{gap:?}");
    assert!(has(&gap, "CONNTRACK_UNWRITTEN", "2"), "{gap:?}");
    assert!(has(&request, "CONNTRACK_OUTCOME", "done"), "{request:?}");
}

#[test]
fn threads_write_whole_lines() {
    const THREADS: usize = 8;
    const EVENTS: usize = 200;
    let root = tempfile::tempdir().unwrap();
    let auditor = Auditor::open(&AuditSettings::default(), root.path()).unwrap();
    let mut event = event(Outcome::Done);
    event.after = (1..=100).map(rule).collect();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..EVENTS {
                    let request = RequestId::random();
                    auditor.record(&AuditRecord {
                        request,
                        ..event.clone()
                    });
                }
            });
        }
    });
    let mut requests = std::collections::HashSet::new();
    for path in files(root.path()).unwrap() {
        let text = fs::read_to_string(path).unwrap();
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["after"].as_array().unwrap().len(), 100);
            requests.insert(line["request"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(requests.len(), THREADS * EVENTS);
}
