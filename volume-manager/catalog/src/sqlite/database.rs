//! One SQLite file: opening it safely, one writing connection, a small pool of reading ones.
//!
//! Several processes have the same file open. WAL lets them read while one writes; `BEGIN IMMEDIATE` and the busy timeout
//! make writers wait for each other instead of failing half-way. In WAL mode `synchronous=FULL` flushes the log at every
//! commit; NORMAL would lose the last commits in a power cut, which here means acknowledged blocks. So it is read back.

#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use holdfast_libs_types::CellId;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction, TransactionBehavior};

use crate::CatalogError;

/// How long a write waits for another process's write.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest sleep between two tries at the write lock. SQLite's own handler goes up to 100 ms, and then hardly ever meets the
/// moment between two commits of a steady writer: one busy frontend kept `close_fence` out for more than 10 s.
const BUSY_POLL_US: u64 = 1500;

/// Reading connections of one handle: what is asked for beyond waits, so that memory and files stay bounded.
const READERS: usize = 8;

/// Bytes the write-ahead log is cut back to after a checkpoint.
const WAL_LIMIT_BYTES: i64 = 64 << 20;

/// Page cache of a connection, in KiB (SQLite counts KiB as negative numbers).
const CACHE_KIB: i64 = 8192;

/// What distinguishes one of the two files.
#[derive(Debug)]
pub(crate) struct Schema {
    /// File name in the catalog's folder.
    pub file: &'static str,
    /// Newest version known.
    pub version: i64,
    /// Makes version `version` in an empty file.
    pub create: &'static str,
    /// What leads from an older version to the next: that older version, and the statements.
    pub migrations: &'static [(i64, &'static str)],
}

/// An open file; clones share its connections.
#[derive(Debug, Clone)]
pub(crate) struct Database(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    /// None when opened for reading only.
    writer: Option<Mutex<Connection>>,
    readers: Mutex<Readers>,
    returned: Condvar,
}

#[derive(Debug, Default)]
struct Readers {
    idle: Vec<Connection>,
    made: usize,
}

/// The data under these locks is a connection, which stays usable when a holder panicked: its transaction rolls back.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Database {
    /// Opens the file in `dir`, making folder, file and schema when they are missing.
    pub fn open(dir: &Path, schema: &Schema, cell: CellId) -> Result<Self, CatalogError> {
        std::fs::create_dir_all(dir).map_err(|source| CatalogError::File { path: dir.into(), source })?;
        let path = dir.join(schema.file);
        let fresh = !path.exists();
        let mut connection = connect(&path, OpenFlags::SQLITE_OPEN_CREATE)?;
        make_durable(&connection, &path)?;
        prepare(&mut connection, &path, schema, cell)?;
        if fresh {
            // SQLite flushes the folder for its journals, but the new file's own name must be durable too.
            let flushed = std::fs::File::open(dir).and_then(|folder| folder.sync_all());
            flushed.map_err(|source| CatalogError::File { path: dir.into(), source })?;
        }
        Ok(Self::new(path, Some(connection)))
    }

    /// Opens the file for reading; it must be there.
    pub fn open_read_only(dir: &Path, schema: &Schema, cell: CellId) -> Result<Self, CatalogError> {
        let path = dir.join(schema.file);
        if !path.exists() {
            return Err(CatalogError::Missing { place: shown(&path) });
        }
        let database = Self::new(path, None);
        let path = &database.0.path;
        match database.read(|tx| check_meta(tx, path, schema, cell))? {
            Some(version) if version == schema.version => {}
            // The volume manager makes it, or brings it to this version.
            _ => return Err(CatalogError::Missing { place: shown(path) }),
        }
        Ok(database)
    }

    fn new(path: PathBuf, writer: Option<Connection>) -> Self {
        let writer = writer.map(Mutex::new);
        Self(Arc::new(Inner { path, writer, readers: Mutex::default(), returned: Condvar::new() }))
    }

    /// Writes a copy of the file, as of one moment, to a new file.
    pub fn copy_into(&self, path: &Path) -> Result<(), CatalogError> {
        let connection = connect(&self.0.path, OpenFlags::empty())?;
        let path = path.to_str().ok_or_else(|| CatalogError::NotCatalog {
            place: shown(path),
            what: "has a name that is not UTF-8; choose another".into(),
        })?;
        connection.execute("VACUUM INTO ?1", [path])?;
        Ok(())
    }

    /// Brings everything from the log into the file itself, which is whole without it afterwards.
    pub fn settle(&self) -> Result<(), CatalogError> {
        let Some(writer) = &self.0.writer else { return Ok(()) };
        let busy: i64 = lock(writer).query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
        if busy == 0 { Ok(()) } else { Err(CatalogError::Busy) }
    }

    /// Runs `work` on one snapshot of the file.
    pub fn read<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T, CatalogError>) -> Result<T, CatalogError> {
        let mut lent = self.reader()?;
        let connection = lent.connection.as_mut().ok_or_else(|| CatalogError::Damaged("no connection".into()))?;
        let tx = connection.transaction()?;
        let result = work(&tx);
        tx.finish()?;
        result
    }

    /// Runs `work` in a write transaction; when it fails, nothing changes. Durable when this returns.
    pub fn write<T, E: From<CatalogError> + From<rusqlite::Error>>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let Some(writer) = &self.0.writer else {
            return Err(CatalogError::Missing { place: shown(&self.0.path) }.into());
        };
        let mut connection = lock(writer);
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let done = work(&tx)?;
        tx.commit()?;
        Ok(done)
    }

    fn reader(&self) -> Result<Lent<'_>, CatalogError> {
        let mut readers = lock(&self.0.readers);
        while readers.idle.is_empty() && readers.made >= READERS {
            readers = self.0.returned.wait(readers).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(connection) = readers.idle.pop() {
            return Ok(Lent { inner: &self.0, connection: Some(connection) });
        }
        readers.made += 1;
        drop(readers);
        // Given back by `Lent` also when opening fails: then only the count is.
        let mut lent = Lent { inner: &self.0, connection: None };
        let connection = connect(&self.0.path, OpenFlags::empty())?;
        connection.pragma_update(None, "query_only", true)?;
        lent.connection = Some(connection);
        Ok(lent)
    }
}

/// A reading connection on loan.
struct Lent<'a> {
    inner: &'a Inner,
    connection: Option<Connection>,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let mut readers = lock(&self.inner.readers);
        match self.connection.take() {
            Some(connection) if connection.is_autocommit() => readers.idle.push(connection),
            _ => readers.made -= 1,
        }
        drop(readers);
        self.inner.returned.notify_one();
    }
}

fn connect(path: &Path, extra: OpenFlags) -> Result<Connection, CatalogError> {
    // No shared cache, and no mutex inside SQLite: a connection has one user at a time.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | extra;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_handler(Some(wait_for_lock))?;
    connection.set_prepared_statement_cache_capacity(64);
    // The first statement that looks into the file.
    let cached = connection.pragma_update(None, "cache_size", -CACHE_KIB);
    match cached.as_ref().err().and_then(rusqlite::Error::sqlite_error_code) {
        Some(ErrorCode::NotADatabase) => {
            Err(CatalogError::NotCatalog { place: shown(path), what: "is not an SQLite database".into() })
        }
        _ => Ok(cached.map(|()| connection)?),
    }
}

thread_local! {
    /// When this thread began to wait for a lock.
    static WAITING_SINCE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// SQLite asks after each failed try, counted from 0 for each lock, whether to try again. Sleeps of unequal length keep two
/// waiters, or a waiter and a writer with a beat of its own, from running in step.
fn wait_for_lock(tries: i32) -> bool {
    let now = Instant::now();
    let since = match WAITING_SINCE.get() {
        Some(since) if tries > 0 => since,
        _ => now,
    };
    WAITING_SINCE.set(Some(since));
    if now.duration_since(since) >= BUSY_TIMEOUT {
        return false;
    }
    let beat = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().subsec_nanos();
    std::thread::sleep(Duration::from_micros(BUSY_POLL_US / 5 + u64::from(beat) / 7 % (BUSY_POLL_US * 4 / 5)));
    true
}

/// Sets what durability rests on and reads it back.
fn make_durable(connection: &Connection, path: &Path) -> Result<(), CatalogError> {
    let deadline = Instant::now() + BUSY_TIMEOUT;
    // Turning a new file to WAL does not wait for another process that does the same, so it is repeated here.
    loop {
        let turned = connection.query_row("PRAGMA journal_mode=WAL", [], |row| row.get::<_, String>(0));
        match turned {
            Ok(_) => break,
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(error.into()),
        }
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "journal_size_limit", WAL_LIMIT_BYTES)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    assert_durable(connection, path)
}

/// Fails unless the log is a WAL that is flushed at every commit.
pub(crate) fn assert_durable(connection: &Connection, path: &Path) -> Result<(), CatalogError> {
    let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    if mode != "wal" {
        return Err(CatalogError::Pragma { path: path.into(), pragma: "journal_mode", wanted: "wal", found: mode });
    }
    let synchronous: i64 = connection.pragma_query_value(None, "synchronous", |row| row.get(0))?;
    if synchronous != 2 {
        let found = synchronous.to_string();
        return Err(CatalogError::Pragma { path: path.into(), pragma: "synchronous", wanted: "2 (FULL)", found });
    }
    Ok(())
}

/// Makes the schema in an empty file, or checks the one that is there.
fn prepare(connection: &mut Connection, path: &Path, schema: &Schema, cell: CellId) -> Result<(), CatalogError> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = check_meta(&tx, path, schema, cell)?;
    if let Some(found) = found {
        for (from, statements) in schema.migrations.iter().filter(|(from, _)| *from >= found) {
            tx.execute_batch(statements)?;
            tx.execute("UPDATE meta SET value = ?1 WHERE name = 'schema_version'", [from + 1])?;
        }
    } else {
        tx.execute_batch(
            "CREATE TABLE meta (name TEXT PRIMARY KEY NOT NULL, value ANY NOT NULL) STRICT, WITHOUT ROWID;",
        )?;
        tx.execute_batch(schema.create)?;
        let mut set = tx.prepare("INSERT INTO meta (name, value) VALUES (?1, ?2)")?;
        set.execute(("schema_version", schema.version))?;
        set.execute(("cell", cell.as_bytes()))?;
        set.execute(("file", schema.file))?;
    }
    tx.commit()?;
    Ok(())
}

/// The version of the file's schema, None when it has none; fails when it is a newer one, one that is not known, another
/// file's or another cell's.
fn check_meta(tx: &Transaction<'_>, path: &Path, schema: &Schema, cell: CellId) -> Result<Option<i64>, CatalogError> {
    let tables: i64 = tx.query_row("SELECT count(*) FROM sqlite_schema WHERE type = 'table'", [], |row| row.get(0))?;
    if tables == 0 {
        return Ok(None);
    }
    let not = |what: String| CatalogError::NotCatalog { place: shown(path), what };
    let has_meta = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'meta'";
    if tx.query_row(has_meta, [], |_| Ok(())).optional()?.is_none() {
        return Err(not("is the database of another program".into()));
    }
    let version: Option<i64> = meta(tx, "schema_version")?;
    let version = version.ok_or_else(|| not("names no schema version".into()))?;
    if version > schema.version {
        return Err(CatalogError::NewerSchema { place: shown(path), found: version, known: schema.version });
    }
    if version < schema.version && !schema.migrations.iter().any(|(from, _)| *from == version) {
        // A migration is written with the version that needs it.
        return Err(not(format!("schema version {version} is older than {} and unknown here", schema.version)));
    }
    let file: Option<String> = meta(tx, "file")?;
    if file.as_deref() != Some(schema.file) {
        return Err(not(format!("holds {}, not {}", file.as_deref().unwrap_or("something else"), schema.file)));
    }
    let found: Option<[u8; 16]> = meta(tx, "cell")?;
    let found = CellId(found.ok_or_else(|| not("names no cell".into()))?);
    if found != cell {
        return Err(CatalogError::ForeignCell { place: shown(path), found, wanted: cell });
    }
    Ok(Some(version))
}

/// A file's name, for messages.
fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn meta<T: rusqlite::types::FromSql>(tx: &Transaction<'_>, name: &str) -> Result<Option<T>, CatalogError> {
    let mut statement = tx.prepare_cached("SELECT value FROM meta WHERE name = ?1")?;
    Ok(statement.query_row([name], |row| row.get(0)).optional()?)
}
