//! The durable copy of the mapping: a redb database in the state folder.
//!
//! A change is durable before it is answered. A database that can't be read is set aside,
//! never deleted and never taken for an empty mapping.

mod database;
mod examination;
mod record;

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use redb::Database;

use self::{
    database::{SCHEMA_VERSION, UnreadableStore, builder, fill, open_patiently, read, write},
    examination::Examination,
};
use crate::engine::{Change, Mapping};

/// The database's file name in the state folder.
pub const NAME: &str = "mapping.redb";

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
            .and_then(|()| fs::hard_link(&beside, &path).map_err(failed(&path, "made")));
        let removed = fs::remove_file(&beside);
        made?;
        removed.map_err(failed(&beside, "removed"))?;
        let database = builder().open(&path).map_err(unusable(&path, "opened"))?;
        Ok(Self {
            database: Some(database),
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
        if let Err(source) = fs::metadata(&path) {
            if source.kind() == io::ErrorKind::NotFound {
                // An older copy that somebody puts back has fewer changes.
                drop(fs::remove_file(counter(&path)));
                return Err(StoreError::Missing { path });
            }
            return Err(failed(&path, "examined")(source));
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
        self.write(&database, change)?;
        self.database = Some(database);
        Ok(())
    }

    fn write(&self, database: &Database, change: &Change) -> Result<(), StoreError> {
        let changes = write(database, change).map_err(unusable(&self.path, "written"))?;
        count(&self.path, changes);
        Ok(())
    }

    /// Opens the database again after a failed commit, and makes it hold `should_hold`:
    /// only the file itself shows whether the commit is in it.
    fn reopen(&self, should_hold: &Mapping) -> Result<Database, StoreError> {
        let (database, holds) = load_or_set_aside(&self.path)?;
        let difference = holds.difference(should_hold);
        if !difference.is_empty() {
            self.write(&database, &difference)?;
        }
        Ok(database)
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
    let database = open_patiently(path)?;
    let (mapping, _) = read(&database)?;
    Ok((database, mapping))
}

/// Checks that the database is whole, without changing the file, whatever it holds.
fn examine(path: &Path) -> Result<(), UnreadableStore> {
    // Whatever kind of error: the content was not read yet.
    let inaccessible = |error| UnreadableStore::Other(redb::Error::Io(error));
    // redb takes an empty file for a new database.
    if fs::metadata(path).map_err(inaccessible)?.len() == 0 {
        return Err(UnreadableStore::Damaged("it is empty".into()));
    }
    let examination = Examination::of(path).map_err(inaccessible)?;
    let (_, changes) = read(&builder().create_with_backend(examination)?)?;
    let counted = counted(path);
    if changes < counted {
        let said = format!("{counted} changes were committed, it knows of {changes}");
        return Err(UnreadableStore::Damaged(said));
    }
    Ok(())
}

/// Returns the path where a store is created before it is moved into its place.
pub(crate) fn unfinished(store: &Path) -> PathBuf {
    store.with_extension("new")
}

/// Moves the store to the first free name beside it, and returns that path.
fn set_aside(path: &Path) -> Result<PathBuf, StoreError> {
    let mut number = 1;
    loop {
        let aside = path.with_extension(format!("redb.damaged-{number}"));
        // A link and not a rename, which would replace an existing file.
        match fs::hard_link(path, &aside) {
            Ok(()) => {
                // The counter belongs to that store, not to the next one.
                drop(fs::remove_file(counter(path)));
                fs::remove_file(path).map_err(failed(path, "set aside"))?;
                return Ok(aside);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(failed(path, "set aside")(error)),
        }
    }
}

fn unusable<E: Into<redb::Error>>(path: &Path, what: &'static str) -> impl FnOnce(E) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io {
        path,
        what,
        source: Box::new(source.into()),
    }
}

fn failed(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::File { path, what, source }
}
