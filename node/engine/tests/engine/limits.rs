//! Bounds and refusals: full queues, full disks, full volumes, failing writes, stale orders, callers that go away.

use std::task::{Context, Poll, Waker};

use crate::support::{Bench, EPOCH, aligned, batch, drive, volume};
use holdfast_libs_sim::disk::Faults;
use holdfast_libs_types::WriteEpoch;
use holdfast_node_engine::{DiskState, EngineError, ExtentState, simulated};

fn poll_once<T>(future: &mut std::pin::Pin<Box<dyn Future<Output = T>>>) -> Poll<T> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

type Answer<T> = std::pin::Pin<Box<dyn Future<Output = Result<T, EngineError>>>>;

#[test]
fn a_full_queue_answers_busy_at_once_and_still_lets_orders_in() {
    let mut bench = Bench::new(1);
    bench.create(volume(1));
    bench.append(volume(1), &[3000]);
    let disk = bench.handle();
    let mut reads: Vec<Answer<bytes::Bytes>> = Vec::new();
    let mut busy = 0;
    for _ in 0..100 {
        let disk = disk.clone();
        let mut read: Answer<_> = Box::pin(async move { disk.read(volume(1), 0, 100).await });
        match poll_once(&mut read) {
            Poll::Pending => reads.push(read),
            Poll::Ready(Err(EngineError::Busy { .. })) => busy += 1,
            Poll::Ready(other) => panic!("{other:?}"),
        }
    }
    assert!(busy > 0 && reads.len() + busy == 100);
    assert_eq!(disk.status().counters.busy, busy as u64);
    assert_eq!(disk.status().in_flight, reads.len());
    let mut fence: Answer<u64> = Box::pin(async move { disk.fence(volume(1), WriteEpoch(2), 1).await });
    assert!(poll_once(&mut fence).is_pending(), "an order is admitted");
    drive(&mut bench.engine, fence).unwrap();
    for read in reads {
        drive(&mut bench.engine, read).unwrap();
    }
    assert_eq!(bench.handle().status().in_flight, 0);
}

#[test]
fn a_part_of_a_copy_that_finds_the_queue_full_stays_with_its_sender_and_can_be_sent_again() {
    let mut bench = Bench::new(1);
    bench.create(volume(2));
    bench.append(volume(2), &[3000]);
    let (bytes, _) = batch(volume(1), EPOCH, 0, 0, &[vec![1; 9000]]);
    let length = bytes.len() as u64;
    bench.run(|disk| async move { disk.begin_copy(volume(1), EPOCH, length, [0; 32], None).await }).unwrap();
    let disk = bench.handle();
    let read = || -> Answer<bytes::Bytes> {
        let disk = disk.clone();
        Box::pin(async move { disk.read(volume(2), 0, 100).await })
    };
    let reads: Vec<_> =
        std::iter::repeat_with(read).map_while(|mut read| poll_once(&mut read).is_pending().then_some(read)).collect();
    let mut part = Some(aligned(&bytes));
    let refused =
        std::pin::pin!(disk.copy_write(volume(1), 0, &mut part)).poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(refused, Poll::Ready(Err(EngineError::Busy { .. }))), "{refused:?}");
    assert_eq!(part.as_deref(), Some(&bytes[..]));
    for read in reads {
        drive(&mut bench.engine, read).unwrap();
    }
    drive(&mut bench.engine, disk.copy_write(volume(1), 0, &mut part)).unwrap();
    assert!(part.is_none());
    let left = bench.run(|disk| async move { disk.read_back_copy(volume(1), 4096).await }).unwrap();
    assert_eq!(left, length - 4096);
}

#[test]
fn appends_to_different_volumes_are_on_the_disk_at_once_and_to_one_volume_one_by_one() {
    let mut bench = Bench::new(2);
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for n in 1..=4 {
        bench.create(volume(n));
        let (a, _) = batch(volume(n), EPOCH, 0, 0, &[vec![n; 3000]]);
        let (b, _) = batch(volume(n), EPOCH, a.len() as u64, 0, &[vec![n; 3000]]);
        for (offset, bytes, into) in [(0, a, &mut first), (4096, b, &mut second)] {
            let disk = bench.handle();
            let append: Answer<u64> =
                Box::pin(async move { disk.append(volume(n), EPOCH, offset, aligned(&bytes)).await });
            into.push(append);
        }
    }
    let mut all: Vec<_> = first.into_iter().chain(second).collect();
    for append in &mut all {
        assert!(poll_once(append).is_pending());
    }
    bench.engine.turn();
    // One of the four has completed in this turn; the second appends wait for their volume.
    assert_eq!(bench.disk.borrow().in_flight(), 3);
    for append in all {
        drive(&mut bench.engine, append).unwrap();
    }
    for n in 1..=4 {
        let info = bench.run(|disk| async move { disk.extent(volume(n)).await }).unwrap();
        assert_eq!(info.length, 8192);
    }
}

#[test]
fn copies_to_one_disk_are_read_back_at_once() {
    let mut bench = Bench::new(2);
    let length: u64 = 640 << 10;
    let mut all: Vec<Answer<u64>> = Vec::new();
    for n in 1..=2 {
        bench.run(|disk| async move { disk.begin_copy(volume(n), EPOCH, length, [0; 32], None).await }).unwrap();
        let mut part = Some(aligned(&vec![n; length as usize]));
        bench.run(|disk| async move { disk.copy_write(volume(n), 0, &mut part).await }).unwrap();
        let disk = bench.handle();
        all.push(Box::pin(async move { disk.read_back_copy(volume(n), u64::MAX).await }));
    }
    for read_back in &mut all {
        assert!(poll_once(read_back).is_pending());
    }
    bench.engine.turn();
    // Three reads of each, and one of the six has completed in this turn.
    assert_eq!(bench.disk.borrow().in_flight(), 5);
    for read_back in all {
        assert_eq!(drive(&mut bench.engine, read_back).unwrap(), 0, "nothing is left");
    }
}

#[test]
fn a_repeat_of_the_append_in_flight_waits_for_it_and_is_acknowledged() {
    let mut bench = Bench::new(3);
    bench.create(volume(1));
    let (bytes, _) = batch(volume(1), EPOCH, 0, 0, &[vec![1; 9000]]);
    let (other, _) = batch(volume(1), EPOCH, 0, 0, &[vec![2; 9000]]);
    let sent = |bytes: &[u8]| -> Answer<u64> {
        let (disk, buffer) = (bench.handle(), aligned(bytes));
        Box::pin(async move { disk.append(volume(1), EPOCH, 0, buffer).await })
    };
    let (mut one, mut two, mut three) = (sent(&bytes), sent(&bytes), sent(&other));
    assert!(poll_once(&mut one).is_pending() && poll_once(&mut two).is_pending() && poll_once(&mut three).is_pending());
    let writes = bench.handle().status().counters.writes;
    assert_eq!(drive(&mut bench.engine, two).unwrap(), bytes.len() as u64);
    assert_eq!(drive(&mut bench.engine, one).unwrap(), bytes.len() as u64);
    let error = drive(&mut bench.engine, three).unwrap_err();
    assert!(matches!(error, EngineError::ConflictingRepeat { .. }), "{error}");
    assert_eq!(bench.handle().status().counters.writes, writes + 1, "it was written once");
}

#[test]
fn an_append_whose_caller_goes_away_is_still_done_whole() {
    let mut bench = Bench::new(4);
    bench.create(volume(1));
    let (bytes, _) = batch(volume(1), EPOCH, 0, 0, &[vec![1; 9000]]);
    let (disk, buffer) = (bench.handle(), bench.handle().buffer(bytes.len()).unwrap());
    let mut buffer = buffer;
    buffer.extend_from_slice(&bytes).unwrap();
    let mut append: Answer<u64> = Box::pin(async move { disk.append(volume(1), EPOCH, 0, buffer).await });
    assert!(poll_once(&mut append).is_pending());
    drop(append);
    assert!(bench.handle().buffers().used_bytes() > 0, "the buffer is the engine's until the write is done");
    while bench.handle().status().in_flight > 0 {
        bench.engine.turn();
    }
    assert_eq!(bench.handle().buffers().used_bytes(), 0);
    bench.restart();
    let stands = bench.run(|disk| async move { disk.read(volume(1), 0, 12_288).await }).unwrap();
    assert_eq!(stands[..], bytes[..]);
}

#[test]
fn no_space_for_a_slot_is_said_and_leaks_nothing() {
    let mut bench = Bench::new(5);
    bench.disk.borrow_mut().set_space_left(Bench::SLOT_BYTES - 1);
    let free = bench.handle().status().free_slots;
    let error = bench.run(|disk| async move { disk.create_extent(volume(1), EPOCH).await }).unwrap_err();
    assert!(matches!(error, EngineError::NoSpace { .. }), "{error}");
    assert_eq!(bench.handle().status().free_slots, free);
    let error = bench.run(|disk| async move { disk.extent(volume(1)).await }).unwrap_err();
    assert!(matches!(error, EngineError::UnknownVolume { .. }), "{error}");
    assert_eq!(bench.handle().status().state, DiskState::Healthy);
    bench.disk.borrow_mut().set_space_left(Bench::SLOT_BYTES);
    bench.create(volume(1));
}

#[test]
fn a_full_volume_says_so_and_can_be_sealed() {
    let mut bench = Bench::new(6);
    bench.create(volume(1));
    let capacity = bench.handle().volume_capacity_bytes();
    let mut tail = 0;
    let error = loop {
        let (bytes, _) = batch(volume(1), EPOCH, tail, tail, &[vec![1; 100_000]]);
        match bench.try_append(volume(1), tail, &bytes) {
            Ok(end) => tail = end,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, EngineError::VolumeFull { .. }), "{error}");
    assert!(tail <= capacity && capacity - tail < 110_000);
    bench.run(|disk| async move { disk.seal(volume(1), EPOCH, tail, 0).await }).unwrap();
}

#[test]
fn a_failed_write_ends_the_extents_appends_leaves_its_tail_and_spares_the_others() {
    let mut bench = Bench::new(7);
    bench.create(volume(1));
    bench.create(volume(2));
    let (records, end) = bench.append(volume(1), &[3000]);
    bench.disk.borrow_mut().set_faults(Faults { write_errors: 1000, ..Faults::default() });
    let (bytes, _) = batch(volume(1), EPOCH, end, end, &[vec![1; 5000]]);
    let error = bench.try_append(volume(1), end, &bytes).unwrap_err();
    assert!(matches!(error, EngineError::Io { .. }), "{error}");
    bench.disk.borrow_mut().set_faults(Faults::default());
    let error = bench.try_append(volume(1), end, &bytes).unwrap_err();
    assert!(matches!(error, EngineError::NoAppends { .. }), "{error}");
    let info = bench.run(|disk| async move { disk.extent(volume(1)).await }).unwrap();
    assert_eq!((info.length, info.takes_appends), (end, false));
    assert_eq!(bench.read_record(&records[0]).unwrap(), records[0].bytes);
    bench.append(volume(2), &[3000]);
    bench.run(|disk| async move { disk.seal(volume(1), EPOCH, end, 0).await }).unwrap();
}

#[test]
fn a_disk_on_which_many_writes_fail_becomes_read_only_and_still_serves() {
    let mut bench = Bench::new(8);
    for n in 1..=10 {
        bench.create(volume(n));
    }
    let (records, _) = bench.append(volume(10), &[3000]);
    bench.disk.borrow_mut().set_faults(Faults { write_errors: 1000, ..Faults::default() });
    let answers: Vec<_> = (1..=9)
        .map(|n| {
            let (bytes, _) = batch(volume(n), EPOCH, 0, 0, &[vec![1; 100]]);
            bench.try_append(volume(n), 0, &bytes).unwrap_err()
        })
        .collect();
    assert!(matches!(answers[7], EngineError::Io { .. }));
    assert!(matches!(answers[8], EngineError::ReadOnly { .. }), "{:?}", answers[8]);
    assert!(matches!(bench.handle().status().state, DiskState::ReadOnly { .. }));
    assert_eq!(bench.read_record(&records[0]).unwrap(), records[0].bytes);
}

#[test]
fn orders_of_a_stale_leader_or_epoch_are_refused() {
    let mut bench = Bench::new(9);
    bench.create(volume(1));
    let (_, end) = bench.append(volume(1), &[100]);
    let fence = |bench: &mut Bench, epoch, term| {
        bench.run(|disk| async move { disk.fence(volume(1), WriteEpoch(epoch), term).await })
    };
    assert_eq!(fence(&mut bench, 3, 7).unwrap(), end);
    assert_eq!(fence(&mut bench, 3, 7).unwrap(), end, "a repeat");
    assert!(matches!(fence(&mut bench, 4, 6).unwrap_err(), EngineError::StaleTerm { given: 6, current: 7 }));
    assert!(matches!(fence(&mut bench, 2, 7).unwrap_err(), EngineError::Fenced { .. }));
    bench.restart();
    assert!(matches!(fence(&mut bench, 4, 6).unwrap_err(), EngineError::StaleTerm { .. }), "the term is durable");
    let seal = |bench: &mut Bench, epoch, term| {
        bench.run(|disk| async move { disk.seal(volume(1), WriteEpoch(epoch), end, term).await })
    };
    assert!(matches!(seal(&mut bench, 3, 6).unwrap_err(), EngineError::StaleTerm { .. }));
    assert!(matches!(seal(&mut bench, 1, 7).unwrap_err(), EngineError::Fenced { .. }));
    seal(&mut bench, 3, 7).unwrap();
    for _ in 0..2 {
        assert!(matches!(seal(&mut bench, 3, 6).unwrap_err(), EngineError::StaleTerm { given: 6, current: 7 }));
        assert!(matches!(fence(&mut bench, 9, 6).unwrap_err(), EngineError::StaleTerm { given: 6, current: 7 }));
        seal(&mut bench, 3, 8).unwrap();
        bench.restart();
        // Whatever is left of the table.
        bench.harm_table();
        bench.restart();
    }
    assert!(
        matches!(fence(&mut bench, 9, 9).unwrap_err(), EngineError::SealedOtherwise { length, .. } if length == end)
    );
}

#[test]
fn what_is_no_batch_for_its_place_is_refused_before_it_reaches_the_disk() {
    let mut bench = Bench::new(10);
    bench.create(volume(1));
    let (good, _) = batch(volume(1), EPOCH, 0, 0, &[vec![1; 100]]);
    let (elsewhere, _) = batch(volume(2), EPOCH, 0, 0, &[vec![1; 100]]);
    let (beyond, _) = batch(volume(1), EPOCH, 0, 4096, &[vec![1; 100]]);
    let mut flipped = good.clone();
    flipped[300] ^= 1;
    let mut long = good.clone();
    long.extend_from_slice(&[0; 4096]);
    for bytes in [&elsewhere, &beyond, &flipped, &long, &good[..100].to_vec(), &Vec::new()] {
        let error = bench.try_append(volume(1), 0, bytes).unwrap_err();
        assert!(matches!(error, EngineError::InvalidBatch { .. }), "{error}");
    }
    assert_eq!(bench.handle().status().counters.appends, 0);
    bench.try_append(volume(1), 0, &good).unwrap();
}

#[test]
fn a_slot_that_was_freed_and_taken_again_has_a_new_generation_and_shows_nothing_of_its_earlier_life() {
    let mut bench = Bench::new(11);
    let (bytes, _) = batch(volume(1), EPOCH, 0, 0, &[vec![1; 9000]]);
    let part = aligned(&bytes);
    bench.run(|disk| async move { disk.begin_copy(volume(1), EPOCH, 12_288, [0; 32], None).await }).unwrap();
    bench.run(|disk| async move { disk.copy_write(volume(1), 0, &mut Some(part)).await }).unwrap();
    let error = bench.run(|disk| async move { disk.finish_copy(volume(1), None).await }).unwrap_err();
    assert!(matches!(error, EngineError::CopyMismatch { .. }), "{error}");
    bench.run(|disk| async move { disk.abort_copy(volume(1)).await }).unwrap();
    let free = bench.handle().status().free_slots;
    let headers = bench.engine.data_range(0).start - 8192;
    for page in [0, 1] {
        bench.disk.borrow_mut().flip_bit(headers + page * 4096 + 60, 0);
        bench.restart();
        assert_eq!(bench.handle().status().free_slots, free, "free, by whichever page is left");
        bench.disk.borrow_mut().flip_bit(headers + page * 4096 + 60, 0);
    }
    bench.restart();
    bench.create(volume(2));
    let info = bench.run(|disk| async move { disk.extent(volume(2)).await }).unwrap();
    assert_eq!((info.slot, info.slot_generation), (0, 2));
    bench.restart();
    let info = bench.run(|disk| async move { disk.extent(volume(2)).await }).unwrap();
    assert_eq!((info.slot_generation, info.length, info.state), (2, 0, ExtentState::Open));
}

#[test]
fn a_copy_whose_seal_could_not_be_written_is_not_written_over_until_it_is_begun_anew() {
    let mut bench = Bench::new(12);
    let (bytes, _) = batch(volume(1), EPOCH, 0, 0, &[vec![1; 9000]]);
    let digest: [u8; 32] = sha2::Digest::finalize(sha2::Digest::chain_update(sha2::Sha256::default(), &bytes)).into();
    let length = bytes.len() as u64;
    let begin = |bench: &mut Bench| {
        bench.run(|disk| async move { disk.begin_copy(volume(1), EPOCH, length, digest, None).await })
    };
    let write = |bench: &mut Bench| {
        let part = aligned(&bytes);
        bench.run(|disk| async move { disk.copy_write(volume(1), 0, &mut Some(part)).await })
    };
    let finish = |bench: &mut Bench| bench.run(|disk| async move { disk.finish_copy(volume(1), None).await });
    begin(&mut bench).unwrap();
    write(&mut bench).unwrap();
    // The footer is written, then the log of the table fails; it goes on in its other half.
    let [_, half] = simulated::table_areas(bench.disk.borrow().size(), Bench::SLOT_BYTES).halves;
    bench.disk.borrow_mut().make_unwritable(half);
    assert!(matches!(finish(&mut bench).unwrap_err(), EngineError::Io { .. }));
    assert!(matches!(write(&mut bench).unwrap_err(), EngineError::NoAppends { .. }));
    begin(&mut bench).unwrap();
    write(&mut bench).unwrap();
    finish(&mut bench).unwrap();
}
