//! Planted damage: it is found, named, and never served.

use std::collections::BTreeSet;
use std::future::Future;
use std::task::{Context, Waker};

use crate::support::{
    Appended, Bench, CELL, EPOCH, aligned, batch, block_on, directory, make_disk, mounted, open, volume,
};
use holdfast_libs_sim::disk::Faults;
use holdfast_libs_types::WriteEpoch;
use holdfast_node_engine::simulated;
use holdfast_node_engine::{EngineError, ExtentInfo, ExtentState, IoMode};

const NEXT: WriteEpoch = WriteEpoch(2);

fn info(bench: &mut Bench, n: u8) -> ExtentInfo {
    bench.run(|disk| async move { disk.extent(volume(n)).await }).unwrap()
}

#[test]
fn of_hundreds_of_flipped_bits_in_live_records_every_one_is_found_and_no_wrong_byte_is_served() {
    let mut bench = Bench::new(1);
    let mut records: Vec<Appended> = Vec::new();
    for n in 1..=6 {
        bench.create(volume(n));
        for _ in 0..20 {
            let len = 16 + bench.rng.index(9000);
            records.extend(bench.append(volume(n), &[len, 16, len / 2]).0);
        }
        if n % 2 == 0 {
            let tail = info(&mut bench, n).length;
            bench.run(|disk| async move { disk.seal(volume(n), NEXT, tail, 1).await }).unwrap();
        }
    }
    let mut hit = BTreeSet::new();
    for _ in 0..300 {
        let index = bench.rng.index(records.len());
        let record = records[index].clone();
        let at = record.offset + bench.rng.below(record.bytes.len() as u64);
        // A bit flipped twice would be whole again: one flip a record.
        if hit.insert(index) {
            let bit = bench.rng.below(8) as u8;
            bench.flip(record.volume, at, bit);
        }
    }
    assert!(hit.len() >= 200, "{} records hit", hit.len());
    let mut found = BTreeSet::new();
    for (index, record) in records.iter().enumerate() {
        match bench.read_record(record) {
            Ok(bytes) => assert_eq!(bytes, record.bytes, "a wrong byte was served"),
            Err(EngineError::Damaged { offset, .. }) => {
                assert_eq!(offset, record.offset);
                found.insert(index);
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(found, hit);
    assert_eq!(bench.handle().status().counters.damaged, hit.len() as u64);
}

#[test]
fn flipped_bits_in_a_real_file_are_found() {
    use std::os::unix::fs::FileExt;
    let dir = directory();
    let path = make_disk(dir.path(), "disk", 32 << 20, 1 << 20);
    let disk = open(&path, IoMode::Auto);
    block_on(disk.create_extent(volume(1), EPOCH)).unwrap();
    let (bytes, records) = batch(volume(1), EPOCH, 0, 0, &[vec![0xab; 5000], vec![0xcd; 5000]]);
    block_on(disk.append(volume(1), EPOCH, 0, aligned(&bytes))).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let at = whole.windows(64).position(|window| window == [0xcd; 64]).unwrap() as u64;
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[0xcc], at).unwrap();
    file.sync_all().unwrap();
    let read = |(offset, len): (u64, u32)| block_on(disk.read_record(volume(1), offset, len));
    assert!(read(records[0]).is_ok());
    let error = read(records[1]).unwrap_err();
    assert!(error.to_string().contains(&disk.id().to_string()), "{error}");
    assert!(matches!(error, EngineError::Damaged { slot: 0, .. }));
}

/// Three batches; the second one harmed, then a mount.
fn harmed(harm: impl FnOnce(&mut Bench, u64, u64)) -> (Bench, Vec<Vec<Appended>>, Vec<u64>) {
    let mut bench = Bench::new(2);
    bench.create(volume(1));
    let (mut records, mut ends) = (Vec::new(), vec![0]);
    for _ in 0..3 {
        let (appended, end) = bench.append(volume(1), &[3000, 9000]);
        records.push(appended);
        ends.push(end);
    }
    harm(&mut bench, ends[1], ends[2]);
    bench.restart();
    (bench, records, ends)
}

#[test]
fn a_bad_batch_below_a_later_one_is_damage_and_what_stands_around_it_is_still_served() {
    type Harm = fn(&mut Bench, u64, u64);
    let harms: [(&str, Harm); 3] = [
        ("a bit of its header", |bench, start, _| bench.flip(volume(1), start + 20, 0)),
        ("a bit of its body", |bench, start, _| bench.flip(volume(1), start + 200, 3)),
        ("zeroes all over", |bench, start, end| {
            let slot = bench.slot(volume(1));
            let data = bench.engine.data_range(slot).start;
            bench.disk.borrow_mut().write_durable(data + start, &vec![0; (end - start) as usize]);
        }),
    ];
    for (what, harm) in harms {
        let (mut bench, records, ends) = harmed(harm);
        let shown = info(&mut bench, 1);
        assert_eq!((shown.state, shown.length), (ExtentState::Damaged, ends[1]), "{what}: {shown:?}");
        assert!(shown.note.unwrap().contains("damaged"), "{what}");
        for record in records[0].iter().chain(&records[2]) {
            assert_eq!(bench.read_record(record).unwrap(), record.bytes, "{what}");
        }
        assert_eq!(bench.run(|disk| async move { disk.fence(volume(1), NEXT, 1).await }).unwrap(), ends[1], "{what}");
        let end = ends[3];
        let error = bench.run(|disk| async move { disk.seal(volume(1), NEXT, end, 1).await }).unwrap_err();
        assert!(matches!(error, EngineError::Damaged { .. }), "{what}: {error}");
        let end = ends[1];
        bench.run(|disk| async move { disk.seal(volume(1), NEXT, end, 1).await }).unwrap();
        assert_eq!(info(&mut bench, 1).state, ExtentState::Sealed, "{what}");
    }
}

#[test]
fn a_bad_last_batch_is_reported_as_torn_or_damaged_and_not_silently_cut() {
    let mut bench = Bench::new(3);
    bench.create(volume(1));
    let (_, first) = bench.append(volume(1), &[3000]);
    bench.append(volume(1), &[9000]);
    bench.flip(volume(1), first + 500, 1);
    bench.restart();
    let shown = info(&mut bench, 1);
    assert_eq!((shown.state, shown.length), (ExtentState::Open, first));
    let note = shown.note.unwrap();
    assert!(note.contains("torn or damaged"), "{note}");
    let error = bench.run(|disk| async move { disk.seal(volume(1), NEXT, first + 4096, 1).await }).unwrap_err();
    assert!(matches!(error, EngineError::TooShort { .. }), "{error}");
}

#[test]
fn what_an_earlier_life_of_the_disk_left_is_no_damage() {
    for second in [100, 9000] {
        let mut bench = Bench::new(3);
        for n in 1..4 {
            bench.create(volume(n));
            for _ in 0..4 {
                bench.append(volume(n), &[9000]);
            }
        }
        simulated::format(&bench.disk, CELL, Bench::SLOT_BYTES, &mut bench.rng);
        bench.restart();
        assert_eq!(bench.run(|disk| async move { disk.extents().await }).unwrap(), []);
        // One that is empty, and one that ends inside of what stood there, or exactly at its next batch.
        bench.create(volume(11));
        bench.create(volume(12));
        let (records, end) = bench.append(volume(12), &[second]);
        bench.restart();
        let notes: Vec<Option<String>> = [11, 12].map(|n| info(&mut bench, n).note).to_vec();
        assert_eq!(notes[0], None);
        match &notes[1] {
            None => assert_eq!(second, 9000),
            Some(note) => assert!(second == 100 && note.contains("left in an earlier use"), "{note}"),
        }
        assert_eq!((info(&mut bench, 12).length, info(&mut bench, 12).state), (end, ExtentState::Open));
        assert_eq!(bench.read_record(&records[0]).unwrap(), records[0].bytes);
        loop {
            let step = bench.run(|disk| async move { disk.scrub_step(1 << 20).await }).unwrap();
            assert_eq!(step.found, []);
            if step.finished_round {
                break;
            }
        }
    }
}

#[test]
fn a_batch_of_a_volume_that_this_disk_holds_is_not_taken_for_one_of_an_earlier_life() {
    let mut bench = Bench::new(4);
    bench.create(volume(1));
    bench.create(volume(2));
    bench.append(volume(1), &[3000]);
    bench.append(volume(2), &[3000]);
    // A write of volume 2 went astray, and over the first batch of volume 1.
    let starts = [1, 2].map(|n| {
        let slot = bench.slot(volume(n));
        bench.engine.data_range(slot).start
    });
    let bytes = bench.disk.borrow().peek(starts[1], 4096);
    bench.disk.borrow_mut().write_durable(starts[0], &bytes);
    bench.restart();
    assert!(info(&mut bench, 1).note.unwrap().starts_with("torn or damaged"));
}

#[test]
fn a_clean_end_has_no_note() {
    let mut bench = Bench::new(3);
    bench.create(volume(1));
    let (_, end) = bench.append(volume(1), &[3000]);
    bench.restart();
    let shown = info(&mut bench, 1);
    assert_eq!((shown.length, shown.note), (end, None));
}

#[test]
fn a_seal_reads_the_disk_and_not_its_memory() {
    let mut bench = Bench::new(4);
    bench.create(volume(1));
    let (_, first) = bench.append(volume(1), &[3000]);
    let (_, end) = bench.append(volume(1), &[3000]);
    bench.flip(volume(1), first + 500, 1);
    let error = bench.run(|disk| async move { disk.seal(volume(1), EPOCH, end, 0).await }).unwrap_err();
    assert!(matches!(error, EngineError::Damaged { offset, .. } if offset == first), "{error}");
    assert_eq!(info(&mut bench, 1).state, ExtentState::Damaged);
}

#[test]
fn a_length_that_no_batch_ends_at_cannot_be_sealed() {
    let mut bench = Bench::new(4);
    bench.create(volume(1));
    let (_, first) = bench.append(volume(1), &[3000]);
    let (_, end) = bench.append(volume(1), &[9000]);
    let error = bench.run(|disk| async move { disk.seal(volume(1), EPOCH, first + 4096, 0).await }).unwrap_err();
    assert!(
        matches!(error, EngineError::NotABoundary { start, end: found, .. } if (start, found) == (first, end)),
        "{error}"
    );
}

#[test]
fn one_bad_header_page_costs_nothing_and_two_keep_the_slot_out_of_use() {
    let mut bench = Bench::new(5);
    bench.create(volume(1));
    let (records, end) = bench.append(volume(1), &[3000]);
    let slot = bench.slot(volume(1));
    let headers = bench.engine.data_range(slot).start - 8192;
    let free = bench.handle().status().free_slots;
    for page in [0, 1] {
        bench.disk.borrow_mut().flip_bit(headers + page * 4096 + 60, 0);
        bench.restart();
        assert_eq!(info(&mut bench, 1).length, end, "page {page}");
        assert_eq!(bench.read_record(&records[0]).unwrap(), records[0].bytes);
        bench.disk.borrow_mut().flip_bit(headers + page * 4096 + 60, 0);
    }
    bench.disk.borrow_mut().flip_bit(headers + 60, 0);
    bench.disk.borrow_mut().flip_bit(headers + 4096 + 60, 0);
    // The table still knows it: both are written again. Only without it the slot is lost.
    bench.restart();
    assert_eq!((info(&mut bench, 1).length, bench.handle().status().lost_slots), (end, 0));
    bench.disk.borrow_mut().flip_bit(headers + 60, 0);
    bench.disk.borrow_mut().flip_bit(headers + 4096 + 60, 0);
    bench.harm_table();
    bench.restart();
    let status = bench.handle().status();
    assert!(status.rebuilt);
    assert_eq!((status.free_slots, status.lost_slots), (free, 1));
    let mut taken = BTreeSet::new();
    for n in 2..2 + free as u8 {
        bench.create(volume(n));
        taken.insert(bench.slot(volume(n)));
    }
    assert!(!taken.contains(&slot));
    let error = bench.run(|disk| async move { disk.create_extent(volume(200), EPOCH).await }).unwrap_err();
    assert!(matches!(error, EngineError::NoSpace { .. }), "{error}");
}

#[test]
fn either_superblock_is_enough_and_none_is_said_to_be_none() {
    let mut bench = Bench::new(6);
    let proposal = bench.run(|disk| async move { disk.propose_incarnation().await }).unwrap();
    bench.run(|disk| async move { disk.confirm_incarnation(proposal).await }).unwrap();
    let Bench { disk, engine, .. } = bench;
    drop(engine);
    for offset in [0, 1 << 20] {
        disk.borrow_mut().flip_bit(offset + 30, 0);
        assert_eq!(mounted(&disk).handle().status().incarnation, 1, "each copy has the newest state");
        disk.borrow_mut().flip_bit(offset + 30, 0);
    }
    disk.borrow_mut().flip_bit(30, 0);
    disk.borrow_mut().flip_bit((1 << 20) + 30, 0);
    let error = simulated::SimulatedDisk::begin_mount(&disk, CELL, holdfast_libs_sim::streams::SimRng::from_seed(1));
    let text = error.err().unwrap().to_string();
    assert!(text.contains("checksum does not match"), "{text}");
}

#[test]
fn either_copy_of_the_key_area_is_enough_and_none_is_an_error() {
    let mut bench = Bench::new(7);
    bench.run(|disk| async move { disk.write_key_area(b"the keyring".to_vec()).await }).unwrap();
    let whole = bench.disk.borrow().peek(0, 8 << 20);
    let copies: Vec<u64> =
        (0..whole.len()).filter(|at| whole[*at..].starts_with(b"the keyring")).map(|at| at as u64).collect();
    assert_eq!(copies.len(), 2);
    let read = |bench: &mut Bench| bench.run(|disk| async move { disk.read_key_area().await });
    for copy in &copies {
        bench.disk.borrow_mut().flip_bit(*copy, 0);
        assert_eq!(read(&mut bench).unwrap().unwrap(), b"the keyring");
        bench.disk.borrow_mut().flip_bit(*copy, 0);
    }
    copies.iter().for_each(|copy| bench.disk.borrow_mut().flip_bit(*copy, 0));
    let error = read(&mut bench).unwrap_err();
    assert!(matches!(error, EngineError::Io { .. }), "{error}");
}

#[test]
fn a_spot_that_cannot_be_read_is_damage_there_and_nowhere_else() {
    let mut bench = Bench::new(8);
    bench.create(volume(1));
    let (first, end) = bench.append(volume(1), &[3000]);
    let (second, _) = bench.append(volume(1), &[3000]);
    let start = bench.engine.data_range(0).start;
    bench.disk.borrow_mut().make_unreadable(start + end..start + end + 512);
    assert_eq!(bench.read_record(&first[0]).unwrap(), first[0].bytes);
    let error = bench.read_record(&second[0]).unwrap_err();
    assert!(error.to_string().contains("cannot be read"), "{error}");
}

#[test]
fn a_record_read_at_another_place_or_length_is_refused() {
    let mut bench = Bench::new(9);
    bench.create(volume(1));
    let (records, _) = bench.append(volume(1), &[3000, 3000]);
    for (offset, len) in [(0, -1), (0, 1), (64, 0), (-8, 0)] {
        let wrong = (records[0].offset.wrapping_add_signed(offset), records[0].bytes.len() as i64 + len);
        let error =
            bench.run(|disk| async move { disk.read_record(volume(1), wrong.0, wrong.1 as u32).await }).unwrap_err();
        assert!(matches!(error, EngineError::Damaged { .. }), "{error}");
    }
}

#[test]
fn a_superblock_torn_by_a_failed_write_is_written_again_before_the_one_that_is_whole() {
    for seed in 0..60 {
        let mut bench = Bench::new(seed);
        bench.create(volume(1));
        let (records, _) = bench.append(volume(1), &[3000]);
        let proposal = bench.run(|disk| async move { disk.propose_incarnation().await }).unwrap();
        bench.disk.borrow_mut().set_faults(Faults { write_errors: 1000, ..Faults::default() });
        bench.run(|disk| async move { disk.confirm_incarnation(proposal).await }).unwrap_err();
        bench.disk.borrow_mut().set_faults(Faults::default());
        // The power goes while the repeat is being written; reads beside it keep it in flight for a while.
        let disk = bench.handle();
        let mut repeat = Box::pin(async move { disk.confirm_incarnation(proposal).await });
        let mut reads: Vec<_> = (0..4)
            .map(|_| {
                let (disk, offset) = (bench.handle(), records[0].offset);
                Box::pin(async move { disk.read(volume(1), offset, 100).await })
            })
            .collect();
        let mut context = Context::from_waker(Waker::noop());
        assert!(repeat.as_mut().poll(&mut context).is_pending());
        assert!(reads.iter_mut().all(|read| read.as_mut().poll(&mut context).is_pending()));
        bench.engine.turn();
        bench.restart();
        let again = bench.run(|disk| async move { disk.propose_incarnation().await }).unwrap();
        assert!(again == proposal || again.previous_nonce == proposal.nonce);
    }
}

#[test]
fn failing_writes_of_the_key_area_never_take_both_copies() {
    for seed in 0..30 {
        let mut bench = Bench::new(seed);
        let write =
            |bench: &mut Bench, byte: u8| bench.run(|disk| async move { disk.write_key_area(vec![byte; 5000]).await });
        write(&mut bench, 0).unwrap();
        bench.disk.borrow_mut().set_faults(Faults { write_errors: 1000, ..Faults::default() });
        for byte in 1..4 {
            write(&mut bench, byte).unwrap_err();
        }
        bench.disk.borrow_mut().set_faults(Faults::default());
        let content = bench.run(|disk| async move { disk.read_key_area().await }).unwrap().unwrap();
        assert!((0..4).any(|byte| content == vec![byte; 5000]));
    }
}

#[test]
fn a_first_copy_of_the_keys_that_cannot_be_read_for_once_is_not_taken_for_none() {
    let mut bench = Bench::new(31);
    bench.run(|disk| async move { disk.write_key_area(vec![1; 100]).await }).unwrap();
    let (a, b) = {
        let disk = bench.disk.borrow();
        let found: Vec<u64> = (0..2048).map(|n| n * 4096).filter(|at| disk.peek(*at, 4) == *b"HFKA").collect();
        (found[0], found[1])
    };
    // As a crash between the first two writes leaves it.
    bench.disk.borrow_mut().write_durable(b, &[0; 8192]);
    bench.disk.borrow_mut().make_unreadable(a..a + 1);
    let error = bench.run(|disk| async move { disk.read_key_area().await }).unwrap_err();
    assert!(error.to_string().contains("cannot be read"), "{error}");
    let before = bench.disk.borrow().peek(a, 8192);
    let found = bench.run(|disk| async move { disk.scrub_step(1 << 20).await }).unwrap().found;
    assert!(found.len() == 1 && !found[0].repaired, "{found:?}");
    let mut write = Box::pin({
        let disk = bench.handle();
        async move { disk.write_key_area(vec![2; 100]).await }
    });
    while bench.disk.borrow().peek(b, 4) != *b"HFKA" {
        assert!(write.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert!(bench.disk.borrow().peek(a, 8192) == before, "the only copy is written over before there is another");
        bench.engine.turn();
    }
}
