//! The engine on a zoned disk: where it writes, what it resets and finishes, and what becomes of zones that fail. The
//! simulated disk answers EIO to whatever breaks the rules of zones; the crash test runs on zoned disks too.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use crate::support::{Bench, CELL, EPOCH, aligned, batch, mounted, volume};
use holdfast_libs_sim::disk::{Faults, SimDisk, SimOp};
use holdfast_libs_sim::streams::Streams;
use holdfast_libs_sim::zones::{ZoneHealth, ZoneLayout, ZoneState};
use holdfast_libs_types::VolumeId;
use holdfast_node_engine::simulated::{self, SharedSimDisk};
use holdfast_node_engine::{DiskState, EngineError, ExtentState, Place, TrashOrder};

const ZONE: u64 = 512 << 10;
/// Two zones are just the room of a slot.
const CAPACITY: u64 = ZONE - 4096;

fn bench_with(max_open: u32) -> Bench {
    let streams = Streams::new(1);
    let mut disk = SimDisk::new(24 << 20, &streams);
    disk.set_zones(ZoneLayout { zone_bytes: ZONE, capacity_bytes: CAPACITY, conventional: 14, max_open });
    let disk: SharedSimDisk = Rc::new(RefCell::new(disk));
    simulated::format(&disk, CELL, Bench::SLOT_BYTES, &mut streams.stream("format"));
    let engine = mounted(&disk);
    Bench { disk, engine, rng: streams.stream("bench") }
}

fn bench() -> Bench {
    bench_with(0)
}

/// The two zones of a slot.
fn zones_of(bench: &Bench, slot: u32) -> Vec<ZoneState> {
    let start = bench.engine.data_range(slot).start;
    bench
        .disk
        .borrow()
        .zone_report()
        .iter()
        .filter(|zone| (start..start + 2 * ZONE).contains(&zone.start))
        .copied()
        .collect()
}

fn written(bench: &Bench, slot: u32) -> u64 {
    zones_of(bench, slot).iter().map(|zone| zone.write_pointer - zone.start).sum()
}

fn open_zones(bench: &Bench) -> usize {
    bench.disk.borrow().zone_report().iter().filter(|zone| zone.is_open()).count()
}

/// Past the engine and its queue.
fn at_the_disk(bench: &Bench, op: SimOp) {
    let mut disk = bench.disk.borrow_mut();
    disk.submit(u64::MAX, op);
    disk.complete_one().unwrap();
}

fn reset(bench: &Bench, zones: Range<u64>) {
    at_the_disk(bench, SimOp::ResetZones { offset: zones.start, len: zones.end - zones.start });
}

fn seal(bench: &mut Bench, volume: VolumeId, length: u64) -> Result<[u8; 32], EngineError> {
    bench.run(|disk| async move { disk.seal(volume, EPOCH, length, 1).await })
}

fn trash(bench: &mut Bench, volume: VolumeId) {
    bench.run(|disk| async move {
        let at = disk.extent(volume).await.unwrap();
        let (slot, slot_generation) = (at.slot, at.slot_generation);
        disk.trash(TrashOrder { volume, slot, slot_generation, term: 1, order: [7; 16] }).await.unwrap();
    });
}

fn erase(bench: &mut Bench) -> usize {
    bench.run(|disk| async move { disk.erase_expired(Duration::ZERO).await }).unwrap().len()
}

fn state(bench: &mut Bench, volume: VolumeId) -> (ExtentState, String) {
    let info = bench.run(|disk| async move { disk.extent(volume).await }).unwrap();
    (info.state, info.note.unwrap_or_default())
}

#[test]
fn an_extent_crosses_zones_and_its_slot_is_reset_for_the_next_one() {
    let mut bench = bench();
    bench.create(volume(1));
    // The second batch crosses from the first zone of the slot into the second, over a hole.
    let (mut records, _) = bench.append(volume(1), &[300_000]);
    let (more, end) = bench.append(volume(1), &[200_000, 100_000, 3000]);
    records.extend(more);
    assert!(end > CAPACITY);
    for record in &records {
        assert_eq!(bench.read_record(record).unwrap(), record.bytes);
    }
    let slot = bench.slot(volume(1));
    assert_eq!(written(&bench, slot), end);
    seal(&mut bench, volume(1), end).unwrap();
    assert_eq!((written(&bench, slot), open_zones(&bench)), (2 * CAPACITY, 0), "finished by the seal");
    bench.restart();
    assert_eq!(state(&mut bench, volume(1)), (ExtentState::Sealed, String::new()));
    let rows = bench.run(|disk| async move { disk.records(volume(1)).await }).unwrap();
    assert_eq!(rows.len(), 4);
    for record in &records {
        assert_eq!(bench.read_record(record).unwrap(), record.bytes);
    }
    trash(&mut bench, volume(1));
    assert_eq!(written(&bench, slot), 2 * CAPACITY);
    assert_eq!((erase(&mut bench), written(&bench, slot)), (1, 0));
    bench.create(volume(2));
    assert_eq!(bench.slot(volume(2)), slot);
    let (records, end) = bench.append(volume(2), &[9000]);
    assert_eq!(bench.read_record(&records[0]).unwrap(), records[0].bytes);
    assert_eq!((written(&bench, slot), bench.handle().status().erase_alarms), (end, 0));
}

#[test]
fn a_write_that_comes_back_short_goes_on_behind_what_was_written() {
    let mut bench = bench();
    bench.create(volume(1));
    bench.disk.borrow_mut().set_faults(Faults { short: 300, ..Faults::default() });
    let mut records = Vec::new();
    for _ in 0..10 {
        records.extend(bench.append(volume(1), &[20_000, 30_000]).0);
    }
    bench.disk.borrow_mut().set_faults(Faults::default());
    for record in &records {
        assert_eq!(bench.read_record(record).unwrap(), record.bytes);
    }
}

#[test]
fn as_many_extents_are_open_as_the_disk_has_open_zones_and_a_seal_or_an_erase_makes_room() {
    let mut bench = bench_with(3);
    for n in 1..=3 {
        bench.create(volume(n));
    }
    let create = |bench: &mut Bench, n| bench.run(|disk| async move { disk.create_extent(volume(n), EPOCH).await });
    let error = create(&mut bench, 4).unwrap_err();
    assert!(matches!(&error, EngineError::NoSpace { detail, .. } if detail.starts_with("3 slots")), "{error}");
    let status = bench.handle().status();
    assert_eq!((status.open_zones, status.open_zones_limit, status.is_full()), (3, 3, true));
    let ends: Vec<u64> = (1..=3).map(|n| bench.append(volume(n), &[5000]).1).collect();
    assert_eq!(open_zones(&bench), 3);
    seal(&mut bench, volume(1), ends[0]).unwrap();
    create(&mut bench, 4).unwrap();
    bench.append(volume(4), &[5000]);
    create(&mut bench, 5).unwrap_err();
    bench.restart();
    create(&mut bench, 5).unwrap_err();
    trash(&mut bench, volume(2));
    create(&mut bench, 5).unwrap_err();
    assert_eq!(erase(&mut bench), 1);
    create(&mut bench, 5).unwrap();
    bench.append(volume(5), &[5000]);
    assert_eq!(open_zones(&bench), 3);
}

#[test]
fn a_zone_that_could_not_be_finished_is_when_its_place_is_needed() {
    let mut bench = bench_with(1);
    bench.create(volume(1));
    let (_, end) = bench.append(volume(1), &[5000]);
    let slot = bench.slot(volume(1));
    // The footer and the state are written, and then the finish fails.
    let zone = zones_of(&bench, slot)[0].start;
    bench.disk.borrow_mut().keep_zones(true);
    seal(&mut bench, volume(1), end).unwrap();
    bench.disk.borrow_mut().keep_zones(false);
    assert_eq!((open_zones(&bench), bench.handle().status().open_zones), (1, 1));
    bench.create(volume(2));
    assert_eq!(bench.disk.borrow().zone_report()[(zone / ZONE) as usize].write_pointer, zone + CAPACITY);
    bench.append(volume(2), &[5000]);
    bench.restart();
    assert_eq!(state(&mut bench, volume(1)).0, ExtentState::Sealed);
}

#[test]
fn a_footer_stands_behind_a_torn_append() {
    let mut bench = bench();
    bench.create(volume(1));
    let (records, end) = bench.append(volume(1), &[5000]);
    let slot = bench.slot(volume(1));
    let start = bench.engine.data_range(slot).start;
    let (torn, _) = batch(volume(1), EPOCH, end, end, &[vec![9; 9000]]);
    at_the_disk(&bench, SimOp::Write { offset: start + end, bytes: torn[..8704].to_vec(), dsync: true });
    bench.restart();
    let (state_now, note) = state(&mut bench, volume(1));
    assert_eq!(state_now, ExtentState::Open);
    assert!(note.contains("torn or damaged at the end"), "{note}");
    seal(&mut bench, volume(1), end).unwrap();
    bench.restart();
    assert_eq!(state(&mut bench, volume(1)), (ExtentState::Sealed, String::new()));
    assert_eq!(bench.run(|disk| async move { disk.records(volume(1)).await }).unwrap().len(), 1);
    assert_eq!(bench.read_record(&records[0]).unwrap(), records[0].bytes);
}

#[test]
fn bytes_of_a_page_that_was_begun_are_told_and_not_read() {
    let mut bench = bench();
    bench.create(volume(1));
    let (_, end) = bench.append(volume(1), &[5000]);
    let slot = bench.slot(volume(1));
    let start = bench.engine.data_range(slot).start;
    at_the_disk(&bench, SimOp::Write { offset: start + end, bytes: vec![9; 1024], dsync: true });
    bench.restart();
    let (_, note) = state(&mut bench, volume(1));
    assert!(note.contains("torn or damaged at the end") && note.contains("1024 bytes of a page"), "{note}");
    seal(&mut bench, volume(1), end).unwrap();
    bench.restart();
    assert_eq!(state(&mut bench, volume(1)), (ExtentState::Sealed, String::new()));
}

#[test]
fn a_torn_page_is_filled_with_what_does_not_make_its_batch_whole() {
    let mut bench = bench();
    bench.create(volume(1));
    let slot = bench.slot(volume(1));
    let start = bench.engine.data_range(slot).start;
    // Nothing but zeroes of its padding is missing.
    let (whole, _) = batch(volume(1), EPOCH, 0, 0, &[vec![9; 9000]]);
    let torn = &whole[..whole.len() - 512];
    assert!(whole[torn.len()..].iter().all(|byte| *byte == 0));
    at_the_disk(&bench, SimOp::Write { offset: start, bytes: torn.to_vec(), dsync: true });
    bench.restart();
    let length = |bench: &mut Bench| bench.run(|disk| async move { disk.extent(volume(1)).await }).unwrap().length;
    assert_eq!(length(&mut bench), 0);
    // The page is filled, and the footer behind it fails.
    bench.disk.borrow_mut().make_unwritable(start + whole.len() as u64..start + ZONE);
    seal(&mut bench, volume(1), 0).unwrap_err();
    bench.disk.borrow_mut().make_writable();
    assert!(written(&bench, slot) >= whole.len() as u64);
    bench.restart();
    assert_eq!(length(&mut bench), 0, "what nobody was told of does not come back");
    seal(&mut bench, volume(1), 0).unwrap();
}

#[test]
fn a_seal_without_room_for_its_footer_fails_and_leaves_the_extent() {
    let mut bench = bench();
    bench.create(volume(1));
    let (records, end) = bench.append(volume(1), &[5000]);
    let slot = bench.slot(volume(1));
    let start = bench.engine.data_range(slot).start;
    at_the_disk(&bench, SimOp::FinishZones { offset: start, len: 2 * ZONE });
    let error = seal(&mut bench, volume(1), end).unwrap_err();
    assert!(matches!(&error, EngineError::NoSpace { detail, .. } if detail.contains("does not fit")), "{error}");
    assert_eq!(state(&mut bench, volume(1)).0, ExtentState::Open);
    assert_eq!(bench.read_record(&records[0]).unwrap(), records[0].bytes);
}

/// A volume that is full, and has so many records that only one footer fits behind it; its end.
fn fill(bench: &mut Bench) -> u64 {
    bench.create(volume(1));
    for _ in 0..4 {
        bench.append(volume(1), &[16; 1000]);
    }
    let tail = bench.append(volume(1), &[16; 500]).1;
    let left = (bench.handle().volume_capacity_bytes() - tail) as usize;
    bench.append(volume(1), &[left - 4096]).1
}

#[test]
fn a_seal_of_a_full_extent_goes_on_with_the_footer_that_it_began_and_with_no_other() {
    let mut whole = bench();
    let end = fill(&mut whole);
    seal(&mut whole, volume(1), end).unwrap();
    let at = zones_of(&whole, 0)[1].start + end - CAPACITY;
    let rows = (4501_usize * 48).next_multiple_of(4096);
    let footer = whole.disk.borrow().peek(at, 4096 + rows + 4096);
    for begun in [40 * 4096, 40 * 4096 + 512, footer.len() - 4096, footer.len()] {
        for harmed in [false, true] {
            let mut bench = bench();
            assert_eq!(fill(&mut bench), end);
            let mut bytes = footer[..begun].to_vec();
            bytes[5000] ^= u8::from(harmed);
            at_the_disk(&bench, SimOp::Write { offset: at, bytes, dsync: true });
            bench.restart();
            let sealed = seal(&mut bench, volume(1), end);
            if harmed {
                assert!(matches!(sealed, Err(EngineError::NoSpace { .. })), "{begun}: {sealed:?}");
                continue;
            }
            sealed.unwrap();
            bench.restart();
            assert_eq!(state(&mut bench, volume(1)), (ExtentState::Sealed, String::new()));
            assert_eq!(bench.run(|disk| async move { disk.records(volume(1)).await }).unwrap().len(), 4501);
            assert_eq!(bench.disk.borrow().peek(at, footer.len()), footer);
        }
    }
}

#[test]
fn a_sealed_extent_that_reaches_above_the_write_pointer_is_damaged_and_no_other() {
    let mut bench = bench();
    for n in 1..=2 {
        bench.create(volume(n));
        let (_, end) = bench.append(volume(n), &[5000]);
        seal(&mut bench, volume(n), end).unwrap();
    }
    let zone = zones_of(&bench, 0)[0].start;
    reset(&bench, zone..zone + ZONE);
    bench.restart();
    let (damaged, note) = state(&mut bench, volume(1));
    assert_eq!(damaged, ExtentState::Damaged);
    assert!(note.contains("were written up to 0 only"), "{note}");
    assert_eq!(state(&mut bench, volume(2)).0, ExtentState::Sealed);
    assert_eq!(bench.handle().status().state, DiskState::Healthy);
}

#[test]
fn a_zone_that_fails_costs_its_slot_and_not_the_disk() {
    let mut bench = bench();
    for n in 1..=3 {
        bench.create(volume(n));
        let (_, end) = bench.append(volume(n), &[5000]);
        if n < 3 {
            seal(&mut bench, volume(n), end).unwrap();
        }
    }
    let free = bench.handle().status().free_slots;
    for (slot, health) in
        [(0, ZoneHealth::Offline), (1, ZoneHealth::ReadOnly), (2, ZoneHealth::Offline), (5, ZoneHealth::Offline)]
    {
        let zone = zones_of(&bench, slot)[0].start;
        bench.disk.borrow_mut().set_zone_health(zone, health);
    }
    bench.restart();
    let status = bench.handle().status();
    assert_eq!((status.free_slots, status.lost_slots, status.state), (free - 1, 1, DiskState::Healthy));
    let (damaged, note) = state(&mut bench, volume(1));
    assert_eq!(damaged, ExtentState::Damaged);
    assert!(note.contains("offline"), "{note}");
    assert_eq!(state(&mut bench, volume(2)).0, ExtentState::Sealed, "it can be read");
    let (damaged, note) = state(&mut bench, volume(3));
    assert_eq!(damaged, ExtentState::Damaged);
    assert!(note.contains("offline"), "{note}");
    for n in 10..10 + status.free_slots as u8 {
        bench.create(volume(n));
        assert_ne!(bench.slot(volume(n)), 5);
    }
    // What cannot be reset is not offered again.
    trash(&mut bench, volume(2));
    assert_eq!(erase(&mut bench), 1);
    let status = bench.handle().status();
    assert_eq!((status.free_slots, status.lost_slots), (0, 2));
}

#[test]
fn an_erase_that_was_cut_off_before_its_reset_is_ended_by_the_next_mount() {
    let mut bench = bench_with(1);
    bench.create(volume(1));
    bench.append(volume(1), &[5000]);
    let slot = bench.slot(volume(1));
    trash(&mut bench, volume(1));
    bench.disk.borrow_mut().keep_zones(true);
    assert_eq!(erase(&mut bench), 1);
    bench.disk.borrow_mut().keep_zones(false);
    assert!(written(&bench, slot) > 0);
    bench.restart();
    assert_eq!((written(&bench, slot), bench.handle().status().open_zones), (0, 0));
    bench.create(volume(2));
    bench.append(volume(2), &[5000]);
}

#[test]
fn a_slot_is_reset_before_it_is_taken_whatever_was_left_in_it() {
    let mut bench = bench_with(1);
    let (bytes, _) = batch(volume(1), EPOCH, 0, 0, &[vec![1; 9000]]);
    bench.run(|disk| async move { disk.begin_copy(volume(1), EPOCH, 12_288, [0; 32], None).await }).unwrap();
    let part = aligned(&bytes);
    bench.run(|disk| async move { disk.copy_write(volume(1), 0, &mut Some(part)).await }).unwrap();
    let slot = bench.slot(volume(1));
    // It becomes free in the table, and its headers cannot say so.
    bench.disk.borrow_mut().make_unwritable(bench.engine.header_range(slot));
    let error = bench.run(|disk| async move { disk.abort_copy(volume(1)).await }).unwrap_err();
    assert!(matches!(error, EngineError::Io { .. }), "{error}");
    bench.disk.borrow_mut().make_writable();
    // The headers are written now, and the slot is free, and full of old bytes.
    bench.run(|disk| async move { disk.abort_copy(volume(1)).await }).unwrap_err();
    assert_eq!(written(&bench, slot), 12_288);
    bench.create(volume(2));
    assert_eq!((bench.slot(volume(2)), written(&bench, slot)), (slot, 0));
    bench.append(volume(2), &[5000]);
}

#[test]
fn the_parts_of_a_copy_come_in_order_and_a_copy_that_is_begun_anew_is_empty() {
    let mut bench = bench();
    let (bytes, _) = batch(volume(1), EPOCH, 0, 0, &[vec![1; 9000]]);
    let digest: [u8; 32] = sha2::Digest::finalize(sha2::Digest::chain_update(sha2::Sha256::default(), &bytes)).into();
    let begin = |bench: &mut Bench| {
        bench.run(|disk| async move { disk.begin_copy(volume(1), EPOCH, 12_288, digest, None).await }).unwrap();
    };
    let write = |bench: &mut Bench, at: usize, end: usize| {
        let part = aligned(&bytes[at..end]);
        bench.run(|disk| async move { disk.copy_write(volume(1), at as u64, &mut Some(part)).await })
    };
    begin(&mut bench);
    write(&mut bench, 0, 8192).unwrap();
    for (at, end) in [(0, 4096), (4096, 8192)] {
        let error = write(&mut bench, at, end).unwrap_err();
        assert!(matches!(error, EngineError::NotTail { tail: 8192 }), "{error}");
    }
    begin(&mut bench);
    assert_eq!(written(&bench, 0), 0);
    write(&mut bench, 0, 8192).unwrap();
    let finish = |bench: &mut Bench| bench.run(|disk| async move { disk.finish_copy(volume(1), None).await });
    let error = finish(&mut bench).unwrap_err();
    assert!(matches!(error, EngineError::TooShort { tail: 8192, length: 12_288 }), "{error}");
    write(&mut bench, 8192, 12_288).unwrap();
    finish(&mut bench).unwrap();
    assert_eq!(open_zones(&bench), 0);
    bench.restart();
    assert_eq!(state(&mut bench, volume(1)), (ExtentState::Sealed, String::new()));
}

#[test]
fn a_bad_footer_is_reported_and_not_written_again_where_nothing_can_be() {
    let mut bench = bench();
    bench.create(volume(1));
    let (_, end) = bench.append(volume(1), &[5000]);
    seal(&mut bench, volume(1), end).unwrap();
    bench.flip(volume(1), end + 9000, 0);
    let found = bench.run(|disk| async move { disk.scrub_step(64 << 20).await }).unwrap().found;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].place, found[0].repaired), (Place::Footer, false));
    assert_eq!(state(&mut bench, volume(1)).0, ExtentState::Damaged);
    let status = bench.handle().status();
    assert_eq!((status.state, status.counters.write_errors), (DiskState::Healthy, 0));
}

#[test]
fn headers_and_table_are_mended_and_rebuilt_as_on_any_other_disk() {
    let mut bench = bench();
    bench.create(volume(1));
    let (_, end) = bench.append(volume(1), &[5000]);
    seal(&mut bench, volume(1), end).unwrap();
    bench.create(volume(2));
    let (records, _) = bench.append(volume(2), &[5000]);
    let header = bench.engine.header_range(0).start;
    bench.disk.borrow_mut().flip_bit(header + 70, 0);
    let found = bench.run(|disk| async move { disk.scrub_step(64 << 20).await }).unwrap().found;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].place, found[0].slot, found[0].repaired), (Place::SlotHeader, Some(0), true));
    for copy in simulated::table_areas_on(&bench.disk, Bench::SLOT_BYTES).copies {
        bench.disk.borrow_mut().flip_bit(copy.start + 60, 0);
    }
    bench.restart();
    assert!(bench.handle().status().rebuilt);
    assert_eq!(state(&mut bench, volume(1)).0, ExtentState::Sealed);
    assert_eq!(state(&mut bench, volume(2)).0, ExtentState::Open);
    assert_eq!(bench.read_record(&records[0]).unwrap(), records[0].bytes);
}

#[test]
fn a_disk_with_other_zones_than_it_was_formatted_with_is_not_mounted() {
    let bench = bench();
    let layout = ZoneLayout { zone_bytes: ZONE, capacity_bytes: ZONE, conventional: 14, max_open: 0 };
    bench.disk.borrow_mut().set_zones(layout);
    let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| mounted(&bench.disk)));
    assert!(failed.is_err());
}
