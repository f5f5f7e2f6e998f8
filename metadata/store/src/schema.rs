//! The tables, and the settings that durability depends on.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension};

use crate::StoreError;

/// The version this program writes. Raise it with a step in [`migrate`].
const SCHEMA_VERSION: u32 = 1;

const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Prepared statements kept by each connection: more than there are.
const STATEMENTS: usize = 256;

const SCHEMA_1: &str = "
CREATE TABLE settings (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;

CREATE TABLE accounts (
    id BLOB PRIMARY KEY,
    user TEXT NOT NULL,
    user_key TEXT NOT NULL UNIQUE,
    password TEXT NOT NULL,
    namespace INTEGER NOT NULL,
    quota_bytes INTEGER NOT NULL,
    created_ms INTEGER NOT NULL
) WITHOUT ROWID;

-- AUTOINCREMENT: an id is never given twice, even if its row went.
CREATE TABLE devices (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    account BLOB NOT NULL,
    name TEXT NOT NULL,
    token_hash BLOB NOT NULL UNIQUE,
    edits INTEGER NOT NULL DEFAULT 0,        -- edits taken from it: its counter in version vectors
    acknowledged_op INTEGER NOT NULL DEFAULT 0,
    created_ms INTEGER NOT NULL
);

CREATE TABLE namespaces (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    owner BLOB NOT NULL,
    genesis BLOB NOT NULL,                   -- what the first journal item's hash follows
    sequence INTEGER NOT NULL DEFAULT 0,
    hash BLOB NOT NULL,                      -- of the newest journal item
    bytes INTEGER NOT NULL DEFAULT 0         -- of all live files
);

CREATE TABLE entries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace INTEGER NOT NULL,
    parent INTEGER NOT NULL,
    name TEXT NOT NULL,
    key TEXT NOT NULL,
    exact_name TEXT,
    exact_key TEXT,
    deleted INTEGER NOT NULL DEFAULT 0,
    sequence INTEGER NOT NULL,
    device INTEGER NOT NULL,
    revision INTEGER NOT NULL
);
CREATE UNIQUE INDEX entries_live ON entries (namespace, parent, key) WHERE deleted = 0;
CREATE INDEX entries_twins ON entries (namespace, parent, exact_key) WHERE exact_key IS NOT NULL AND deleted = 0;
CREATE INDEX entries_gone ON entries (namespace, parent, key, sequence) WHERE deleted = 1;
CREATE UNIQUE INDEX entries_changed ON entries (namespace, sequence);
CREATE INDEX entries_listed ON entries (namespace, id);

CREATE TABLE revisions (
    rev INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace INTEGER NOT NULL,
    entry INTEGER NOT NULL,
    vector BLOB NOT NULL,
    kind INTEGER NOT NULL,
    size INTEGER NOT NULL,
    blocks BLOB NOT NULL,
    mtime_secs INTEGER,
    mtime_nanos INTEGER,
    executable INTEGER NOT NULL,
    target TEXT,
    sequence INTEGER NOT NULL,
    device INTEGER NOT NULL,
    at_ms INTEGER NOT NULL
);
CREATE INDEX revisions_of ON revisions (entry, rev);

CREATE TABLE journal (
    namespace INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    entry INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    device INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    from_parent INTEGER,
    from_name TEXT,
    state BLOB NOT NULL,
    hash BLOB NOT NULL,
    PRIMARY KEY (namespace, sequence)
) WITHOUT ROWID;

CREATE TABLE op_answers (
    device INTEGER NOT NULL,
    op INTEGER NOT NULL,
    entry INTEGER,                           -- what the item made or changed; none when refused
    answer TEXT NOT NULL,
    PRIMARY KEY (device, op)
) WITHOUT ROWID;

CREATE TABLE possession (
    account BLOB NOT NULL,
    hash BLOB NOT NULL,
    length INTEGER NOT NULL,
    PRIMARY KEY (account, hash)
) WITHOUT ROWID;

CREATE TABLE upload_sessions (
    id BLOB PRIMARY KEY,
    account BLOB NOT NULL,
    device INTEGER NOT NULL,
    size INTEGER NOT NULL DEFAULT 0,
    tail BLOB NOT NULL DEFAULT x'',          -- bytes after the last whole block, under 4 MiB
    closed INTEGER NOT NULL DEFAULT 0,
    touched_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE upload_blocks (
    session BLOB NOT NULL,
    number INTEGER NOT NULL,
    hash BLOB NOT NULL,
    PRIMARY KEY (session, number)
) WITHOUT ROWID;
";

/// Opens or makes the database, sets what durability needs and reads it back, and brings the schema up to date.
pub(crate) fn open_for_writing(path: &Path) -> Result<Connection, StoreError> {
    let mut connection = Connection::open(path)?;
    let journal: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if journal != "wal" {
        return Err(StoreError::Setting { setting: "journal_mode=WAL", answer: journal });
    }
    settle(&connection)?;
    connection.execute_batch("PRAGMA synchronous = FULL")?;
    let synchronous: i64 = connection.query_row("PRAGMA synchronous", [], |row| row.get(0))?;
    if synchronous != 2 {
        return Err(StoreError::Setting { setting: "synchronous=FULL", answer: synchronous.to_string() });
    }
    migrate(&mut connection)?;
    #[cfg(test)]
    crate::steps::count(&mut connection)?;
    Ok(connection)
}

/// Opens a connection that only reads.
pub(crate) fn open_for_reading(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    settle(&connection)?;
    Ok(connection)
}

fn settle(connection: &Connection) -> Result<(), StoreError> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.execute_batch("PRAGMA cache_size = -65536; PRAGMA temp_store = MEMORY")?;
    Ok(())
}

fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let found: u32 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    match found {
        0 => {
            transaction.execute_batch(SCHEMA_1)?;
            let key: [u8; 32] = holdfast_libs_crypto::random()?;
            transaction.execute("INSERT INTO settings (name, value) VALUES ('server_key', ?)", [key])?;
            transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
        }
        SCHEMA_VERSION => {}
        found => return Err(StoreError::NewerSchema { found, known: SCHEMA_VERSION }),
    }
    transaction.commit()?;
    Ok(())
}

pub(crate) fn server_key(connection: &Connection) -> Result<[u8; 32], StoreError> {
    let key = connection
        .query_row("SELECT value FROM settings WHERE name = 'server_key'", [], |row| row.get(0))
        .optional()?;
    key.ok_or_else(|| StoreError::Damaged("the key that seals cursors is missing".to_owned()))
}

#[cfg(test)]
mod tests {
    use crate::{Store, StoreError};

    #[test]
    fn a_database_of_a_newer_schema_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        drop(Store::open(directory.path(), Box::new(|_, _| ())).unwrap());
        let path = directory.path().join("metadata.db");
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection.pragma_update(None, "user_version", 9).unwrap();
        drop(connection);
        let error = Store::open(directory.path(), Box::new(|_, _| ())).unwrap_err();
        assert!(matches!(error, StoreError::NewerSchema { found: 9, known: 1 }), "{error}");
    }

    #[test]
    fn each_database_has_its_own_key_and_keeps_it() {
        let directory = tempfile::tempdir().unwrap();
        let key = *Store::open(directory.path(), Box::new(|_, _| ())).unwrap().server_key();
        assert_eq!(Store::open(directory.path(), Box::new(|_, _| ())).unwrap().server_key(), &key);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(Store::open(other.path(), Box::new(|_, _| ())).unwrap().server_key(), &key);
    }
}
