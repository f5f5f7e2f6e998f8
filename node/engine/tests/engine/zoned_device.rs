//! The engine on a real zoned block device, all of which it erases. Runs where `HOLDFAST_ZONED_DEVICE` names one (in
//! the virtual machine of `docs/hardware.md`, "Zoned disks"), and does nothing elsewhere.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::{CELL, EPOCH, aligned, batch, block_on, volume};
use holdfast_node_engine::{
    Candidate, Consent, Disk, EngineError, ExtentState, FormatOptions, FoundDisk, IoMode, OpenOptions, TrashOrder,
};

const SLOT_BYTES: u64 = 16 << 20;
const BATCH_PAYLOAD_BYTES: usize = 1_000_000;

fn device() -> Option<PathBuf> {
    let device = std::env::var_os("HOLDFAST_ZONED_DEVICE").map(PathBuf::from);
    if device.is_none() {
        println!("HOLDFAST_ZONED_DEVICE names no device: nothing was tested");
    }
    device
}

fn format(device: &Path) {
    let options = FormatOptions { cell: CELL, slot_bytes: SLOT_BYTES, size_bytes: None };
    let candidate = Candidate::open(device, options).unwrap();
    println!("{:?}", candidate.survey().unwrap());
    println!("{:?}", candidate.format(Consent::EraseAll).unwrap());
}

fn open(device: &Path, io: IoMode) -> Disk {
    Disk::open(device, OpenOptions { io, ..OpenOptions::new(CELL) }).unwrap()
}

fn payload(n: u8, offset: u64) -> Vec<u8> {
    (0..BATCH_PAYLOAD_BYTES).map(|at| (at as u64 * 31 + offset / 4096 + u64::from(n)) as u8).collect()
}

/// Fills an extent; returns its length and where its records stand.
fn fill(disk: &Disk, n: u8) -> (u64, Vec<(u64, u32)>) {
    let (mut tail, mut records) = (0, Vec::new());
    loop {
        let (bytes, some) = batch(volume(n), EPOCH, tail, tail, &[payload(n, tail)]);
        match block_on(disk.append(volume(n), EPOCH, tail, aligned(&bytes))) {
            Ok(end) => tail = end,
            Err(EngineError::VolumeFull { .. }) => return (tail, records),
            Err(error) => panic!("append at {tail}: {error}"),
        }
        records.extend(some);
    }
}

fn check(disk: &Disk, n: u8, records: &[(u64, u32)]) {
    for (offset, len) in records {
        let record = block_on(disk.read_record(volume(n), *offset, *len)).unwrap();
        assert_eq!(record[record.len() - BATCH_PAYLOAD_BYTES..], payload(n, *offset));
    }
}

fn scrub(disk: &Disk) {
    loop {
        let step = block_on(disk.scrub_step(16 << 20)).unwrap();
        assert!(step.found.is_empty(), "{:?}", step.found);
        if step.finished_round {
            return;
        }
    }
}

fn live_through(device: &Path, io: IoMode) {
    format(device);
    let disk = open(device, io);
    let status = disk.status();
    println!("{} slots, {} open zones allowed, {}", status.slots, status.open_zones_limit, status.io);

    // As many extents as may be open at a time, written side by side.
    let most = match status.open_zones_limit {
        0 => 6,
        limit => limit.min(6),
    } as u8;
    for n in 0..most {
        block_on(disk.create_extent(volume(n), EPOCH)).unwrap();
    }
    let filled: Vec<_> = std::thread::scope(|scope| {
        let writers: Vec<_> =
            (0..most).map(|n| (n, &disk)).map(|(n, disk)| scope.spawn(move || fill(disk, n))).collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    if status.open_zones_limit == u32::from(most) {
        let error = block_on(disk.create_extent(volume(100), EPOCH)).unwrap_err();
        assert!(matches!(error, EngineError::NoSpace { .. }), "{error}");
    }
    for (n, (length, records)) in (0..most).zip(&filled) {
        check(&disk, n, records);
        if n > 0 {
            block_on(disk.seal(volume(n), EPOCH, *length, 1)).unwrap();
        }
    }
    assert_eq!(disk.status().open_zones, 1);

    // After a restart all is there, and what is open takes no more.
    drop(disk);
    let disk = open(device, io);
    let extents = block_on(disk.extents()).unwrap();
    assert_eq!(extents.len(), usize::from(most));
    for (n, (length, records)) in (0..most).zip(&filled) {
        let info = block_on(disk.extent(volume(n))).unwrap();
        let expected = if n == 0 { ExtentState::Open } else { ExtentState::Sealed };
        assert_eq!((info.state, info.length, info.note), (expected, *length, None));
        check(&disk, n, records);
    }
    block_on(disk.seal(volume(0), EPOCH, filled[0].0, 1)).unwrap();
    assert_eq!(block_on(disk.records(volume(0))).unwrap().len(), filled[0].1.len());
    scrub(&disk);

    // Erased, and its zones used again; beside it a copy of another extent.
    let old = block_on(disk.extent(volume(1))).unwrap();
    let (slot, slot_generation) = (old.slot, old.slot_generation);
    let order = TrashOrder { volume: volume(1), slot, slot_generation, term: 1, order: [7; 16] };
    block_on(disk.trash(order)).unwrap();
    assert_eq!(block_on(disk.erase_expired(Duration::ZERO)).unwrap().len(), 1);
    block_on(disk.create_extent(volume(101), EPOCH)).unwrap();
    assert_eq!(block_on(disk.extent(volume(101))).unwrap().slot, slot);
    let (_, records) = fill(&disk, 101);
    check(&disk, 101, &records);
    scrub(&disk);
    let status = disk.status();
    assert_eq!((status.counters.write_errors, status.counters.read_errors, status.erase_alarms), (0, 0, 0));
    drop(disk);

    let options = FormatOptions { cell: CELL, slot_bytes: SLOT_BYTES, size_bytes: None };
    let survey = Candidate::open(device, options).unwrap().survey().unwrap();
    assert!(matches!(survey.holdfast, Some(FoundDisk::Readable { extents, .. }) if extents == u32::from(most)));
}

#[test]
fn extents_live_and_die_on_a_zoned_device() {
    let Some(device) = device() else { return };
    for io in [IoMode::Uring, IoMode::Threads] {
        live_through(&device, io);
    }
}
