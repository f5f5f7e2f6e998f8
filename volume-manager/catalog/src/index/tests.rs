use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use holdfast_libs_types::{BlockHash, CellId, KeyId, VolumeId, WriteEpoch};
use proptest::prelude::{ProptestConfig, Strategy, prop, prop_assert_eq, prop_oneof, proptest};
use rusqlite::Connection;
use tempfile::TempDir;

use super::{BlockIndex, Fence, IndexRow, NewRow, VolumeInsert, rows, today};
use crate::{CatalogError, FenceReason, Fenced, InsertError};

const CELL: CellId = CellId([1; 16]);
const EPOCH: WriteEpoch = WriteEpoch(1);

fn open(dir: &TempDir) -> BlockIndex {
    BlockIndex::open(dir.path(), CELL).unwrap()
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
fn a_block_is_found_where_it_was_inserted() {
    let dir = TempDir::new().unwrap();
    let index = open(&dir);
    index.create_fence(volume(7), EPOCH).unwrap();
    index.insert(&batch(7, vec![row(1, 64), row(2, 164)], 4096)).unwrap();
    let expected = IndexRow { volume: volume(7), offset: 164, length: 100, plain_len: 36 };
    let again = open(&dir);
    assert_eq!(again.lookup(&[hash(3), hash(2)]).unwrap(), [None, Some(expected)]);
    assert_eq!(again.count().unwrap(), 2);
    let fence = Fence { epoch: EPOCH, closed: false, highest_end: 4096 };
    assert_eq!(again.fence(volume(7)).unwrap(), Some(fence));
}

#[test]
fn a_fenced_volume_leaves_the_others_of_its_transaction_alone() {
    let dir = TempDir::new().unwrap();
    let index = open(&dir);
    index.create_fence(volume(1), EPOCH).unwrap();
    index.create_fence(volume(2), WriteEpoch(2)).unwrap();
    assert_eq!(index.close_fence(volume(3), WriteEpoch(2)).unwrap(), 0);
    let inserts: Vec<_> = (1..=4u8).map(|at| batch(at, vec![row(u64::from(at), 64)], 4096)).collect();
    let fenced = |at, reason| Err(Fenced { volume: volume(at), reason });
    let expected = [
        Ok(()),
        fenced(2, FenceReason::OtherEpoch(WriteEpoch(2))),
        fenced(3, FenceReason::Closed),
        fenced(4, FenceReason::Missing),
    ];
    assert_eq!(index.insert_many(&inserts).unwrap(), expected);
    assert_eq!(index.count().unwrap(), 1);
}

#[test]
fn a_row_beyond_its_batch_is_refused_with_everything_else() {
    let dir = TempDir::new().unwrap();
    let index = open(&dir);
    index.create_fence(volume(1), EPOCH).unwrap();
    for bad in [row(2, 3997), row(2, u64::MAX), NewRow { length: 0, ..row(2, 64) }] {
        let error = index.insert(&batch(1, vec![row(1, 64), bad], 4096)).unwrap_err();
        assert!(matches!(error, InsertError::Catalog(CatalogError::BadRow { .. })), "{error}");
    }
    let error = index.insert(&batch(1, vec![], u64::MAX)).unwrap_err();
    assert!(matches!(error, InsertError::Catalog(CatalogError::TooLarge { .. })), "{error}");
    assert_eq!((index.count().unwrap(), index.fence(volume(1)).unwrap().unwrap().highest_end), (0, 0));
}

/// Steps of the property test. Volumes are 0..3, hashes 0..8.
#[derive(Debug, Clone)]
enum Step {
    Create(u8, u64),
    Insert(u8, u64, u64, Vec<u64>),
    Close(u8, u64),
}

fn steps() -> impl Strategy<Value = Vec<(bool, Step)>> {
    let step = prop_oneof![
        (0..3u8, 1..3u64).prop_map(|(volume, epoch)| Step::Create(volume, epoch)),
        (0..3u8, 1..3u64, 1..9u64, prop::collection::vec(0..8u64, 0..4))
            .prop_map(|(volume, epoch, end, hashes)| Step::Insert(volume, epoch, end * 4096, hashes)),
        (0..3u8, 1..4u64).prop_map(|(volume, epoch)| Step::Close(volume, epoch)),
    ];
    prop::collection::vec((proptest::bool::ANY, step), 1..25)
}

/// What the index must be, in memory.
#[derive(Default)]
struct Model {
    fences: HashMap<u8, Fence>,
    rows: HashMap<u64, IndexRow>,
}

impl Model {
    fn admits(&self, number: u8, epoch: u64) -> Result<(), FenceReason> {
        match self.fences.get(&number) {
            None => Err(FenceReason::Missing),
            Some(fence) if fence.closed => Err(FenceReason::Closed),
            Some(fence) if fence.epoch.0 != epoch => Err(FenceReason::OtherEpoch(fence.epoch)),
            Some(_) => Ok(()),
        }
    }

    fn apply(&mut self, step: &Step) -> Result<u64, FenceReason> {
        match step {
            Step::Create(number, epoch) => match self.admits(*number, *epoch) {
                Err(FenceReason::Missing) => {
                    let fence = Fence { epoch: WriteEpoch(*epoch), closed: false, highest_end: 0 };
                    self.fences.insert(*number, fence);
                    Ok(0)
                }
                other => other.map(|()| 0),
            },
            Step::Insert(number, epoch, end, hashes) => {
                self.admits(*number, *epoch)?;
                let fence = self.fences.get_mut(number).unwrap();
                fence.highest_end = fence.highest_end.max(*end);
                for hash in hashes {
                    let row = IndexRow { volume: volume(*number), offset: end - 100, length: 100, plain_len: 36 };
                    self.rows.entry(*hash).or_insert(row);
                }
                Ok(0)
            }
            Step::Close(number, epoch) => {
                let unknown = Fence { epoch: WriteEpoch(0), closed: true, highest_end: 0 };
                let fence = self.fences.entry(*number).or_insert(unknown);
                fence.closed = true;
                fence.epoch = fence.epoch.max(WriteEpoch(*epoch));
                Ok(fence.highest_end)
            }
        }
    }
}

fn apply(index: &BlockIndex, step: &Step) -> Result<u64, FenceReason> {
    let reason = |error| match error {
        InsertError::Fenced(fenced) => fenced.reason,
        InsertError::Catalog(error) => panic!("{error}"),
    };
    match step {
        Step::Create(number, epoch) => {
            index.create_fence(volume(*number), WriteEpoch(*epoch)).map(|()| 0).map_err(reason)
        }
        Step::Insert(number, epoch, end, hashes) => {
            let rows = hashes.iter().map(|hash| row(*hash, end - 100)).collect();
            let insert = VolumeInsert { epoch: WriteEpoch(*epoch), ..batch(*number, rows, *end) };
            index.insert(&insert).map(|()| 0).map_err(reason)
        }
        Step::Close(number, epoch) => Ok(index.close_fence(volume(*number), WriteEpoch(*epoch)).unwrap()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn two_handles_do_what_the_model_does(steps in steps()) {
        let dir = TempDir::new().unwrap();
        let handles = [open(&dir), open(&dir)];
        let mut model = Model::default();
        for (second, step) in &steps {
            prop_assert_eq!(apply(&handles[usize::from(*second)], step), model.apply(step), "{:?}", step);
        }
        for number in 0..3 {
            prop_assert_eq!(handles[0].fence(volume(number)).unwrap(), model.fences.get(&number).copied());
        }
        let hashes: Vec<_> = (0..8).map(hash).collect();
        let expected: Vec<_> = (0..8).map(|at| model.rows.get(&at).copied()).collect();
        prop_assert_eq!(handles[1].lookup(&hashes).unwrap(), expected.clone());
        let mut in_order: Vec<_> = hashes.into_iter().zip(expected).filter_map(|(hash, row)| Some((hash, row?))).collect();
        in_order.sort_by_key(|(hash, _)| *hash);
        let mut scanned = handles[0].scan(None, 2).unwrap();
        while let Some((last, _)) = scanned.last().copied() {
            let more = handles[0].scan(Some(last), 2).unwrap();
            // A scan that does not advance shows below, it must not run on for ever.
            if more.is_empty() || scanned.len() > 8 {
                break;
            }
            scanned.extend(more);
        }
        prop_assert_eq!(scanned, in_order);
    }
}

#[test]
fn no_insert_lands_after_a_close_however_they_interleave() {
    let dir = TempDir::new().unwrap();
    let closer = open(&dir);
    let limit = Instant::now() + Duration::from_secs(60);
    for round in 0..8u8 {
        closer.create_fence(volume(round), EPOCH).unwrap();
        let started = AtomicBool::new(false);
        let writers = [open(&dir), open(&dir)];
        // A lane that is never fenced must not keep the test alive after another one panicked.
        let write = |index: &BlockIndex, lane: u64| {
            let mut highest = 0;
            for turn in 1u64.. {
                assert!(Instant::now() < limit, "not fenced");
                let end = (turn * 2 + lane) * 4096;
                let rows = vec![row(u64::from(round) << 32 | end, end - 100)];
                match index.insert(&batch(round, rows, end)) {
                    Ok(()) => highest = end,
                    Err(InsertError::Fenced(_)) => break,
                    Err(InsertError::Catalog(error)) => panic!("{error}"),
                }
                started.store(true, Ordering::Release);
            }
            highest
        };
        let (floor, ends) = std::thread::scope(|scope| {
            let lanes = [scope.spawn(|| write(&writers[0], 0)), scope.spawn(|| write(&writers[1], 1))];
            while !started.load(Ordering::Acquire) && Instant::now() < limit {
                std::thread::yield_now();
            }
            let floor = closer.close_fence(volume(round), WriteEpoch(2)).unwrap();
            (floor, lanes.map(|lane| lane.join().unwrap()))
        });
        assert_eq!(floor, ends.into_iter().max().unwrap(), "round {round}");
        assert_eq!(closer.close_fence(volume(round), WriteEpoch(2)).unwrap(), floor);
    }
    let rows = closer.scan(None, usize::MAX).unwrap();
    for (_, row) in rows {
        assert!(row.offset + 100 <= closer.fence(row.volume).unwrap().unwrap().highest_end);
    }
}

#[test]
fn a_touch_marks_the_day_once_and_then_writes_nothing() {
    let dir = TempDir::new().unwrap();
    let index = open(&dir);
    index.create_fence(volume(1), EPOCH).unwrap();
    index.insert(&batch(1, vec![row(1, 64), row(2, 164)], 4096)).unwrap();
    let mark = |number| index.db.read(|tx| rows::mark(tx, hash(number))).unwrap();
    assert_eq!(mark(1), Some(today()));
    let tomorrow = today() + 1;
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
fn a_key_is_kept_and_never_overwritten() {
    let dir = TempDir::new().unwrap();
    let index = open(&dir);
    assert_eq!(index.keys().unwrap(), (0, vec![]));
    let (first, second) = (KeyId([9; 16]), KeyId([3; 16]));
    assert_eq!(index.put_key(&first, b"wrapped").unwrap(), 1);
    assert_eq!(index.put_key(&first, b"wrapped").unwrap(), 1);
    assert!(matches!(index.put_key(&first, b"other"), Err(CatalogError::KeyTaken(key)) if key == first));
    assert_eq!(open(&dir).put_key(&second, b"more").unwrap(), 2);
    assert_eq!(index.keys().unwrap(), (2, vec![(first, b"wrapped".to_vec()), (second, b"more".to_vec())]));
}

#[test]
fn a_row_takes_less_than_seventy_bytes() {
    const ROWS: u64 = 20_000;
    let dir = TempDir::new().unwrap();
    let index = open(&dir);
    index.create_fence(volume(1), EPOCH).unwrap();
    let whole = |at: u64| NewRow { offset: at * 4_194_432 + 64, length: 4_194_432, plain_len: 4_194_304, ..row(at, 0) };
    let end = ROWS * 4_194_432 + 4096;
    index.insert(&batch(1, (0..ROWS).map(whole).collect(), end)).unwrap();
    let database = raw(dir.path());
    let pages: u64 = database.pragma_query_value(None, "page_count", |row| row.get::<_, u32>(0)).unwrap().into();
    let bytes = pages * 4096 / ROWS;
    assert!((40..70).contains(&bytes), "{bytes} bytes a row");
}
