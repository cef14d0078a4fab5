//! The audit trail: every change, refusal and failure is one event.
//!
//! As a file it is `audit.jsonl` in the state folder, for its owner alone, a
//! JSON object a line. `time` is RFC 3339 in UTC with milliseconds, and `event`
//! says which of two kinds it is. A `request` has, always all of them:
//!
//! | field | what |
//! |---|---|
//! | `request` | the request's id, a UUID |
//! | `peer` | `kind` is `local` (with `pid`, `uid`, `gid`), `token` (with its `name`), `unknown` (with its `address`) or `rules_file` |
//! | `operation` | what was asked for |
//! | `routers`, `router_count` | ids of the routers that it is about |
//! | `before`, `before_count` | the rules that it removed or changed, as they were: `id`, `router_id`, `protocol`, `port`, `helper`, `origin` |
//! | `after`, `after_count` | the rules that it added or changed, as they are |
//! | `outcome` | `done`, `not_allowed`, `refused` or `failed` |
//! | `reason` | why not, or null |
//! | `took_us` | from its arrival to its answer, in microseconds |
//!
//! Lists have their first 100; the counts are of all. Texts are cut off at 1 KiB,
//! and have their control characters escaped.
//!
//! `left_out` says that something is missing before it: `since` when, how many
//! `refusals` were over the limit, and how many events of any kind could not be
//! written (`unwritten`).
//!
//! In the journal the same values are fields: names in capitals behind
//! `CONNTRACK_`, what is inside an object behind its name (`CONNTRACK_PEER_UID`),
//! a list as one field an element, null as none.
//!
//! Nobody can fill the disk with it: a file has a largest size and there are only
//! so many, an event has a largest size, and refusals are recorded at a largest
//! rate, so that they don't push out the changes either. What a process wrote
//! survives its end; what the kernel had not yet brought to the disk does not
//! survive a power failure.

mod event;
mod file;
mod journal;
mod limit;
mod line;
#[cfg(test)]
mod testing;

pub use event::{Event, Outcome, Peer, RequestId};
pub(crate) use line::LONGEST_LINE;

use std::{
    error::Error,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime},
};

use tracing::{error, warn};

use crate::config::{Audit, AuditTo};
use file::Lines;
use journal::Journal;
use limit::Limiter;
use line::Line;

/// Why there can be no audit trail.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The file can't be had.
    #[error("the audit trail {} cannot be opened", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Nobody listens where journald does.
    #[error(
        "the audit trail cannot go to the journal: journald does not answer at {}; \
         audit.to = \"file\" needs none", path.display()
    )]
    Journal {
        /// Its socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Writes the audit trail. What can't be written is counted and said on the log;
/// it never makes a request fail.
#[derive(Debug)]
pub struct Auditor(Mutex<Trail>);

impl Auditor {
    /// Goes on with the audit trail, or begins it.
    ///
    /// # Errors
    /// [`AuditError`] if it can't be where the configuration wants it.
    pub fn open(config: &Audit, state_dir: &Path) -> Result<Self, AuditError> {
        let sink = match config.to {
            AuditTo::File => {
                let path = state_dir.join(file::NAME);
                match Lines::open(&path, config.max_bytes, config.keep) {
                    Ok(lines) => Sink::File(lines),
                    Err(source) => return Err(AuditError::File { path, source }),
                }
            }
            AuditTo::Journald => {
                let path = Path::new(journal::SOCKET);
                Sink::Journal(Journal::open(path).map_err(|source| AuditError::Journal {
                    path: path.to_owned(),
                    source,
                })?)
            }
        };
        Ok(Self::new(sink, config))
    }

    fn new(sink: Sink, config: &Audit) -> Self {
        Self(Mutex::new(Trail {
            sink,
            limiter: Limiter::new(
                config.refusals_per_second,
                config.refusals_per_second_in_all,
            ),
            failing: false,
            gap: None,
        }))
    }

    /// Records an event. Takes one write; with a journald that has stopped
    /// reading, a fifth of a second, once.
    pub fn record(&self, event: &Event) {
        self.trail()
            .record(event, SystemTime::now(), Instant::now());
    }

    /// Records what was left out since the last event that was written, if
    /// anything was. To be called now and then, or a flood of refusals that ends
    /// with nothing after it is counted only when the agent ends.
    pub fn catch_up(&self) {
        self.trail().catch_up(SystemTime::now());
    }

    /// A thread that panicked while it had the trail leaves it in order: what it
    /// did not write is all that is missing.
    fn trail(&self) -> MutexGuard<'_, Trail> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Auditor {
    fn drop(&mut self) {
        self.catch_up();
    }
}

/// The files of the audit trail in a state folder, in no order.
///
/// # Errors
/// What the system says if the folder can't be read.
pub fn files(state_dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(state_dir)? {
        let name = entry?.file_name();
        let rest = name.to_str().and_then(|name| name.strip_prefix(file::NAME));
        let is_number = |rest: &str| {
            let number = rest.strip_prefix('.');
            number.is_some_and(|number| number.parse::<u32>().is_ok())
        };
        if rest.is_some_and(|rest| rest.is_empty() || is_number(rest)) {
            files.push(state_dir.join(name));
        }
    }
    Ok(files)
}

/// Where lines go.
#[derive(Debug)]
enum Sink {
    File(Lines),
    Journal(Journal),
}

impl Sink {
    fn write(&mut self, line: &Line) -> io::Result<()> {
        match self {
            Self::File(lines) => lines.write(&serde_json::to_vec(line)?),
            Self::Journal(journal) => journal.write(line),
        }
    }
}

impl fmt::Display for Sink {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::File(_) => file::NAME,
            Self::Journal(_) => "the journal",
        })
    }
}

/// What the trail does not have.
#[derive(Clone, Copy, Debug)]
struct Gap {
    since: SystemTime,
    /// Over the limit.
    refusals: u64,
    /// Of events of any kind, because writing failed.
    unwritten: u64,
}

#[derive(Debug)]
struct Trail {
    sink: Sink,
    limiter: Limiter,
    /// Whether the last write failed; it was said then.
    failing: bool,
    gap: Option<Gap>,
}

impl Trail {
    fn record(&mut self, event: &Event, time: SystemTime, now: Instant) {
        if event.outcome.is_refusal() && !self.limiter.allows(&event.peer, now) {
            self.gap(time).refusals += 1;
            return;
        }
        // What is missing before the event comes before it, or the event is
        // missing too.
        if !(self.catch_up(time) && self.write(&Line::request(event, time))) {
            self.gap(time).unwritten += 1;
        }
    }

    /// Whether nothing is missing now.
    fn catch_up(&mut self, time: SystemTime) -> bool {
        let Some(gap) = self.gap else {
            return true;
        };
        let line = Line::left_out(gap.since, gap.refusals, gap.unwritten, time);
        let written = self.write(&line);
        if written {
            self.gap = None;
        }
        written
    }

    fn gap(&mut self, since: SystemTime) -> &mut Gap {
        self.gap.get_or_insert(Gap {
            since,
            refusals: 0,
            unwritten: 0,
        })
    }

    fn write(&mut self, line: &Line) -> bool {
        let written = self.sink.write(line);
        match &written {
            Ok(()) if self.failing => warn!(
                to = %self.sink,
                unwritten = self.gap.map_or(0, |gap| gap.unwritten),
                "the audit trail is written again"
            ),
            Err(error) if !self.failing => error!(
                to = %self.sink,
                error = error as &dyn Error,
                "the audit trail cannot be written; what is missing is counted"
            ),
            _ => {}
        }
        self.failing = written.is_err();
        written.is_ok()
    }
}

#[cfg(test)]
mod tests {
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
    use testing::{event, rule, time};

    fn config() -> Audit {
        Audit {
            refusals_per_second: 1,
            ..Audit::default()
        }
    }

    fn refused() -> Event {
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
        let auditor = Auditor::open(&Audit::default(), root.path()).unwrap();
        auditor.record(&first);
        drop(auditor);
        let auditor = Auditor::open(&Audit::default(), root.path()).unwrap();
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
        let error = Auditor::open(&Audit::default(), &missing).unwrap_err();
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
        let config = Audit {
            max_bytes: LONGEST_LINE,
            keep: 2,
            ..Audit::default()
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
        let auditor = Auditor::open(&Audit::default(), root.path()).unwrap();
        let mut event = event(Outcome::Done);
        event.after = (1..=100).map(rule).collect();
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for _ in 0..EVENTS {
                        let request = RequestId::random();
                        auditor.record(&Event {
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
}
