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
//! | `operation` | what was asked for: `read`, `follow`, `scrape`, `create`, `update`, `replace`, `apply`, `delete`, `unknown` or `rules_file` |
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

    /// Records an event. Takes one write; with a journald that has stopped
    /// reading, a fifth of a second, once.
    pub fn record(&self, event: &AuditRecord) {
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
    limiter: RefusalLimiter,
    /// Whether the last write failed; it was said then.
    failing: bool,
    gap: Option<Gap>,
}

impl Trail {
    fn record(&mut self, event: &AuditRecord, time: SystemTime, now: Instant) {
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
