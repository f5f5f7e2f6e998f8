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

/// `table.db` as each older version of its schema made it.
const OLDER: [&str; 2] = [include_str!("fixtures/version-2.sql"), include_str!("fixtures/version-3.sql")];

#[test]
fn a_table_of_an_older_version_is_brought_to_the_current_one_by_the_volume_manager_alone() {
    for older in OLDER {
        let dir = TempDir::new().unwrap();
        Connection::open(dir.path().join("table.db")).unwrap().execute_batch(older).unwrap();
        let early = TableFile::open_read_only(dir.path(), CELL, WallClock::system()).unwrap_err();
        assert!(matches!(early, CatalogError::Missing { .. }), "{early}");
        for term in [8, 9] {
            let table = TableFile::open(dir.path(), CELL, WallClock::system()).unwrap();
            let candidate = Candidate { holder: "manager".to_owned(), address: String::new() };
            let led = table.acquire_leadership(&candidate, Duration::from_secs(60)).unwrap();
            assert_eq!(led, Leadership::Taken(Term(term)));
            table.set_setting(Term(term), &format!("term {term}"), Some("taken")).unwrap();
            let reader = TableFile::open_read_only(dir.path(), CELL, WallClock::system()).unwrap();
            assert_eq!((reader.generation().unwrap(), reader.volumes().unwrap().len()), (3, 1));
            assert_eq!(reader.leader().unwrap().unwrap().holder, "manager");
            assert_eq!(reader.settings().unwrap().len() as u64, term - 7);
        }
    }
}
