//! The database's content: rules as records, and facts about the database itself.

use std::{fmt::Display, fs, io, path::Path, thread, time::Duration};

use redb::{Builder, Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use super::record::StoredRule;
use crate::engine::{Change, Entry, Mapping};

/// The table of rules: rule id → [`StoredRule`] as JSON, so that people can read it in an
/// emergency, and agents that know more or fewer fields can too.
const RULES: TableDefinition<'_, [u8; 16], &[u8]> = TableDefinition::new("rules");

/// The table of facts about the database itself.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const SCHEMA: &str = "schema";
/// The key for the number of committed changes.
const CHANGES: &str = "changes";

/// The version of the tables' content.
pub(super) const SCHEMA_VERSION: u64 = 1;

/// The size of redb's page cache, in bytes; redb's default is 1 GiB.
const CACHE: usize = 4 << 20;

/// The reason why a database can't be read.
pub(super) enum UnreadableStore {
    /// The content is wrong in this way.
    Damaged(String),
    /// The content has this schema, which a newer agent wrote.
    Newer(u64),
    /// The system around the file refused.
    Other(redb::Error),
}

impl<E: Into<redb::Error>> From<E> for UnreadableStore {
    /// Tells errors of the file's content from errors of the system around it.
    fn from(error: E) -> Self {
        use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
        match error.into() {
            redb::Error::Io(error)
                if !matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof) =>
            {
                Self::Other(redb::Error::Io(error))
            }
            error @ (redb::Error::DatabaseAlreadyOpen | redb::Error::PreviousIo) => {
                Self::Other(error)
            }
            other => Self::Damaged(other.to_string()),
        }
    }
}

/// Reads the mapping, and the number of committed changes.
pub(super) fn read(database: &Database) -> Result<(Mapping, u64), UnreadableStore> {
    let damaged = |error: &dyn Display| UnreadableStore::Damaged(error.to_string());
    let transaction = database.begin_read()?;
    let meta = transaction.open_table(META)?;
    match meta.get(SCHEMA)?.map(|version| version.value()) {
        Some(SCHEMA_VERSION) => {}
        Some(newer @ SCHEMA_VERSION..) => return Err(UnreadableStore::Newer(newer)),
        other => return Err(damaged(&format!("its schema is {other:?}"))),
    }
    let changes = meta.get(CHANGES)?.map_or(0, |changes| changes.value());
    let mut entries = Vec::new();
    for row in transaction.open_table(RULES)?.iter()? {
        let (id, record) = row?;
        let record: StoredRule =
            serde_json::from_slice(record.value()).map_err(|error| damaged(&error))?;
        entries.push(record.entry(id.value()).map_err(|error| damaged(&error))?);
    }
    let mapping = Mapping::from_entries(entries).map_err(|error| damaged(&error))?;
    Ok((mapping, changes))
}

/// Makes a database that holds the rules of `mapping`, in place of any other.
pub(super) fn fill(path: &Path, mapping: &Mapping) -> Result<(), redb::Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let database = builder().create(path)?;
    let mut transaction = database.begin_write()?;
    // Otherwise damage to this very commit would make the store an empty one: the counter
    // file begins only with the next commit.
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
/// from one that never was; the counter file can.
pub(super) fn write(database: &Database, change: &Change) -> Result<u64, redb::Error> {
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
pub(super) fn open_patiently(path: &Path) -> Result<Database, redb::DatabaseError> {
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

/// Returns what databases are made and opened by.
pub(super) fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .set_cache_size(CACHE)
        .set_check_integrity_on_open(true);
    builder
}
