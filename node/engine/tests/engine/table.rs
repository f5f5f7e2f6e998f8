//! The extent table: what a mount takes from it when nothing, or anything, of it was harmed, and what a write that
//! fails leaves behind.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::support::{Bench, EPOCH, volume};
use holdfast_libs_types::WriteEpoch;
use holdfast_node_engine::simulated::{self, TableAreas};
use holdfast_node_engine::{DiskState, DiskStatus, EngineError, ExtentInfo, ExtentState, Place};

const PAGE: u64 = 4096;

fn areas(bench: &Bench) -> TableAreas {
    simulated::table_areas(bench.disk.borrow().size(), Bench::SLOT_BYTES)
}

fn status(bench: &Bench) -> DiskStatus {
    bench.engine.handle().status()
}

fn info(bench: &mut Bench, n: u8) -> ExtentInfo {
    bench.run(|disk| async move { disk.extent(volume(n)).await }).unwrap()
}

fn fence(bench: &mut Bench, n: u8, epoch: u64) -> Result<u64, EngineError> {
    bench.run(|disk| async move { disk.fence(volume(n), WriteEpoch(epoch), 1).await })
}

fn header_page(bench: &mut Bench, n: u8, page: u64) -> Range<u64> {
    let slot = bench.slot(volume(n));
    let start = bench.engine.data_range(slot).start - (2 - page) * PAGE;
    start..start + PAGE
}

/// Everything that the engine shows, but what differs after a mount.
fn shown(bench: &mut Bench) -> Vec<ExtentInfo> {
    let mut extents = bench.run(|disk| async move { disk.extents().await }).unwrap();
    extents.iter_mut().for_each(|info| info.takes_appends = false);
    extents
}

/// A disk with extents in several states and a log that has begun.
fn used(seed: u64) -> Bench {
    let mut bench = Bench::new(seed);
    for n in 1..=4 {
        bench.create(volume(n));
        bench.append(volume(n), &[3000, 500]);
    }
    fence(&mut bench, 2, 3).unwrap();
    let length = info(&mut bench, 3).length;
    bench.run(|disk| async move { disk.seal(volume(3), WriteEpoch(2), length, 1).await }).unwrap();
    bench.run(|disk| async move { disk.begin_copy(volume(5), EPOCH, 8192, [5; 32], None).await }).unwrap();
    bench
}

/// The bytes of the log block written last, by its place.
fn last_block(bench: &Bench) -> u64 {
    let halves = areas(bench).halves;
    let disk = bench.disk.borrow();
    let pages = halves.into_iter().flat_map(|half| half.step_by(PAGE as usize));
    let sequence = |at: u64| u64::from_le_bytes(disk.peek(at + 32, 8).try_into().unwrap());
    pages.filter(|at| disk.peek(*at, 4) == *b"HFTL").max_by_key(|at| sequence(*at)).unwrap()
}

/// Rounds of the scrub until one has looked at everything; what it found but the copy of the table that was harmed and
/// is not in use.
fn scrub(bench: &mut Bench) -> usize {
    let mut found = 0;
    for _ in 0..2 {
        loop {
            let step = bench.run(|disk| async move { disk.scrub_step(1 << 20).await }).unwrap();
            found += step.found.iter().filter(|finding| finding.place != Place::ExtentTable).count();
            if step.finished_round {
                break;
            }
        }
    }
    found
}

#[test]
fn a_mount_takes_the_state_from_the_table_and_reads_only_the_headers_that_the_log_names() {
    let mut bench = used(1);
    let before = shown(&mut bench);
    bench.restart();
    assert_eq!(shown(&mut bench), before);
    let status = status(&bench);
    assert!(!status.rebuilt);
    let TableAreas { copies, halves } = areas(&bench);
    let table = halves.iter().map(|half| half.end - half.start).sum::<u64>() + (copies[0].end - copies[0].start);
    // The tails of the open ones are looked for on top.
    let scanned = 4 * Bench::SLOT_BYTES;
    assert!(status.mount_read_bytes < table + scanned, "{}", status.mount_read_bytes);
}

#[test]
fn over_many_checkpoints_the_newest_state_is_what_is_mounted() {
    let mut bench = used(2);
    let blocks = (areas(&bench).halves[0].end - areas(&bench).halves[0].start) / PAGE;
    let mut epoch = 3;
    for round in 0..6 {
        for _ in 0..blocks / 2 + round {
            epoch += 1;
            fence(&mut bench, 2, epoch).unwrap();
        }
        let before = shown(&mut bench);
        bench.restart();
        assert_eq!(shown(&mut bench), before);
        assert_eq!((info(&mut bench, 2).epoch, status(&bench).rebuilt), (WriteEpoch(epoch), false));
    }
}

#[test]
fn changes_that_wait_together_are_logged_together() {
    let mut bench = Bench::new(3);
    let before = status(&bench).counters.writes;
    type Creation = Pin<Box<dyn Future<Output = Result<(), EngineError>>>>;
    let mut creating: Vec<Creation> = (1..=10)
        .map(|n| {
            let disk = bench.handle();
            let create = async move { disk.create_extent(volume(n), EPOCH).await };
            Box::pin(create) as Creation
        })
        .collect();
    while !creating.is_empty() {
        creating.retain_mut(|create| match create.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => {
                result.unwrap();
                false
            }
            Poll::Pending => true,
        });
        bench.engine.turn();
    }
    let writes = status(&bench).counters.writes - before;
    // Two headers each; the first found the log free, the others waited for it.
    assert!((22..26).contains(&writes), "{writes} writes for 10 extents");
    bench.restart();
    assert_eq!(shown(&mut bench).len(), 10);
}

#[test]
fn a_harmed_table_is_rebuilt_from_the_headers_once_and_said_to_be() {
    let mut bench = used(4);
    let before = shown(&mut bench);
    let free = status(&bench).free_slots;
    bench.harm_table();
    bench.restart();
    assert!(status(&bench).rebuilt);
    assert_eq!((shown(&mut bench), status(&bench).free_slots), (before.clone(), free));
    fence(&mut bench, 4, 9).unwrap();
    bench.restart();
    assert!(!status(&bench).rebuilt, "the mount wrote a checkpoint");
    assert_eq!(info(&mut bench, 4).epoch, WriteEpoch(9));
}

#[test]
fn without_the_table_either_header_page_alone_says_whether_a_slot_is_in_use() {
    for page in [0, 1] {
        let mut bench = used(14);
        bench.run(|disk| async move { disk.abort_copy(volume(5)).await }).unwrap();
        bench.create(volume(6));
        let (before, free) = (shown(&mut bench), status(&bench).free_slots);
        for n in [4, 6] {
            let range = header_page(&mut bench, n, page);
            bench.disk.borrow_mut().flip_bit(range.start + 60, 0);
        }
        bench.harm_table();
        bench.restart();
        assert!(status(&bench).rebuilt);
        assert_eq!((shown(&mut bench), status(&bench).free_slots), (before, free), "page {page}");
        // The rebuild has written the bad ones again.
        assert_eq!(scrub(&mut bench), 0);
    }
}

#[test]
fn a_blank_table_does_not_make_a_used_disk_look_empty() {
    let mut bench = used(5);
    let before = shown(&mut bench);
    let TableAreas { copies, halves } = areas(&bench);
    for area in copies.into_iter().chain(halves) {
        bench.disk.borrow_mut().write_durable(area.start, &vec![0; (area.end - area.start) as usize]);
    }
    bench.restart();
    assert!(status(&bench).rebuilt);
    assert_eq!(shown(&mut bench), before);
}

#[test]
fn a_bad_last_block_of_the_log_is_not_believed_to_be_the_end() {
    let mut bench = used(6);
    fence(&mut bench, 1, 7).unwrap();
    let before = shown(&mut bench);
    let last = last_block(&bench);
    bench.disk.borrow_mut().flip_bit(last + 200, 3);
    bench.restart();
    assert!(status(&bench).rebuilt);
    assert_eq!(shown(&mut bench), before, "what was answered stands in the headers");
}

#[test]
fn with_the_newest_checkpoint_bad_the_older_one_and_both_logs_give_the_state() {
    for page in 0..2 {
        let mut bench = used(7);
        // To the next generation, and some way into its log.
        let mut epoch = 3;
        let half = areas(&bench).halves[0].clone();
        while last_block(&bench) < half.start + 4 * PAGE || last_block(&bench) >= half.end {
            epoch += 1;
            fence(&mut bench, 2, epoch).unwrap();
        }
        let before = shown(&mut bench);
        let copy = areas(&bench).copies[0].clone();
        bench.disk.borrow_mut().flip_bit(copy.start + page * PAGE + 200, 1);
        for _ in 0..2 {
            bench.restart();
            assert!(!status(&bench).rebuilt, "page {page}");
            assert_eq!(shown(&mut bench), before);
        }
        fence(&mut bench, 2, epoch + 1).unwrap();
        bench.restart();
        assert_eq!((info(&mut bench, 2).epoch, status(&bench).rebuilt), (WriteEpoch(epoch + 1), false));
    }
}

#[test]
fn a_change_whose_log_write_failed_did_not_happen_and_the_log_goes_on_in_its_other_half() {
    let mut bench = used(8);
    let half = areas(&bench).halves[1].clone();
    bench.disk.borrow_mut().make_unwritable(half);
    let before = shown(&mut bench);
    let error = fence(&mut bench, 1, 9).unwrap_err();
    assert!(matches!(error, EngineError::Io { .. }), "{error}");
    assert_eq!((shown(&mut bench), status(&bench).state), (before, DiskState::Healthy));
    let free = status(&bench).free_slots;
    bench.create(volume(9));
    assert_eq!(status(&bench).free_slots, free - 1);
    fence(&mut bench, 1, 10).unwrap();
    bench.restart();
    assert!(!status(&bench).rebuilt);
    assert_eq!((info(&mut bench, 1).epoch, info(&mut bench, 9).state), (WriteEpoch(10), ExtentState::Open));
}

#[test]
fn a_creation_that_was_not_logged_gives_its_slot_back() {
    let mut bench = used(9);
    let free = status(&bench).free_slots;
    let half = areas(&bench).halves[1].clone();
    bench.disk.borrow_mut().make_unwritable(half);
    let create = |bench: &mut Bench| bench.run(|disk| async move { disk.create_extent(volume(9), EPOCH).await });
    assert!(matches!(create(&mut bench).unwrap_err(), EngineError::Io { .. }));
    assert_eq!(status(&bench).free_slots, free);
    create(&mut bench).unwrap();
    assert_eq!(status(&bench).free_slots, free - 1);
}

#[test]
fn a_disk_whose_table_cannot_be_written_is_read_only_and_keeps_what_it_had() {
    let mut bench = used(10);
    let before = shown(&mut bench);
    let TableAreas { copies, halves } = areas(&bench);
    for area in copies.into_iter().chain(halves) {
        bench.disk.borrow_mut().make_unwritable(area);
    }
    fence(&mut bench, 1, 9).unwrap_err();
    assert!(matches!(status(&bench).state, DiskState::ReadOnly { .. }));
    assert!(matches!(fence(&mut bench, 1, 9).unwrap_err(), EngineError::ReadOnly { .. }));
    assert_eq!(shown(&mut bench), before);
    bench.disk.borrow_mut().make_writable();
    bench.restart();
    // The change that failed may have happened or not; nothing else may have.
    let after = shown(&mut bench);
    assert_eq!(after[1..], before[1..]);
    assert!(after[0] == before[0] || after[0].epoch == WriteEpoch(9));
    fence(&mut bench, 1, 10).unwrap();
}

#[test]
fn a_change_that_was_logged_is_decided_though_its_header_failed_and_a_repeat_writes_the_header_first() {
    for restart in [false, true] {
        let mut bench = used(11);
        // The state that is newest stands on one of the two, the next goes to the other.
        for page in [0, 1] {
            let range = header_page(&mut bench, 1, page);
            bench.disk.borrow_mut().make_unwritable(range);
        }
        let error = fence(&mut bench, 1, 9).unwrap_err();
        assert!(matches!(error, EngineError::Io { what: "writing a slot header", .. }), "{error}");
        assert_eq!((info(&mut bench, 1).state, info(&mut bench, 1).epoch), (ExtentState::Fenced, WriteEpoch(9)));
        assert!(matches!(fence(&mut bench, 1, 9).unwrap_err(), EngineError::Io { .. }), "it cannot be answered yet");
        bench.disk.borrow_mut().make_writable();
        if restart {
            bench.restart();
            assert!(!status(&bench).rebuilt);
            assert_eq!((info(&mut bench, 1).state, info(&mut bench, 1).epoch), (ExtentState::Fenced, WriteEpoch(9)));
        }
        fence(&mut bench, 1, 9).unwrap();
        // Now the headers have it too.
        bench.harm_table();
        bench.restart();
        assert!(status(&bench).rebuilt);
        assert_eq!((info(&mut bench, 1).state, info(&mut bench, 1).epoch), (ExtentState::Fenced, WriteEpoch(9)));
        assert_eq!(scrub(&mut bench), 0);
    }
}

#[test]
fn a_slot_that_could_not_be_made_to_say_that_it_is_free_stays_out_of_use_until_it_does() {
    let mut bench = used(12);
    let free = status(&bench).free_slots;
    let second = header_page(&mut bench, 5, 0);
    bench.disk.borrow_mut().make_unwritable(second.start..second.end + PAGE);
    let abort = |bench: &mut Bench| bench.run(|disk| async move { disk.abort_copy(volume(5)).await });
    assert!(matches!(abort(&mut bench).unwrap_err(), EngineError::Io { .. }));
    assert_eq!(status(&bench).free_slots, free);
    assert!(matches!(abort(&mut bench).unwrap_err(), EngineError::Io { .. }));
    bench.restart();
    assert_eq!(status(&bench).free_slots, free, "still not");
    bench.disk.borrow_mut().make_writable();
    bench.restart();
    assert_eq!((status(&bench).free_slots, status(&bench).rebuilt), (free + 1, false));
    assert!(matches!(abort(&mut bench).unwrap_err(), EngineError::UnknownVolume { .. }));
    assert_eq!(scrub(&mut bench), 0);
}

#[test]
fn a_header_newer_than_the_table_shows_that_the_table_lost_something() {
    let mut bench = used(13);
    let last = last_block(&bench);
    let before = bench.disk.borrow().peek(last + PAGE, PAGE as usize);
    fence(&mut bench, 5, 9).unwrap_err();
    fence(&mut bench, 4, 9).unwrap();
    // The drive said that it was durable, and lied.
    bench.disk.borrow_mut().write_durable(last + PAGE, &before);
    bench.restart();
    assert!(status(&bench).rebuilt);
    assert_eq!(info(&mut bench, 4).epoch, WriteEpoch(9));
}
