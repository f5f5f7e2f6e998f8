//! The engine on the crash disk of `libs/sim`: same engine, same handle, no thread. Whoever holds the
//! [`SimulatedDisk`] turns its loop by hand, one I/O completion at a time, and may stop between any two.

mod filled;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use holdfast_libs_sim::disk::{SimAnswer, SimDisk, SimOp};
use holdfast_libs_sim::streams::SimRng;
use holdfast_libs_types::{CellId, DiskId, PAGE_BYTES};

use crate::buffer::{AlignedBuf, BufferPool};
use crate::clock::{Clock, SimulatedClock};
use crate::disk::Disk;
use crate::error::OpenError;
use crate::format::fresh_superblock;
use crate::geometry::Geometry;
use crate::mailbox::{Mailbox, Wake};
use crate::raw::{Done, RawDisk, Wait, Work};
use crate::reactor::Reactor;
use crate::shared::{Life, Timing};
use crate::status::{IoPath, OpenOptions};
use crate::table::checkpoint::{self, FRESH_GENERATION};
use crate::thread::{Parts, accept_superblock, begin_mount, read_superblocks};

pub use filled::filled;

/// A simulated disk that outlives the engines mounted on it.
pub type SharedSimDisk = Rc<RefCell<SimDisk>>;

struct SimDevice {
    disk: SharedSimDisk,
    buffers: HashMap<u64, Option<AlignedBuf>>,
    depth: usize,
    clock: Arc<dyn Clock>,
}

impl RawDisk for SimDevice {
    fn submit(&mut self, id: u64, offset: u64, work: Work) {
        let (op, buffer) = match work {
            Work::Read { buffer, len } => (SimOp::Read { offset, len }, Some(buffer)),
            Work::Write { buffer } => (SimOp::Write { offset, bytes: buffer.to_vec(), dsync: true }, Some(buffer)),
            Work::Allocate { len } => (SimOp::Allocate { offset, len }, None),
            Work::Deallocate { len } => (SimOp::Discard { offset, len }, None),
            Work::Flush => (SimOp::Flush, None),
            Work::Identify => (SimOp::Read { offset: 0, len: 0 }, None),
        };
        self.buffers.insert(id, buffer);
        let mut disk = self.disk.borrow_mut();
        disk.set_now(self.clock.now());
        disk.submit(id, op);
    }

    fn poll(&mut self, _: Wait, done: &mut Vec<Done>) -> std::io::Result<()> {
        let completed = {
            let mut disk = self.disk.borrow_mut();
            disk.set_now(self.clock.now());
            disk.complete_one()
        };
        let Some((id, answer)) = completed else { return Ok(()) };
        let mut buffer = self.buffers.remove(&id).flatten();
        let result = match answer {
            SimAnswer::Read(bytes) => {
                if let Some(buffer) = buffer.as_mut() {
                    buffer.clear();
                    buffer.extend_from_slice(&bytes).map_err(std::io::Error::other)?;
                }
                Ok(bytes.len())
            }
            SimAnswer::Done(len) => Ok(len),
            SimAnswer::Error(code) => Err(std::io::Error::from_raw_os_error(code)),
        };
        done.push(Done { id, result, buffer });
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.buffers.len()
    }

    fn depth(&self) -> usize {
        self.depth
    }

    fn wake(&self) -> Wake {
        Arc::new(|| {})
    }
}

/// Formats a simulated disk; ids come from `rng`.
///
/// # Panics
/// When the disk is too small for one slot: the test's numbers are wrong then.
pub fn format(disk: &SharedSimDisk, cell: CellId, slot_bytes: u64, rng: &mut SimRng) -> DiskId {
    let size = disk.borrow().size();
    let geometry = Geometry::plan(size, slot_bytes).expect("the test chooses sizes that fit");
    let superblock = fresh_superblock(cell, geometry, rng.bytes(), 0, 512);
    // As a file has it, whose log must not run out of space.
    for area in [superblock.geometry.table_a, superblock.geometry.table_b, superblock.geometry.log] {
        disk.borrow_mut().write_durable(area.offset, &vec![0; area.len as usize]);
    }
    let copy = superblock.geometry.table_copy(FRESH_GENERATION).offset;
    for (at, page) in checkpoint::fresh(superblock.disk, superblock.geometry.slots) {
        disk.borrow_mut().write_durable(copy + at, &page[..]);
    }
    let page = superblock.encode();
    for area in [superblock.geometry.superblock_b, superblock.geometry.superblock_a] {
        disk.borrow_mut().write_durable(area.offset, &page[..]);
    }
    superblock.disk
}

/// Byte range of the slots of a disk of this size: each slot starts with its two header pages.
///
/// # Panics
/// As [`format`].
pub fn slot_area(disk_bytes: u64, slot_bytes: u64) -> std::ops::Range<u64> {
    let area = Geometry::plan(disk_bytes, slot_bytes).expect("the test chooses sizes that fit").slot_area;
    area.offset..area.offset + area.len
}

/// Where the extent table stands on a disk of this size: the checkpoint of generation g in copy g % 2, its log in half
/// g % 2. A new disk's generation is 1.
#[derive(Debug, Clone)]
pub struct TableAreas {
    /// Copies A and B: a header page, then pages of entries.
    pub copies: [std::ops::Range<u64>; 2],
    /// Halves of the log.
    pub halves: [std::ops::Range<u64>; 2],
}

/// The areas of the extent table.
///
/// # Panics
/// As [`format`].
pub fn table_areas(disk_bytes: u64, slot_bytes: u64) -> TableAreas {
    let geometry = Geometry::plan(disk_bytes, slot_bytes).expect("the test chooses sizes that fit");
    let range = |area: crate::geometry::Area| area.offset..area.offset + area.len;
    TableAreas {
        copies: [0, 1].map(|generation| range(geometry.table_copy(generation))),
        halves: [0, 1].map(|generation| range(geometry.log_half(generation))),
    }
}

/// An engine on a simulated disk, and its loop.
pub struct SimulatedDisk {
    handle: Disk,
    reactor: Reactor<SimDevice>,
    mounted: Rc<Cell<bool>>,
    geometry: Geometry,
}

impl SimulatedDisk {
    /// Starts to mount, with a clock that stands still; turn the loop until [`SimulatedDisk::is_mounted`].
    ///
    /// # Errors
    /// As `Disk::open`.
    pub fn begin_mount(disk: &SharedSimDisk, cell: CellId, rng: SimRng) -> Result<Self, OpenError> {
        let options = OpenOptions { max_operations: 64, max_buffer_bytes: 1 << 30, ..OpenOptions::new(cell) };
        Self::begin_mount_with(disk, &options, Arc::new(SimulatedClock::new()), rng)
    }

    /// As [`SimulatedDisk::begin_mount`], with any options and clock. `io` and `registered_bytes` mean nothing here.
    ///
    /// # Errors
    /// As `Disk::open`.
    pub fn begin_mount_with(
        disk: &SharedSimDisk,
        options: &OpenOptions,
        clock: Arc<dyn Clock>,
        mut rng: SimRng,
    ) -> Result<Self, OpenError> {
        let read = |offset| {
            let mut page = AlignedBuf::with_capacity(PAGE_BYTES);
            page.extend_from_slice(&disk.borrow().peek(offset, PAGE_BYTES)).map_err(std::io::Error::other)?;
            Ok(page)
        };
        let size = disk.borrow().size();
        let superblock = accept_superblock(read_superblocks(read), Path::new("simulated"), size, options.cell)?;
        let parts = Parts {
            path: PathBuf::from("simulated"),
            pool: BufferPool::new(0, options.max_buffer_bytes),
            mailbox: Mailbox::new(options.max_operations),
            o_direct: true,
            timing: Timing::new(clock.clone(), options),
            superblock,
        };
        let shared = parts.shared(IoPath::Simulated);
        let depth = options.queue_depth as usize;
        let device = SimDevice { disk: disk.clone(), buffers: HashMap::new(), depth, clock };
        let geometry = parts.superblock.0.geometry.clone();
        let nonces = RefCell::new(move || rng.bytes());
        let entropy = Box::new(move || (nonces.borrow_mut())());
        let mounted = Rc::new(Cell::new(false));
        let when_mounted = mounted.clone();
        let reactor = begin_mount(device, &shared, parts.superblock, entropy, move |result| {
            result.expect("a simulated disk that was formatted can be mounted");
            when_mounted.set(true);
        });
        let life = Life { mailbox: parts.mailbox, stopped: None };
        Ok(Self { handle: Disk::new(shared, life), reactor, mounted, geometry })
    }

    /// The handle, as servers have it.
    pub fn handle(&self) -> &Disk {
        &self.handle
    }

    /// One turn of the loop, with at most one I/O completion.
    ///
    /// # Panics
    /// When the mount failed, or the simulated queue broke: neither happens without a fault in the engine.
    pub fn turn(&mut self) {
        self.reactor.turn(false).expect("the simulated queue does not break");
    }

    /// The next time, by the disk's clock, at which a turn of the loop has something to do though nobody asks it;
    /// that may be now.
    pub fn next_due(&self) -> Option<Duration> {
        if self.reactor.has_work() {
            return Some(self.reactor.now());
        }
        let completes = self.reactor.device().disk.borrow().next_due();
        [self.reactor.next_due(), completes].into_iter().flatten().min()
    }

    /// Whether the mount is done.
    pub fn is_mounted(&self) -> bool {
        self.mounted.get()
    }

    /// Whether nothing runs.
    pub fn is_idle(&self) -> bool {
        self.reactor.is_idle()
    }

    /// Byte range on the disk of a slot's data.
    pub fn data_range(&self, slot: u32) -> std::ops::Range<u64> {
        let start = self.geometry.data_offset(slot);
        start..start + self.geometry.data_bytes
    }
}

impl Drop for SimulatedDisk {
    fn drop(&mut self) {
        // Messages that were never taken hold their senders' permits, and those the mailbox itself.
        self.handle.abandon();
    }
}
