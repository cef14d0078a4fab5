//! The durable copy of the mapping: a redb database in the state folder.
//!
//! A change is durable before it is answered. A database that can't be read is set aside,
//! never deleted and never taken for an empty mapping.

mod examination;
mod record;

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use redb::{Builder, Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use crate::engine::{Change, Entry, Mapping};
use examination::Examination;
use record::StoredRule;

/// The database's file name in the state folder.
pub const NAME: &str = "mapping.redb";

/// The table of rules: rule id → [`StoredRule`] as JSON, so that people can read it in an
/// emergency, and agents that know more or fewer fields can too.
const RULES: TableDefinition<'_, [u8; 16], &[u8]> = TableDefinition::new("rules");

/// The table of facts about the database itself.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const SCHEMA: &str = "schema";
/// The key for the number of committed changes.
const CHANGES: &str = "changes";

/// The version of the tables' content.
const SCHEMA_VERSION: u64 = 1;

/// The size of redb's page cache, in bytes; redb's default is 1 GiB.
const CACHE: usize = 4 << 20;

/// The error when the store can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store can't be parsed, and was moved out of the way.
    #[error(
        "the store {} is damaged ({said}) and was set aside as {}; \
         say how to go on with `run --rebuild pins` or `run --rebuild rules`",
        path.display(), aside.display()
    )]
    Damaged {
        /// The store.
        path: PathBuf,
        /// The path where it is now.
        aside: PathBuf,
        /// The damage that was found.
        said: String,
    },
    /// The store is missing, though there was one.
    #[error(
        "the store {} is missing; say how to go on with `run --rebuild pins` or \
         `run --rebuild rules`, or put it back", path.display()
    )]
    Missing {
        /// The store.
        path: PathBuf,
    },
    /// The store was written by a newer agent.
    #[error(
        "the store {} has schema {found}, this agent knows {SCHEMA_VERSION}; \
         run the agent that wrote it", path.display()
    )]
    Newer {
        /// The store.
        path: PathBuf,
        /// The schema of the store.
        found: u64,
    },
    /// The store can't be read or written at the moment.
    #[error("the store {} cannot be {what}", path.display())]
    Io {
        /// The store.
        path: PathBuf,
        /// The operation that failed, as a participle.
        what: &'static str,
        /// The cause.
        #[source]
        source: Box<redb::Error>,
    },
    /// An operation on a file beside the store failed.
    #[error("{} cannot be {what}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The operation that failed, as a participle.
        what: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// The open store.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    /// The database; `None` after a failed commit: redb must be opened again then, and
    /// the file's content compared with what it should hold.
    database: Option<Database>,
}

impl Store {
    /// Returns whether there is a store in the folder.
    #[must_use]
    pub fn exists(folder: &Path) -> bool {
        folder.join(NAME).exists()
    }

    /// Creates a new store that holds the rules of `mapping`.
    ///
    /// # Errors
    /// Returns [`StoreError`] if there is one already, or if it can't be created; then
    /// nothing is left of it.
    pub fn create(folder: &Path, mapping: &Mapping) -> Result<Self, StoreError> {
        let path = folder.join(NAME);
        // The counter may be left from a store that was lost.
        drop(fs::remove_file(counter(&path)));
        // Filled beside its place, so that a store exists whole or not at all.
        let beside = unfinished(&path);
        let made = fill(&beside, mapping)
            .map_err(unusable(&beside, "made"))
            .and_then(|()| {
                fs::hard_link(&beside, &path).map_err(|source| StoreError::File {
                    path: path.clone(),
                    what: "made",
                    source,
                })
            });
        let removed = fs::remove_file(&beside);
        made?;
        removed.map_err(|source| StoreError::File {
            path: beside,
            what: "removed",
            source,
        })?;
        let database = builder().open(&path).map_err(redb::Error::from);
        Ok(Self {
            database: Some(database.map_err(unusable(&path, "opened"))?),
            path,
        })
    }

    /// Opens the store, verifies every page's checksum, and reads the mapping.
    ///
    /// # Errors
    /// Returns [`StoreError::Missing`] if there is none, and [`StoreError::Damaged`] if
    /// it can't be parsed; it was moved aside then.
    pub fn open(folder: &Path) -> Result<(Self, Mapping), StoreError> {
        let path = folder.join(NAME);
        match fs::metadata(&path) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // An older copy that somebody puts back has fewer changes.
                drop(fs::remove_file(counter(&path)));
                return Err(StoreError::Missing { path });
            }
            Err(source) => {
                return Err(StoreError::File {
                    path,
                    what: "examined",
                    source,
                });
            }
        }
        let (database, mapping) = load_or_set_aside(&path)?;
        let database = Some(database);
        Ok((Self { path, database }, mapping))
    }

    /// Writes a change durably; `before` is the mapping that it was decided on.
    ///
    /// # Errors
    /// Returns [`StoreError`] if it can't be written: the store then holds `before`, at
    /// the latest when it can be written again.
    pub fn commit(&mut self, before: &Mapping, change: &Change) -> Result<(), StoreError> {
        if change.is_empty() {
            return Ok(());
        }
        let database = match self.database.take() {
            Some(database) => database,
            None => self.reopen(before)?,
        };
        let changes = write(&database, change).map_err(unusable(&self.path, "written"))?;
        count(&self.path, changes);
        self.database = Some(database);
        Ok(())
    }

    /// Opens the database again after a failed commit, and makes it hold `should_hold`:
    /// only the file itself shows whether the commit is in it.
    fn reopen(&self, should_hold: &Mapping) -> Result<Database, StoreError> {
        let (database, holds) = load_or_set_aside(&self.path)?;
        let difference = holds.difference(should_hold);
        if !difference.is_empty() {
            let changes = write(&database, &difference).map_err(unusable(&self.path, "written"))?;
            count(&self.path, changes);
        }
        Ok(database)
    }
}

enum UnreadableStore {
    Damaged(String),
    Newer(u64),
    Other(redb::Error),
}

impl From<redb::Error> for UnreadableStore {
    /// Tells errors of the file's content from errors of the system around it.
    fn from(error: redb::Error) -> Self {
        use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
        match error {
            redb::Error::Io(error)
                if !matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof) =>
            {
                Self::Other(redb::Error::Io(error))
            }
            redb::Error::DatabaseAlreadyOpen | redb::Error::PreviousIo => Self::Other(error),
            other => Self::Damaged(other.to_string()),
        }
    }
}

fn load_or_set_aside(path: &Path) -> Result<(Database, Mapping), StoreError> {
    let path = path.to_owned();
    match load(&path) {
        Ok(loaded) => Ok(loaded),
        Err(UnreadableStore::Damaged(said)) => {
            let aside = set_aside(&path)?;
            Err(StoreError::Damaged { path, aside, said })
        }
        Err(UnreadableStore::Newer(found)) => Err(StoreError::Newer { path, found }),
        Err(UnreadableStore::Other(source)) => Err(unusable(&path, "read")(source)),
    }
}

/// Returns the path of the file with a second copy of the number of committed changes,
/// written after each commit without waiting for the disk. One flipped bit in a
/// database's header makes redb open the commit before the last one; such a database has
/// fewer changes than were counted here.
pub(crate) fn counter(store: &Path) -> PathBuf {
    store.with_extension("redb-changes")
}

/// Reads the counted changes; any other content of the file counts as 0, as the file can
/// only confirm a loss.
fn counted(store: &Path) -> u64 {
    let text = fs::read_to_string(counter(store)).unwrap_or_default();
    let mut numbers = text.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next(), numbers.next()) {
        // The number is there twice, so that damage shows.
        (Some(Ok(once)), Some(Ok(again)), None) if once == again => once,
        _ => 0,
    }
}

/// Writes the number of changes, always with the same length and over the old text:
/// truncating the file first would cost as much as the commit itself, because ext4 then
/// allocates its block again and has it in the journal that the next commit waits for.
fn count(store: &Path, changes: u64) {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(counter(store));
    let text = format!("{changes:020} {changes:020}\n");
    if let Err(error) = file.and_then(|file| file.write_all_at(text.as_bytes(), 0)) {
        tracing::debug!(%error, "changes could not be counted");
    }
}

fn load(path: &Path) -> Result<(Database, Mapping), UnreadableStore> {
    examine(path)?;
    let database = open_patiently(path).map_err(redb::Error::from)?;
    let (mapping, _) = read(&database)?;
    Ok((database, mapping))
}

/// Checks that the database is whole, without changing the file, whatever it holds.
fn examine(path: &Path) -> Result<(), UnreadableStore> {
    let inaccessible = |error| UnreadableStore::Other(redb::Error::Io(error));
    // redb takes an empty file for a new database.
    if fs::metadata(path).map_err(inaccessible)?.len() == 0 {
        return Err(UnreadableStore::Damaged("it is empty".into()));
    }
    let examination = Examination::of(path).map_err(inaccessible)?;
    let database = builder().create_with_backend(examination);
    let (_, changes) = read(&database.map_err(redb::Error::from)?)?;
    let counted = counted(path);
    if changes < counted {
        let said = format!("{counted} changes were committed, it knows of {changes}");
        return Err(UnreadableStore::Damaged(said));
    }
    Ok(())
}

fn read(database: &Database) -> Result<(Mapping, u64), UnreadableStore> {
    let damaged = |error: &dyn std::fmt::Display| UnreadableStore::Damaged(error.to_string());
    let transaction = database.begin_read().map_err(redb::Error::from)?;
    let meta = transaction.open_table(META).map_err(redb::Error::from)?;
    let schema = meta.get(SCHEMA).map_err(redb::Error::from)?;
    match schema.map(|version| version.value()) {
        Some(SCHEMA_VERSION) => {}
        Some(newer @ SCHEMA_VERSION..) => return Err(UnreadableStore::Newer(newer)),
        other => return Err(damaged(&format!("its schema is {other:?}"))),
    }
    let changes = meta.get(CHANGES).map_err(redb::Error::from)?;
    let changes = changes.map_or(0, |changes| changes.value());
    let rules = transaction.open_table(RULES).map_err(redb::Error::from)?;
    let mut entries = Vec::new();
    for row in rules.iter().map_err(redb::Error::from)? {
        let (id, record) = row.map_err(redb::Error::from)?;
        let record: StoredRule =
            serde_json::from_slice(record.value()).map_err(|error| damaged(&error))?;
        entries.push(record.entry(id.value()).map_err(|error| damaged(&error))?);
    }
    let mapping = Mapping::from_entries(entries).map_err(|error| damaged(&error))?;
    Ok((mapping, changes))
}

fn fill(path: &Path, mapping: &Mapping) -> Result<(), redb::Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let database = builder().create(path)?;
    let mut transaction = database.begin_write()?;
    // Otherwise damage to this very commit would make the store an empty one: the number
    // that `counted` reads begins only with the next commit.
    transaction.set_two_phase_commit(true);
    transaction
        .open_table(META)?
        .insert(SCHEMA, SCHEMA_VERSION)?;
    insert(&transaction, mapping.entries())?;
    transaction.commit()?;
    Ok(())
}

/// Writes a change in one phase: it waits for the disk once, and a commit that a crash
/// tore is detected by its checksums. redb can't tell a commit that was damaged later
/// from one that never was; [`counted`] can.
fn write(database: &Database, change: &Change) -> Result<u64, redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut rules = transaction.open_table(RULES)?;
        for entry in change.removed() {
            rules.remove(entry.rule.id.to_bytes())?;
        }
    }
    insert(&transaction, change.added())?;
    let changes = {
        let mut meta = transaction.open_table(META)?;
        let before = meta.get(CHANGES)?.map_or(0, |changes| changes.value());
        meta.insert(CHANGES, before + 1)?;
        before + 1
    };
    transaction.commit()?;
    Ok(changes)
}

fn insert<'a>(
    transaction: &redb::WriteTransaction,
    entries: impl IntoIterator<Item = &'a Entry>,
) -> Result<(), redb::Error> {
    let mut rules = transaction.open_table(RULES)?;
    // In the order of their random keys, so that pages are written one after the other.
    let mut entries: Vec<_> = entries.into_iter().collect();
    entries.sort_unstable_by_key(|entry| entry.rule.id);
    for entry in entries {
        let record = serde_json::to_vec(&StoredRule::from(entry)).map_err(io::Error::from)?;
        rules.insert(entry.rule.id.to_bytes(), record.as_slice())?;
    }
    Ok(())
}

/// Opens the database, and waits up to a second for its lock: a child that a killed agent
/// was just starting holds all its descriptors until it runs its own program.
fn open_patiently(path: &Path) -> Result<Database, redb::DatabaseError> {
    const TRIES: u32 = 20;
    for _ in 1..TRIES {
        match builder().open(path) {
            Err(redb::DatabaseError::DatabaseAlreadyOpen) => {
                thread::sleep(Duration::from_millis(50));
            }
            other => return other,
        }
    }
    builder().open(path)
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .set_cache_size(CACHE)
        .set_check_integrity_on_open(true);
    builder
}

/// Returns the path where a store is created before it is moved into its place.
pub(crate) fn unfinished(store: &Path) -> PathBuf {
    store.with_extension("new")
}

/// Moves the store to the first free name beside it, and returns that path.
fn set_aside(path: &Path) -> Result<PathBuf, StoreError> {
    let failed = |source| StoreError::File {
        path: path.to_owned(),
        what: "set aside",
        source,
    };
    let mut number = 1;
    loop {
        let aside = path.with_extension(format!("redb.damaged-{number}"));
        // A link and not a rename, which would replace an existing file.
        match fs::hard_link(path, &aside) {
            Ok(()) => {
                // The counter belongs to that store, not to the next one.
                drop(fs::remove_file(counter(path)));
                return fs::remove_file(path).map(|()| aside).map_err(failed);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(failed(error)),
        }
    }
}

fn unusable(path: &Path, what: &'static str) -> impl FnOnce(redb::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io {
        path,
        what,
        source: Box::new(source),
    }
}
