use std::time::Duration;

use holdfast_libs_surroundings::WallClock;
use holdfast_libs_types::{CellId, VolumeId};
use rusqlite::Connection;
use tempfile::TempDir;

use super::TableFile;
use crate::CatalogError;
use crate::table::{Candidate, Leadership, Term};

const CELL: CellId = CellId([1; 16]);

#[test]
fn a_state_nobody_writes_is_reported_as_damage() {
    let dir = TempDir::new().unwrap();
    let table = TableFile::open(dir.path(), CELL, WallClock::system()).unwrap();
    let raw = Connection::open(dir.path().join("table.db")).unwrap();
    let insert = "INSERT INTO volumes (volume, state, epoch, capacity) VALUES (?1, 'molten', 1, 1)";
    raw.execute(insert, [[1u8; 16]]).unwrap();
    let error = table.reader().volume(VolumeId([1; 16])).unwrap_err();
    assert!(error.to_string().contains("a volume's state is \"molten\""), "{error}");
}

/// `table.db` as version 2 of its schema made it, with a leader's row in use.
const VERSION_2: &str = "
    CREATE TABLE meta (name TEXT PRIMARY KEY NOT NULL, value ANY NOT NULL) STRICT, WITHOUT ROWID;
    INSERT INTO meta VALUES ('schema_version', 2), ('cell', x'01010101010101010101010101010101'), ('file', 'table.db');
    CREATE TABLE leader (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        term INTEGER NOT NULL,
        generation INTEGER NOT NULL
    ) STRICT;
    INSERT INTO leader (one, term, generation) VALUES (1, 7, 3);
    CREATE TABLE volumes (
        volume BLOB PRIMARY KEY NOT NULL,
        state TEXT NOT NULL,
        epoch INTEGER NOT NULL,
        capacity INTEGER NOT NULL,
        length INTEGER,
        digest BLOB,
        holder BLOB,
        lease_expires_ms INTEGER,
        seal_reason TEXT
    ) STRICT, WITHOUT ROWID;
    INSERT INTO volumes VALUES (x'09090909090909090909090909090909', 'open', 1, 4096, NULL, NULL, NULL, NULL, NULL);
    CREATE INDEX volumes_by_state ON volumes (state);
    CREATE TABLE nodes (
        node TEXT PRIMARY KEY NOT NULL,
        zone TEXT NOT NULL,
        rack TEXT NOT NULL,
        address TEXT NOT NULL,
        instance BLOB NOT NULL,
        last_seen_ms INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE disks (
        disk BLOB PRIMARY KEY NOT NULL,
        node TEXT NOT NULL REFERENCES nodes (node),
        path TEXT NOT NULL,
        incarnation INTEGER NOT NULL,
        nonce INTEGER NOT NULL,
        state TEXT NOT NULL,
        reason TEXT,
        slot_bytes INTEGER NOT NULL,
        volume_bytes INTEGER NOT NULL,
        slots INTEGER NOT NULL,
        free_slots INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE replicas (
        volume BLOB NOT NULL REFERENCES volumes (volume),
        place INTEGER NOT NULL,
        disk BLOB NOT NULL REFERENCES disks (disk),
        PRIMARY KEY (volume, place),
        UNIQUE (disk, volume)
    ) STRICT, WITHOUT ROWID;";

#[test]
fn a_table_of_version_2_is_brought_to_the_current_one_by_the_volume_manager_alone() {
    let dir = TempDir::new().unwrap();
    Connection::open(dir.path().join("table.db")).unwrap().execute_batch(VERSION_2).unwrap();
    let early = TableFile::open_read_only(dir.path(), CELL, WallClock::system()).unwrap_err();
    assert!(matches!(early, CatalogError::Missing { .. }), "{early}");
    for term in [8, 9] {
        let table = TableFile::open(dir.path(), CELL, WallClock::system()).unwrap();
        let candidate = Candidate { holder: "manager".to_owned(), address: String::new() };
        let led = table.acquire_leadership(&candidate, Duration::from_secs(60)).unwrap();
        assert_eq!(led, Leadership::Taken(Term(term)));
        let reader = TableFile::open_read_only(dir.path(), CELL, WallClock::system()).unwrap();
        assert_eq!((reader.generation().unwrap(), reader.volumes().unwrap().len()), (3, 1));
        assert_eq!(reader.leader().unwrap().unwrap().holder, "manager");
    }
}
