//! Several processes on one catalog at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use holdfast_libs_types::{BlockHash, WriteEpoch};
use holdfast_volume_manager_catalog::{BlockIndex, InsertError};

use crate::index::{EPOCH, batch, hash, row, volume};
use crate::subject::Subject;

/// Rows of one batch; enough that several shards get some.
const ROWS: u64 = 8;

/// Inserts batches into a volume until its fence refuses one. Answers the highest end that was taken and the blocks of the
/// batches that were.
async fn write_until_fenced(
    index: Arc<dyn BlockIndex>,
    number: u8,
    lane: u64,
    started: Arc<AtomicBool>,
) -> (u64, Vec<BlockHash>) {
    let limit = Instant::now() + Duration::from_secs(60);
    let (mut highest, mut taken) = (0, Vec::new());
    for turn in 1u64.. {
        assert!(Instant::now() < limit, "not fenced");
        let end = (turn * 2 + lane) * 4096;
        let first = end - ROWS * 100;
        let rows: Vec<_> = (0..ROWS).map(|at| row(u64::from(number) << 40 | end << 8 | at, first + at * 100)).collect();
        let hashes: Vec<_> = rows.iter().map(|row| row.hash).collect();
        match index.insert(&batch(number, rows, end)).await {
            Ok(()) => {
                highest = end;
                taken.extend(hashes);
            }
            Err(InsertError::Fenced(_)) => break,
            Err(InsertError::Catalog(error)) => panic!("{error}"),
        }
        started.store(true, Ordering::Release);
    }
    (highest, taken)
}

pub async fn no_insert_lands_after_a_close_however_they_interleave(subject: Subject) {
    let closer = subject.open().await.index;
    let mut acknowledged = Vec::new();
    let mut floors = HashMap::new();
    for round in 0..8u8 {
        closer.create_fence(volume(round), EPOCH).await.unwrap();
        let started = Arc::new(AtomicBool::new(false));
        let mut lanes = Vec::new();
        for lane in 0..2 {
            let index = subject.open().await.index;
            lanes.push(tokio::spawn(write_until_fenced(index, round, lane, started.clone())));
        }
        let limit = Instant::now() + Duration::from_secs(60);
        while !started.load(Ordering::Acquire) && Instant::now() < limit {
            tokio::task::yield_now().await;
        }
        let floor = closer.close_fence(volume(round), WriteEpoch(2)).await.unwrap();
        for lane in lanes {
            let (highest, taken) = lane.await.unwrap();
            assert!(highest <= floor, "round {round}: {highest} was taken, the floor is {floor}");
            acknowledged.extend(taken);
        }
        assert_eq!(closer.close_fence(volume(round), WriteEpoch(2)).await.unwrap(), floor);
        floors.insert(volume(round), floor);
    }
    assert!(!acknowledged.is_empty());
    for (hash, found) in acknowledged.iter().zip(closer.lookup(&acknowledged).await.unwrap()) {
        assert!(found.is_some(), "block {hash} was acknowledged and has no row");
    }
    // Those of refused inserts too.
    for (_, row) in closer.scan(None, usize::MAX).await.unwrap() {
        assert!(row.offset + u64::from(row.length) <= floors[&row.volume], "{row:?}");
    }
}

pub async fn many_writers_of_the_same_blocks_leave_one_row_each(subject: Subject) {
    let index = subject.open().await.index;
    let mut writers = Vec::new();
    for number in 1..=6u8 {
        index.create_fence(volume(number), EPOCH).await.unwrap();
        let index = subject.open().await.index;
        writers.push(tokio::spawn(async move {
            // The same blocks, in another order for each.
            let mut rows: Vec<_> = (0..60).map(|at| row(at, 64 + at * 100)).collect();
            rows.rotate_left(usize::from(number) * 10 % 60);
            index.insert(&batch(number, rows, 8192)).await
        }));
    }
    for writer in writers {
        writer.await.unwrap().unwrap();
    }
    let rows = index.scan(None, usize::MAX).await.unwrap();
    assert_eq!((rows.len(), index.count().await.unwrap()), (60, 60));
    for number in 1..=6 {
        assert_eq!(index.fence(volume(number)).await.unwrap().unwrap().highest_end, 8192);
    }
}

pub async fn a_question_that_is_given_up_spoils_no_other(subject: Subject) {
    let index = subject.open().await.index;
    index.create_fence(volume(1), EPOCH).await.unwrap();
    let rows: Vec<_> = (0..7).map(|at| row(at, at * 100)).collect();
    let there: Vec<_> = rows.iter().map(|row| row.hash).collect();
    let nowhere: Vec<_> = (100..107).map(hash).collect();
    index.insert(&batch(1, rows, 4096)).await.unwrap();
    for turn in 0..300u64 {
        // Cut off at any point: before it is sent, before the answer, in the middle of the answer.
        let limit = Duration::from_micros(turn * 7 % 2000);
        let call = index.lookup(&nowhere);
        tokio::select! {
            biased;
            _ = call => {}
            () = spin(limit) => {}
        }
        let found = index.lookup(&there).await.unwrap();
        let offsets: Vec<_> = found.into_iter().map(|row| row.map(|row| row.offset)).collect();
        assert_eq!(offsets, [0, 100, 200, 300, 400, 500, 600].map(Some), "after {turn} questions");
    }
}

/// Ends after a time that is shorter than a timer can tell.
async fn spin(time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        tokio::task::yield_now().await;
    }
}

pub async fn what_is_given_up_is_carried_out_all_the_same(subject: Subject) {
    let index = subject.open().await.index;
    index.create_fence(volume(1), EPOCH).await.unwrap();
    let mut begun = 0;
    for turn in 0..20u64 {
        let insert = batch(1, vec![row(turn, turn * 100)], 8192);
        // Polled once, it is under way.
        let call = index.insert(&insert);
        tokio::pin!(call);
        begun += u64::from(futures_util::poll!(call.as_mut()).is_pending());
    }
    assert!(begun > 0);
    let until = Instant::now() + Duration::from_secs(20);
    while index.count().await.unwrap() < 20 {
        assert!(Instant::now() < until, "{} of 20", index.count().await.unwrap());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
