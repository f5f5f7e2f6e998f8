//! A whole disk: the engine mounts one whose pages were changed, and everything on it is read and scrubbed. What
//! passes the checksums of one page must not lead another part astray: a length that is believed, a place that is
//! followed.
//!
//! An input is a row of patches: page u16 (which of the pages that were written), place in it u16, length u8, bytes;
//! big-endian. Pages with the checksum at their end get it made right after most patches.

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use holdfast_libs_sim::disk::SimDisk;
use holdfast_libs_sim::streams::{SimRng, Streams};
use holdfast_libs_types::{CellId, VolumeId, WriteEpoch};
use holdfast_node_engine::simulated::{self, SharedSimDisk, SimulatedDisk};
use holdfast_node_engine::{AlignedBuf, Disk, EngineError};

use super::disk::sample_batch;
use super::of_bytes;
use crate::driver::{Outcome, Target};

const CELL: CellId = CellId([0xce; 16]);
const PAGE: usize = 4096;
const DISK_BYTES: u64 = 24 << 20;
const SLOT_BYTES: u64 = 1 << 20;
const EPOCH: WriteEpoch = WriteEpoch(1);
/// Where the (first) length of an extent stands, by the magic of the page.
const LENGTHS: [(&[u8], u16); 4] = [(b"HFSL", 88), (b"HFTL", 164), (b"HFTP", 192), (b"HFFT", 56)];
/// Turns of the loop after which an operation has come to no end.
const MOST_TURNS: u64 = 1_000_000;

pub fn target() -> Target {
    let pages = pages();
    let count = pages.len() as u16;
    let mut seeds = vec![
        Vec::new(),
        patch(0, 136, &[0xff; 8]),
        patch(1 % count, 160, &[0xff; 8]),
        [patch(count / 2, 88, &[0xff; 8]), patch(count / 2 + 1, 88, &[0xff; 8])].concat(),
    ];
    for (magic, at) in LENGTHS {
        let of_kind = pages.iter().enumerate().filter(|(_, (_, page))| page.starts_with(magic));
        seeds.extend(of_kind.take(4).map(|(n, _)| patch(n as u16, at, &[0xff; 8])));
    }
    Target {
        most_bytes: 4096,
        // The engine's own buffers for reading extents, many times what a page is.
        base_bytes: 256 << 20,
        ..of_bytes("disk-image", seeds, move |bytes| mount_patched(&pages, bytes))
    }
}

fn patch(page: u16, at: u16, bytes: &[u8]) -> Vec<u8> {
    [&page.to_be_bytes()[..], &at.to_be_bytes(), &[bytes.len() as u8], bytes].concat()
}

fn new_disk() -> SharedSimDisk {
    Rc::new(RefCell::new(SimDisk::new(DISK_BYTES, &Streams::new(1))))
}

/// Turns the loop until `future` is done.
fn drive<T>(engine: &mut SimulatedDisk, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    for _ in 0..MOST_TURNS {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return value;
        }
        engine.turn();
    }
    panic!("an operation does not end");
}

fn mounted(disk: &SharedSimDisk) -> Result<SimulatedDisk, String> {
    let mut engine = SimulatedDisk::begin_mount(disk, CELL, SimRng::from_seed(1)).map_err(|error| error.to_string())?;
    for _ in 0..MOST_TURNS {
        if engine.is_mounted() {
            return Ok(engine);
        }
        engine.turn();
    }
    panic!("the mount does not end");
}

/// The pages of a disk with open, fenced and sealed extents and keys, in order, with their places.
fn pages() -> Vec<(u64, Vec<u8>)> {
    let disk = new_disk();
    simulated::format(&disk, CELL, SLOT_BYTES, &mut Streams::new(1).stream("format"));
    let mut engine = mounted(&disk).unwrap();
    let handle = engine.handle().clone();
    let filled = drive(&mut engine, async move { fill(&handle).await });
    filled.unwrap();
    let disk = disk.borrow();
    let page = |at: u64| (at, disk.peek(at, PAGE));
    (0..DISK_BYTES).step_by(PAGE).map(page).filter(|(_, bytes)| bytes.iter().any(|byte| *byte != 0)).collect()
}

async fn fill(disk: &Disk) -> Result<(), EngineError> {
    for n in 1..=4 {
        let volume = VolumeId([n; 16]);
        disk.create_extent(volume, EPOCH).await?;
        let mut tail = 0;
        for payload in [16, 5000, 300] {
            let batch = sample_batch(volume, tail, &[payload, 16]);
            tail = disk.append(volume, EPOCH, tail, AlignedBuf::copy_of(&batch)).await?;
        }
        if n >= 2 {
            disk.fence(volume, WriteEpoch(2), 1).await?;
        }
        if n >= 3 {
            disk.seal(volume, WriteEpoch(2), tail, 1).await?;
        }
    }
    disk.write_key_area(vec![7; 200]).await
}

fn mount_patched(pages: &[(u64, Vec<u8>)], mut patches: &[u8]) -> Outcome {
    let mut pages = pages.to_vec();
    let total = pages.len();
    while let [a, b, c, d, len, rest @ ..] = patches {
        let (page, at) = (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]) as usize % PAGE);
        let (bytes, rest) = rest.split_at(rest.len().min(usize::from(*len)));
        let bytes = &bytes[..bytes.len().min(PAGE - at)];
        let page = &mut pages[usize::from(page) % total].1;
        let had_checksum = crc32fast::hash(&page[..PAGE - 4]).to_le_bytes() == page[PAGE - 4..];
        page[at..at + bytes.len()].copy_from_slice(bytes);
        // The top bit of the length leaves the checksum wrong.
        if had_checksum && *len < 128 {
            let crc = crc32fast::hash(&page[..PAGE - 4]);
            page[PAGE - 4..].copy_from_slice(&crc.to_le_bytes());
        }
        patches = rest;
    }
    let disk = new_disk();
    for (at, page) in &pages {
        disk.borrow_mut().write_durable(*at, page);
    }
    let mut engine = mounted(&disk)?;
    let handle = engine.handle().clone();
    drive(&mut engine, async move { use_all(&handle).await })
}

/// Reads whatever can be read. Each may fail; all reasons together are the answer.
async fn use_all(disk: &Disk) -> Outcome {
    let mut reasons = Vec::new();
    let mut note = |what: &str, result: Option<EngineError>| {
        reasons.extend(result.map(|error| format!("{what}: {error}")));
    };
    let extents = disk.extents().await.map_err(|error| error.to_string())?;
    for extent in extents {
        note("read", disk.read(extent.volume, 0, 64 << 10).await.err());
        note("end", disk.read(extent.volume, extent.length.saturating_sub(4096), 4096).await.err());
        match disk.records(extent.volume).await {
            Ok(rows) => {
                for row in rows.into_iter().take(16) {
                    note("record", disk.read_record(extent.volume, row.offset, row.length).await.err());
                }
            }
            Err(error) => note("records", Some(error)),
        }
        note("fence", disk.fence(extent.volume, WriteEpoch(9), 9).await.err());
        note("seal", disk.seal(extent.volume, WriteEpoch(9), extent.length, 9).await.err());
    }
    note("keys", disk.read_key_area().await.err());
    note("create", disk.create_extent(VolumeId([0xee; 16]), EPOCH).await.err());
    for _ in 0..64 {
        match disk.scrub_step(1 << 20).await {
            Ok(step) if step.finished_round => break,
            Ok(_) => {}
            Err(error) => {
                note("scrub", Some(error));
                break;
            }
        }
    }
    if reasons.is_empty() { Ok(()) } else { Err(reasons.join("; ")) }
}
