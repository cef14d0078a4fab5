//! Records every change, refusal and failure in the audit trail.
//!
//! As a file, the trail is `audit.jsonl` in the state folder, which only its owner can
//! read, with one JSON object a line. `time` is RFC 3339 in UTC with milliseconds, and
//! `event` is one of two kinds. An event `request` always has all of these fields:
//!
//! | field | meaning |
//! |---|---|
//! | `request` | the request's id, a UUID |
//! | `peer` | `kind` is `local` (with `pid`, `uid`, `gid`), `token` (with its `name`), `unknown` (with its `address`) or `rules_file` |
//! | `operation` | the operation: `read`, `follow`, `scrape`, `create`, `update`, `replace`, `apply`, `delete`, `unknown` or `rules_file` |
//! | `routers`, `router_count` | the ids of the routers that it concerns |
//! | `before`, `before_count` | the rules that it removed or changed, as they were before: `id`, `router_id`, `protocol`, `port`, `helper`, `origin` |
//! | `after`, `after_count` | the rules that it added or changed, as they are afterwards |
//! | `outcome` | `done`, `not_allowed`, `refused` or `failed` |
//! | `reason` | the reason for a refusal or a failure, or null |
//! | `took_us` | the time from the request to the answer, in microseconds |
//!
//! A list has at most its first 100 elements; its count is that of all. Texts are cut off
//! at 1 KiB, and their control characters are escaped.
//!
//! An event `left_out` reports events that are missing before it: `since` when, the number
//! of `refusals` over the rate limit, and the number of events of any kind that could not
//! be written (`unwritten`).
//!
//! In the journal the same values are fields. Their names are in capitals with the prefix
//! `CONNTRACK_`; a field of an object has the object's name as a prefix too
//! (`CONNTRACK_PEER_UID`). A list is one field for each element, and null is no field.
//!
//! Clients can't fill the disk: the size of a file, the number of files, the size of an
//! event and the rate of recorded refusals are limited. The last also keeps refusals from
//! pushing out changes. Written events survive the end of the process, but not a power
//! failure before the kernel has written them to the disk.

mod event;
mod file;
mod journal;
mod limit;
mod line;
mod settings;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use event::{AuditRecord, Outcome, RequestId, RequestOperation};
pub use settings::{AuditSettings, AuditTo};

use std::{
    error::Error,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime},
};

use tracing::{error, warn};

use file::Lines;
use journal::Journal;
use limit::RefusalLimiter;
use line::Line;

/// The error when the audit trail can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The file can't be opened.
    #[error("the audit trail {} cannot be opened", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// Journald does not listen on its socket.
    #[error(
        "the audit trail cannot go to the journal: journald does not answer at {}; \
         audit.to = \"file\" needs none", path.display()
    )]
    Journal {
        /// The path of the socket.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

/// The writer of the audit trail. Events that can't be written are counted and reported in
/// the log; they never make a request fail.
#[derive(Debug)]
pub struct Auditor(Mutex<Trail>);

impl Auditor {
    /// Opens the audit trail, or creates it.
    ///
    /// # Errors
    /// Returns [`AuditError`] if the configured destination can't be opened.
    pub fn open(config: &AuditSettings, state_dir: &Path) -> Result<Self, AuditError> {
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

    fn new(sink: Sink, config: &AuditSettings) -> Self {
        Self(Mutex::new(Trail {
            sink,
            limiter: RefusalLimiter::new(
                config.refusals_per_second,
                config.refusals_per_second_in_all,
            ),
            failing: false,
            gap: None,
        }))
    }

    /// Records an event with one write. Blocks for a fifth of a second, once, if journald
    /// has stopped reading.
    pub fn record(&self, event: &AuditRecord) {
        self.trail()
            .record(event, SystemTime::now(), Instant::now());
    }

    /// Records the count of events that were left out since the last written one, if there
    /// are any. The server calls it regularly; otherwise a flood of refusals with no event
    /// after it would be counted only when the agent stops.
    pub fn catch_up(&self) {
        self.trail().catch_up(SystemTime::now());
    }

    /// Locks the trail. A panic of another thread that held the lock leaves the trail
    /// consistent; only the event of that thread can be missing.
    fn trail(&self) -> MutexGuard<'_, Trail> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Auditor {
    fn drop(&mut self) {
        self.catch_up();
    }
}

/// Returns the files of the audit trail in a state folder, in no order.
///
/// # Errors
/// Returns the system's error if the folder can't be read.
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

/// The destination of lines.
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

/// The events that are missing in the trail.
#[derive(Clone, Copy, Debug)]
struct Gap {
    since: SystemTime,
    /// The number of refusals over the rate limit.
    refusals: u64,
    /// The number of events of any kind that could not be written.
    unwritten: u64,
}

/// The state of the trail.
#[derive(Debug)]
struct Trail {
    sink: Sink,
    limiter: RefusalLimiter,
    /// Whether the last write failed, which is logged once.
    failing: bool,
    gap: Option<Gap>,
}

impl Trail {
    /// Records an event, or counts it as missing.
    fn record(&mut self, event: &AuditRecord, time: SystemTime, now: Instant) {
        if event.outcome.is_refusal() && !self.limiter.allows(&event.peer, now) {
            self.gap(time).refusals += 1;
            return;
        }
        // The count of missing events is written before the event. If it can't be written,
        // the event is not written either.
        if !(self.catch_up(time) && self.write(&Line::request(event, time))) {
            self.gap(time).unwritten += 1;
        }
    }

    /// Records the missing events; returns whether none is missing any more.
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

    /// Returns the gap, which begins at this time if there was none.
    fn gap(&mut self, since: SystemTime) -> &mut Gap {
        self.gap.get_or_insert(Gap {
            since,
            refusals: 0,
            unwritten: 0,
        })
    }

    /// Writes a line; returns whether it was written.
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
