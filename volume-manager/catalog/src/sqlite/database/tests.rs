use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use holdfast_libs_types::CellId;
use rusqlite::Connection;
use tempfile::TempDir;

use super::{Database, READERS, Schema, assert_durable, lock};
use crate::CatalogError;

const CELL: CellId = CellId([1; 16]);
const SCHEMA: Schema =
    Schema { file: "test.db", version: 3, create: "CREATE TABLE things (name TEXT) STRICT;", migrations: &[] };

fn open(dir: &Path) -> Result<Database, CatalogError> {
    Database::open(dir, &SCHEMA, CELL)
}

#[test]
fn every_commit_is_flushed_and_anything_less_is_refused() {
    let dir = TempDir::new().unwrap();
    let database = open(dir.path()).unwrap();
    let path = dir.path().join("test.db");
    {
        let writer = lock(database.0.writer.as_ref().unwrap());
        let synchronous: i64 = writer.pragma_query_value(None, "synchronous", |row| row.get(0)).unwrap();
        let mode: String = writer.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
        assert_eq!((synchronous, mode.as_str()), (2, "wal"));
    }
    let lax = Connection::open(&path).unwrap();
    lax.pragma_update(None, "synchronous", "NORMAL").unwrap();
    let error = assert_durable(&lax, &path).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("pragma synchronous is 1, must be 2 (FULL); this file system or SQLite cannot keep the catalog"),
        "{error}"
    );
    let other = dir.path().join("rollback.db");
    let error = assert_durable(&Connection::open(&other).unwrap(), &other).unwrap_err();
    assert!(matches!(error, CatalogError::Pragma { pragma: "journal_mode", .. }), "{error}");
}

#[test]
fn a_newer_schema_is_refused_by_writers_and_readers() {
    let dir = TempDir::new().unwrap();
    open(dir.path()).unwrap();
    let newer = Schema { version: 4, ..SCHEMA };
    let raw = Connection::open(dir.path().join("test.db")).unwrap();
    raw.execute("UPDATE meta SET value = 4 WHERE name = 'schema_version'", []).unwrap();
    for result in [open(dir.path()), Database::open_read_only(dir.path(), &SCHEMA, CELL)] {
        let error = result.unwrap_err();
        assert!(matches!(error, CatalogError::NewerSchema { found: 4, known: 3, .. }), "{error}");
    }
    Database::open(dir.path(), &newer, CELL).unwrap();
}

#[test]
fn an_older_schema_is_not_taken_for_the_current_one() {
    let dir = TempDir::new().unwrap();
    open(dir.path()).unwrap();
    let raw = Connection::open(dir.path().join("test.db")).unwrap();
    raw.execute("UPDATE meta SET value = 2 WHERE name = 'schema_version'", []).unwrap();
    assert!(matches!(open(dir.path()), Err(CatalogError::NotCatalog { .. })));
}

#[test]
fn another_cells_file_is_refused() {
    let dir = TempDir::new().unwrap();
    open(dir.path()).unwrap();
    let wanted = CellId([2; 16]);
    for result in [Database::open(dir.path(), &SCHEMA, wanted), Database::open_read_only(dir.path(), &SCHEMA, wanted)] {
        let error = result.unwrap_err();
        assert!(matches!(error, CatalogError::ForeignCell { found: CELL, .. }), "{error}");
    }
}

#[test]
fn files_that_are_something_else_are_refused() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("test.db");
    std::fs::write(&path, vec![b'x'; 8192]).unwrap();
    for result in [open(dir.path()), Database::open_read_only(dir.path(), &SCHEMA, CELL)] {
        let error = result.unwrap_err();
        assert!(error.to_string().ends_with("test.db: is not an SQLite database"), "{error}");
    }
    std::fs::remove_file(&path).unwrap();

    Connection::open(&path).unwrap().execute_batch("CREATE TABLE photos (name TEXT)").unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(error.to_string().ends_with("is the database of another program"), "{error}");

    let error = Database::open_read_only(&dir.path().join("nowhere"), &SCHEMA, CELL).unwrap_err();
    assert!(matches!(error, CatalogError::Missing { .. }), "{error}");
    std::fs::write(dir.path().join("file"), b"").unwrap();
    let error = open(&dir.path().join("file")).unwrap_err();
    assert!(matches!(error, CatalogError::File { .. }), "{error}");
}

#[test]
fn the_other_file_of_the_catalog_is_refused() {
    let dir = TempDir::new().unwrap();
    Database::open(dir.path(), &Schema { file: "other.db", ..SCHEMA }, CELL).unwrap();
    std::fs::rename(dir.path().join("other.db"), dir.path().join("test.db")).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(error.to_string().ends_with("holds other.db, not test.db"), "{error}");
}

#[test]
fn many_may_open_a_new_folder_at_once() {
    let dir = TempDir::new().unwrap();
    std::thread::scope(|scope| {
        let opened: Vec<_> = (0..8).map(|_| scope.spawn(|| open(dir.path()).map(|_| ()))).collect();
        for result in opened {
            result.join().unwrap().unwrap();
        }
    });
}

#[test]
fn a_failed_write_changes_nothing() {
    let dir = TempDir::new().unwrap();
    let database = open(dir.path()).unwrap();
    let failed: Result<(), CatalogError> = database.write(|tx| {
        tx.execute("INSERT INTO things VALUES ('half')", [])?;
        Err(CatalogError::Busy)
    });
    assert!(failed.is_err());
    let count: i64 =
        database.read(|tx| Ok(tx.query_row("SELECT count(*) FROM things", [], |row| row.get(0))?)).unwrap();
    assert_eq!(count, 0);
}

#[test]
fn readers_wait_for_one_of_a_bounded_number_of_connections() {
    let dir = TempDir::new().unwrap();
    let database = open(dir.path()).unwrap();
    let (asked, now, most) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let threads = READERS * 4;
    let limit = Instant::now() + Duration::from_secs(20);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                asked.fetch_add(1, Ordering::SeqCst);
                database
                    .read(|tx| {
                        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        // Nobody gives a connection back before everybody has asked for one.
                        while asked.load(Ordering::SeqCst) < threads && Instant::now() < limit {
                            std::thread::yield_now();
                        }
                        let written = tx.execute("INSERT INTO things VALUES ('by a reader')", []);
                        assert!(written.is_err());
                        now.fetch_sub(1, Ordering::SeqCst);
                        Ok(())
                    })
                    .unwrap();
            });
        }
    });
    assert!(most.load(Ordering::SeqCst) <= READERS);
    let readers = lock(&database.0.readers);
    assert_eq!(readers.idle.len(), readers.made);
}
