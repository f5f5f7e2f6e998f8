//! The record table of sealed extents: what it holds, that it survives, and that a damaged one is never believed.

use crate::support::{Appended, Bench, aligned, volume};
use holdfast_libs_types::WriteEpoch;
use holdfast_node_engine::{EngineError, RecordRow};

const NEXT: WriteEpoch = WriteEpoch(2);

/// A bench with volume 1, three batches long, sealed at its second; the records below that, and the tail it had.
fn sealed(seed: u64) -> (Bench, Vec<Appended>, u64) {
    let mut bench = Bench::new(seed);
    bench.create(volume(1));
    let (mut records, _) = bench.append(volume(1), &[100, 5000, 16]);
    // Long enough that record headers straddle the pieces in which a seal reads.
    let (more, length) = bench.append(volume(1), &[300_000, 16, 40_000, 77]);
    records.extend(more);
    let (_, tail) = bench.append(volume(1), &[9000]);
    bench.run(|disk| async move { disk.seal(volume(1), NEXT, length, 1).await }).unwrap();
    (bench, records, tail)
}

fn rows(bench: &mut Bench) -> Result<Vec<RecordRow>, EngineError> {
    bench.run(|disk| async move { disk.records(volume(1)).await })
}

fn places(rows: &[RecordRow]) -> Vec<(u64, u32)> {
    rows.iter().map(|row| (row.offset, row.length)).collect()
}

fn of(records: &[Appended]) -> Vec<(u64, u32)> {
    records.iter().map(|record| (record.offset, record.bytes.len() as u32)).collect()
}

#[test]
fn a_sealed_volume_lists_its_records_and_still_does_after_a_power_cut() {
    let (mut bench, records, _) = sealed(1);
    let before = rows(&mut bench).unwrap();
    assert_eq!(places(&before), of(&records));
    bench.restart();
    assert_eq!(rows(&mut bench).unwrap(), before);
    for record in &records {
        assert_eq!(bench.read_record(record).unwrap(), record.bytes);
    }
}

#[test]
fn an_open_volume_has_no_list_yet() {
    let mut bench = Bench::new(2);
    bench.create(volume(1));
    bench.append(volume(1), &[100]);
    assert!(matches!(rows(&mut bench), Err(EngineError::WrongState { .. })));
}

#[test]
fn an_empty_volume_can_be_sealed_and_lists_nothing() {
    let mut bench = Bench::new(3);
    bench.create(volume(1));
    bench.run(|disk| async move { disk.seal(volume(1), NEXT, 0, 1).await }).unwrap();
    assert_eq!(rows(&mut bench).unwrap(), []);
    bench.restart();
    assert_eq!(rows(&mut bench).unwrap(), []);
}

fn copy_to(target: &mut Bench, bytes: &[u8], digest: [u8; 32]) {
    let length = bytes.len() as u64;
    target.run(|disk| async move { disk.begin_copy(volume(1), NEXT, length, digest, None).await }).unwrap();
    for (n, part) in bytes.chunks(65_536).enumerate() {
        let part = aligned(part);
        target.run(|disk| async move { disk.copy_write(volume(1), n as u64 * 65_536, &mut Some(part)).await }).unwrap();
    }
    target.run(|disk| async move { disk.finish_copy(volume(1), None).await }).unwrap();
}

#[test]
fn a_copy_lists_the_same_records() {
    let (mut bench, _, _) = sealed(4);
    let info = bench.run(|disk| async move { disk.extent(volume(1)).await }).unwrap();
    let length = info.length as u32;
    let bytes = bench.run(|disk| async move { disk.read(volume(1), 0, length).await }).unwrap();
    let mut target = Bench::new(5);
    copy_to(&mut target, &bytes, info.digest.unwrap());
    assert_eq!(rows(&mut target).unwrap(), rows(&mut bench).unwrap());
}

#[test]
fn a_copy_of_what_is_no_batches_is_kept_and_lists_nothing() {
    use sha2::Digest;
    let bytes = vec![7; 3 * 65_536 + 4096];
    let mut target = Bench::new(6);
    copy_to(&mut target, &bytes, sha2::Sha256::digest(&bytes).into());
    assert_eq!(rows(&mut target).unwrap(), []);
}

#[test]
fn the_footer_stands_behind_all_that_was_written_so_that_a_failed_seal_destroys_nothing() {
    let (mut bench, _, tail) = sealed(7);
    let slot = bench.slot(volume(1));
    let data = bench.engine.data_range(slot).start;
    // The batch that the seal cut off still stands as it was.
    let page = bench.disk.borrow().peek(data + tail - 4096, 4096);
    assert!(page.iter().any(|byte| *byte != 0));
    let footer = bench.disk.borrow().peek(data + tail, 4);
    assert_ne!(footer, [0; 4]);
}

#[test]
fn every_damaged_part_of_a_footer_is_named_and_never_believed() {
    // Checksums, record table, trailer: a page each.
    for (page, told) in [(1, "record table"), (2, "trailer")] {
        let (mut bench, records, tail) = sealed(8);
        bench.flip(volume(1), tail + page * 4096 + 9, 3);
        match rows(&mut bench) {
            Err(EngineError::Damaged { slot: 0, offset, detail, .. }) => {
                assert!(offset == tail && detail.contains(told), "{offset} {detail}");
            }
            other => panic!("{other:?}"),
        }
        // The records themselves are as good as before.
        assert_eq!(bench.read_record(&records[3]).unwrap(), records[3].bytes);
    }
}
