use holdfast_libs_types::{CellId, VolumeId};
use rusqlite::Connection;
use tempfile::TempDir;

use super::TableFile;

const CELL: CellId = CellId([1; 16]);

#[test]
fn a_state_nobody_writes_is_reported_as_damage() {
    let dir = TempDir::new().unwrap();
    let table = TableFile::open(dir.path(), CELL).unwrap();
    let raw = Connection::open(dir.path().join("table.db")).unwrap();
    let insert = "INSERT INTO volumes (volume, state, epoch, capacity) VALUES (?1, 'molten', 1, 1)";
    raw.execute(insert, [[1u8; 16]]).unwrap();
    let error = table.reader().volume(VolumeId([1; 16])).unwrap_err();
    assert!(error.to_string().contains("a volume's state is \"molten\""), "{error}");
}
