use std::path::Path;
use std::time::{Duration, Instant};

use holdfast_libs_surroundings::WallClock;
use holdfast_libs_types::{BlockHash, CellId, VolumeId, WriteEpoch};
use rusqlite::Connection;
use tempfile::TempDir;

use super::{IndexFile, rows};
use crate::index::{NewRow, VolumeInsert, today};

const CELL: CellId = CellId([1; 16]);
const EPOCH: WriteEpoch = WriteEpoch(1);

fn open(dir: &TempDir) -> IndexFile {
    IndexFile::open(dir.path(), CELL, WallClock::system()).unwrap()
}

fn volume(number: u8) -> VolumeId {
    VolumeId([number; 16])
}

fn hash(number: u64) -> BlockHash {
    BlockHash::of(&number.to_le_bytes())
}

fn row(number: u64, offset: u64) -> NewRow {
    NewRow { hash: hash(number), offset, length: 100, plain_len: 36 }
}

fn batch(number: u8, rows: Vec<NewRow>, end: u64) -> VolumeInsert {
    VolumeInsert { volume: volume(number), epoch: EPOCH, end, rows }
}

fn raw(dir: &Path) -> Connection {
    Connection::open(dir.join("index.db")).unwrap()
}

#[test]
fn a_touch_marks_the_day_once_and_then_writes_nothing() {
    let dir = TempDir::new().unwrap();
    let index = open(&dir);
    index.create_fence(volume(1), EPOCH).unwrap();
    index.insert_many(&[batch(1, vec![row(1, 64), row(2, 164)], 4096)]).unwrap()[0].clone().unwrap();
    let mark = |number| index.db.read(|tx| rows::mark(tx, hash(number))).unwrap();
    assert_eq!(mark(1), Some(today(&WallClock::system())));
    let tomorrow = today(&WallClock::system()) + 1;
    let asked = [hash(1), hash(9), hash(1)];
    assert_eq!(rows::touch(&index.db, &asked, tomorrow).unwrap(), [true, false, true]);
    assert_eq!((mark(1), mark(2), mark(9)), (Some(tomorrow), Some(tomorrow - 1), None));

    // Somebody else holds the write lock: what writes nothing does not wait for it.
    let other = raw(dir.path());
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let begun = Instant::now();
    assert_eq!(rows::touch(&index.db, &asked, tomorrow).unwrap(), [true, false, true]);
    assert_eq!(rows::touch(&index.db, &asked, tomorrow - 1).unwrap(), [true, false, true]);
    assert!(begun.elapsed() < Duration::from_secs(5));
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(mark(1), Some(tomorrow));
}

#[test]
fn inserting_a_block_again_touches_it_and_keeps_its_row() {
    let dir = TempDir::new().unwrap();
    let index = open(&dir);
    index.create_fence(volume(1), EPOCH).unwrap();
    index.create_fence(volume(2), EPOCH).unwrap();
    let first = [batch(1, vec![row(1, 64)], 4096)];
    rows::insert_many(&index.db, &first, 10).unwrap()[0].clone().unwrap();
    rows::insert_many(&index.db, &[batch(2, vec![row(1, 64)], 4096)], 12).unwrap()[0].clone().unwrap();
    rows::insert_many(&index.db, &first, 11).unwrap()[0].clone().unwrap();
    assert_eq!(index.lookup(&[hash(1)]).unwrap()[0].unwrap().volume, volume(1));
    assert_eq!(index.db.read(|tx| rows::mark(tx, hash(1))).unwrap(), Some(12));
}

#[test]
fn a_row_takes_less_than_seventy_bytes() {
    const ROWS: u64 = 20_000;
    let dir = TempDir::new().unwrap();
    let index = open(&dir);
    index.create_fence(volume(1), EPOCH).unwrap();
    let whole = |at: u64| NewRow { offset: at * 4_194_432 + 64, length: 4_194_432, plain_len: 4_194_304, ..row(at, 0) };
    let end = ROWS * 4_194_432 + 4096;
    index.insert_many(&[batch(1, (0..ROWS).map(whole).collect(), end)]).unwrap()[0].clone().unwrap();
    let database = raw(dir.path());
    let pages: u64 = database.pragma_query_value(None, "page_count", |row| row.get::<_, u32>(0)).unwrap().into();
    let bytes = pages * 4096 / ROWS;
    assert!((40..70).contains(&bytes), "{bytes} bytes a row");
}
