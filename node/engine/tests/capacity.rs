//! What a node of a hundred disks of 20 TB needs: bytes read by a mount, and memory. Both are counted, so that they do
//! not depend on the machine; times are printed.
#![allow(clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use holdfast_libs_sim::disk::SimDisk;
use holdfast_libs_sim::streams::{SimRng, Streams};
use holdfast_libs_types::CellId;
use holdfast_node_engine::simulated::{self, SharedSimDisk, SimulatedDisk};

const CELL: CellId = CellId([0xce; 16]);
const DISK_BYTES: u64 = 20_000_000_000_000;
const SLOT_BYTES: u64 = 1 << 30;
const SLOTS: u32 = 18_626;
const SEALED: u32 = SLOTS / 10 * 9;
const MIB: usize = 1 << 20;

/// Counts what is allocated.
struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn count(bytes: usize) {
    let now = ALLOCATED.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK.fetch_max(now, Ordering::Relaxed);
}

// SAFETY: hands everything on to the system's allocator, unchanged.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One at a time: what the other allocates would be counted too.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn big_disk(n: u8) -> SharedSimDisk {
    let mut disk = SimDisk::new(DISK_BYTES, &Streams::new(u64::from(n)));
    disk.set_source(simulated::filled(DISK_BYTES, CELL, SLOT_BYTES, [n; 16], SEALED));
    Rc::new(RefCell::new(disk))
}

fn mount(disk: &SharedSimDisk) -> SimulatedDisk {
    let mut engine = SimulatedDisk::begin_mount(disk, CELL, SimRng::from_seed(1)).unwrap();
    while !engine.is_mounted() {
        engine.turn();
    }
    engine
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

#[test]
fn a_disk_of_20_tb_that_is_90_percent_full_mounts_by_reading_under_16_mib() {
    let _alone = alone();
    let disk = big_disk(1);
    let started = Instant::now();
    let engine = mount(&disk);
    let status = engine.handle().status();
    println!(
        "mounted {} slots, {} free, by reading {} bytes in {} reads and {:?}",
        status.slots,
        status.free_slots,
        status.mount_read_bytes,
        status.counters.reads,
        started.elapsed()
    );
    assert_eq!((status.slots, status.free_slots, status.rebuilt), (SLOTS, SLOTS - SEALED, false));
    assert!(status.mount_read_bytes < 16 << 20, "{}", status.mount_read_bytes);
    assert!(status.mount_read_bytes >= status.counters.read_bytes);
    assert!(status.counters.reads < 100, "in sequence: {} reads", status.counters.reads);
}

#[test]
fn a_hundred_disks_of_20_tb_take_less_than_512_mib() {
    let _alone = alone();
    let disks: Vec<SharedSimDisk> = (0..100).map(big_disk).collect();
    let before = ALLOCATED.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let started = Instant::now();
    let engines: Vec<SimulatedDisk> = disks.iter().map(mount).collect();
    let took = started.elapsed();
    let held = ALLOCATED.load(Ordering::Relaxed) - before;
    let peak = PEAK.load(Ordering::Relaxed) - before;
    println!(
        "{} disks mounted in {took:?}: {} MiB held, {} MiB at most, {} MiB resident",
        engines.len(),
        held / MIB,
        peak / MIB,
        resident_bytes() / MIB
    );
    assert!(engines.iter().all(|engine| engine.handle().status().free_slots == SLOTS - SEALED));
    assert!(held < 512 * MIB && peak < 512 * MIB, "{held} held, {peak} at most");
    // A slot, its place in the index or among the free ones, and what a disk needs anyway.
    let slot_bytes = held / engines.len() / SLOTS as usize;
    assert!(slot_bytes <= 128, "{slot_bytes} bytes a slot");
}
