//! The block index: rows, fences, keyring.

use std::collections::HashMap;

use holdfast_libs_types::{BlockHash, KeyId, VolumeId, WriteEpoch};
use holdfast_volume_manager_catalog::{
    BlockIndex, CatalogError, Fence, FenceReason, Fenced, IndexRow, InsertError, NewRow, VolumeInsert,
};

use proptest::prelude::{Strategy, prop, prop_oneof};
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use crate::subject::Subject;

pub const EPOCH: WriteEpoch = WriteEpoch(1);

pub fn volume(number: u8) -> VolumeId {
    VolumeId([number; 16])
}

pub fn hash(number: u64) -> BlockHash {
    BlockHash::of(&number.to_le_bytes())
}

pub fn row(number: u64, offset: u64) -> NewRow {
    NewRow { hash: hash(number), offset, length: 100, plain_len: 36 }
}

pub fn batch(number: u8, rows: Vec<NewRow>, end: u64) -> VolumeInsert {
    VolumeInsert { volume: volume(number), epoch: EPOCH, end, rows }
}

pub async fn a_block_is_found_where_it_was_inserted(subject: Subject) {
    let index = subject.open().await.index;
    index.create_fence(volume(7), EPOCH).await.unwrap();
    index.insert(&batch(7, vec![row(1, 64), row(2, 164)], 4096)).await.unwrap();
    let expected = IndexRow { volume: volume(7), offset: 164, length: 100, plain_len: 36 };
    let again = subject.open().await.index;
    assert_eq!(again.lookup(&[hash(3), hash(2)]).await.unwrap(), [None, Some(expected)]);
    assert_eq!(again.count().await.unwrap(), 2);
    let fence = Fence { epoch: EPOCH, closed: false, highest_end: 4096 };
    assert_eq!(again.fence(volume(7)).await.unwrap(), Some(fence));
}

pub async fn a_fenced_volume_leaves_the_others_of_its_transaction_alone(subject: Subject) {
    let index = subject.open().await.index;
    index.create_fence(volume(1), EPOCH).await.unwrap();
    index.create_fence(volume(2), WriteEpoch(2)).await.unwrap();
    assert_eq!(index.close_fence(volume(3), WriteEpoch(2)).await.unwrap(), 0);
    let inserts: Vec<_> = (1..=4u8).map(|at| batch(at, vec![row(u64::from(at), 64)], 4096)).collect();
    let fenced = |at, reason| Err(Fenced { volume: volume(at), reason });
    let expected = [
        Ok(()),
        fenced(2, FenceReason::OtherEpoch(WriteEpoch(2))),
        fenced(3, FenceReason::Closed),
        fenced(4, FenceReason::Missing),
    ];
    assert_eq!(index.insert_many(&inserts).await.unwrap(), expected);
    assert_eq!(index.count().await.unwrap(), 1);
}

pub async fn a_row_beyond_its_batch_is_refused_with_everything_else(subject: Subject) {
    let index = subject.open().await.index;
    index.create_fence(volume(1), EPOCH).await.unwrap();
    for bad in [row(2, 3997), row(2, u64::MAX), NewRow { length: 0, ..row(2, 64) }] {
        let error = index.insert(&batch(1, vec![row(1, 64), bad], 4096)).await.unwrap_err();
        assert!(matches!(error, InsertError::Catalog(CatalogError::BadRow { .. })), "{error}");
    }
    let error = index.insert(&batch(1, vec![], u64::MAX)).await.unwrap_err();
    assert!(matches!(error, InsertError::Catalog(CatalogError::TooLarge { .. })), "{error}");
    assert_eq!((index.count().await.unwrap(), index.fence(volume(1)).await.unwrap().unwrap().highest_end), (0, 0));
}

pub async fn a_key_is_kept_and_never_overwritten(subject: Subject) {
    let index = subject.open().await.index;
    let generation = async || index.keyring_generation().await.unwrap();
    assert_eq!((index.keys().await.unwrap(), generation().await), ((0, vec![]), 0));
    let (first, second) = (KeyId([9; 16]), KeyId([3; 16]));
    assert_eq!(index.put_key(&first, b"wrapped").await.unwrap(), 1);
    assert_eq!(index.put_key(&first, b"wrapped").await.unwrap(), 1);
    assert!(matches!(index.put_key(&first, b"other").await, Err(CatalogError::KeyTaken(key)) if key == first));
    assert_eq!(generation().await, 1, "a key that was refused or there already raises nothing");
    assert_eq!(subject.open().await.index.put_key(&second, b"more").await.unwrap(), 2);
    assert_eq!(generation().await, 2);
    assert_eq!(index.keys().await.unwrap(), (2, vec![(first, b"wrapped".to_vec()), (second, b"more".to_vec())]));
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

async fn carry_out(index: &dyn BlockIndex, step: &Step) -> Result<u64, FenceReason> {
    let reason = |error| match error {
        InsertError::Fenced(fenced) => fenced.reason,
        InsertError::Catalog(error) => panic!("{error}"),
    };
    match step {
        Step::Create(number, epoch) => {
            index.create_fence(volume(*number), WriteEpoch(*epoch)).await.map(|()| 0).map_err(reason)
        }
        Step::Insert(number, epoch, end, hashes) => {
            let rows = hashes.iter().map(|hash| row(*hash, end - 100)).collect();
            let insert = VolumeInsert { epoch: WriteEpoch(*epoch), ..batch(*number, rows, *end) };
            index.insert(&insert).await.map(|()| 0).map_err(reason)
        }
        Step::Close(number, epoch) => Ok(index.close_fence(volume(*number), WriteEpoch(*epoch)).await.unwrap()),
    }
}

/// Random steps, drawn from a seed that the name of the test stands for.
fn drawn(cases: usize) -> Vec<Vec<(bool, Step)>> {
    let mut runner = TestRunner::deterministic();
    (0..cases).map(|_| steps().new_tree(&mut runner).unwrap().current()).collect()
}

pub async fn two_handles_do_what_the_model_does(subject: Subject) {
    for steps in drawn(subject.cases()) {
        let subject = subject.another().await;
        let handles = [subject.open().await.index, subject.open().await.index];
        let mut model = Model::default();
        for (second, step) in &steps {
            let done = carry_out(&*handles[usize::from(*second)], step).await;
            assert_eq!(done, model.apply(step), "{step:?} of {steps:?}");
        }
        for number in 0..3 {
            let fence = handles[0].fence(volume(number)).await.unwrap();
            assert_eq!(fence, model.fences.get(&number).copied(), "{steps:?}");
        }
        let hashes: Vec<_> = (0..8).map(hash).collect();
        let expected: Vec<_> = (0..8).map(|at| model.rows.get(&at).copied()).collect();
        assert_eq!(handles[1].lookup(&hashes).await.unwrap(), expected, "{steps:?}");
        let rows = hashes.into_iter().zip(expected);
        let mut in_order: Vec<_> = rows.filter_map(|(hash, row)| Some((hash, row?))).collect();
        in_order.sort_by_key(|(hash, _)| *hash);
        assert_eq!(scan_by_two(&*handles[0]).await, in_order, "{steps:?}");
        assert_eq!(handles[0].count().await.unwrap(), in_order.len() as u64);
    }
}

async fn scan_by_two(index: &dyn BlockIndex) -> Vec<(BlockHash, IndexRow)> {
    let mut scanned = index.scan(None, 2).await.unwrap();
    while let Some((last, _)) = scanned.last().copied() {
        let more = index.scan(Some(last), 2).await.unwrap();
        // A scan that does not advance shows at the caller's, it must not run on for ever.
        if more.is_empty() || scanned.len() > 8 {
            break;
        }
        scanned.extend(more);
    }
    scanned
}

pub async fn a_touch_says_what_is_there_and_marks_it_once_a_day(subject: Subject) {
    let index = subject.open().await.index;
    index.create_fence(volume(1), EPOCH).await.unwrap();
    index.insert(&batch(1, (0..300).map(|at| row(at, 64 + at)).collect(), 8192)).await.unwrap();
    subject.a_day_passes().await;
    let marked = subject.touched(hash(1)).await.unwrap();
    let asked: Vec<_> = (200..400).map(hash).collect();
    let there: Vec<_> = (200..400).map(|at| at < 300).collect();
    for _ in 0..2 {
        assert_eq!(index.touch(&asked).await.unwrap(), there);
        assert_eq!(subject.touched(hash(1)).await, Some(marked));
        assert_eq!(subject.touched(hash(250)).await, Some(marked + 1));
        assert_eq!(subject.touched(hash(350)).await, None);
    }
    // Inserting it again touches it too, and leaves it where it is.
    index.create_fence(volume(2), EPOCH).await.unwrap();
    index.insert(&batch(2, vec![row(1, 64)], 4096)).await.unwrap();
    assert_eq!(subject.touched(hash(1)).await, Some(marked + 1));
    assert_eq!(index.lookup(&[hash(1)]).await.unwrap()[0].unwrap().volume, volume(1));
}

pub async fn many_blocks_are_found_in_the_order_asked_for(subject: Subject) {
    let index = subject.open().await.index;
    index.create_fence(volume(1), EPOCH).await.unwrap();
    let rows: Vec<_> = (0..700u64).map(|at| row(at, at * 100)).collect();
    index.insert(&batch(1, rows.clone(), 70_000)).await.unwrap();
    let asked: Vec<_> = (0..900u64).rev().chain([3, 3]).map(hash).collect();
    let found = index.lookup(&asked).await.unwrap();
    for (at, number) in (0..900u64).rev().chain([3, 3]).enumerate() {
        let expected = (number < 700).then_some(number * 100);
        assert_eq!(found[at].map(|row| row.offset), expected, "block {number}");
    }
    assert_eq!(index.lookup(&[]).await.unwrap(), []);
    assert_eq!(index.touch(&[]).await.unwrap(), [false; 0]);
    assert_eq!(index.scan(None, usize::MAX).await.unwrap().len(), 700);
    assert_eq!(index.scan(None, 0).await.unwrap(), []);
}
