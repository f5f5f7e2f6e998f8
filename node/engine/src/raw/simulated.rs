//! The engine on the crash disk of `libs/sim`: same engine, same handle, no thread. Whoever holds the
//! [`SimulatedDisk`] turns its loop by hand, one I/O completion at a time, and may stop between any two.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
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
use crate::thread::{Parts, accept_superblock, begin_mount, read_superblocks};

/// A simulated disk that outlives the engines mounted on it.
pub type SharedSimDisk = Rc<RefCell<SimDisk>>;

/// An I/O whose time is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacedIo {
    /// When it was handed to the disk.
    pub at: Duration,
    /// Where on the disk, bytes.
    pub offset: u64,
    /// Bytes read or written; 0 for anything else.
    pub len: usize,
    /// Whether it is a read.
    pub is_read: bool,
}

/// Tells when an I/O completes, by the disk's clock.
pub type Pace = Box<dyn FnMut(PacedIo) -> Duration>;

/// Makes I/O take simulated time: what is handed over waits here and reaches the [`SimDisk`] when its time has come.
struct Paced {
    clock: Arc<dyn Clock>,
    pace: Pace,
    waiting: BTreeMap<(Duration, u64), SimOp>,
}

struct SimDevice {
    disk: SharedSimDisk,
    buffers: HashMap<u64, Option<AlignedBuf>>,
    depth: usize,
    paced: Option<Paced>,
}

impl SimDevice {
    /// Hands over, of what waits, the first whose time has come.
    fn release_one(&mut self) {
        if let Some(paced) = &mut self.paced
            && let Some(first) = paced.waiting.first_entry()
            && first.key().0 <= paced.clock.now()
        {
            let ((_, id), op) = first.remove_entry();
            self.disk.borrow_mut().submit(id, op);
        }
    }

    fn next_due(&self) -> Option<Duration> {
        self.paced.as_ref()?.waiting.first_key_value().map(|((at, _), _)| *at)
    }
}

impl RawDisk for SimDevice {
    fn submit(&mut self, id: u64, offset: u64, work: Work) {
        let (len, is_read) = match &work {
            Work::Read { len, .. } => (*len, true),
            Work::Write { buffer } => (buffer.len(), false),
            _ => (0, false),
        };
        let (op, buffer) = match work {
            Work::Read { buffer, len } => (SimOp::Read { offset, len }, Some(buffer)),
            Work::Write { buffer } => (SimOp::Write { offset, bytes: buffer.to_vec(), dsync: true }, Some(buffer)),
            Work::Allocate { len } => (SimOp::Allocate { offset, len }, None),
            Work::Flush => (SimOp::Flush, None),
            Work::Identify => (SimOp::Read { offset: 0, len: 0 }, None),
        };
        self.buffers.insert(id, buffer);
        if let Some(paced) = &mut self.paced {
            let at = paced.clock.now();
            let ends = (paced.pace)(PacedIo { at, offset, len, is_read });
            paced.waiting.insert((ends, id), op);
        } else {
            self.disk.borrow_mut().submit(id, op);
        }
    }

    fn poll(&mut self, _: Wait, done: &mut Vec<Done>) -> std::io::Result<()> {
        self.release_one();
        let Some((id, answer)) = self.disk.borrow_mut().complete_one() else { return Ok(()) };
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
            timing: Timing::new(clock, options),
            superblock,
        };
        let shared = parts.shared(IoPath::Simulated);
        let depth = options.queue_depth as usize;
        let device = SimDevice { disk: disk.clone(), buffers: HashMap::new(), depth, paced: None };
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

    /// From now on I/O takes time: each completes when `pace` says. Set it while nothing is in flight.
    pub fn set_pace(&mut self, pace: Pace) {
        let clock = self.handle.clock();
        self.reactor.device_mut().paced = Some(Paced { clock, pace, waiting: BTreeMap::new() });
    }

    /// The next time, by the disk's clock, at which a turn of the loop has something to do though nobody asks it;
    /// that may be now.
    pub fn next_due(&self) -> Option<Duration> {
        let device = self.reactor.device();
        if self.reactor.has_work() || device.disk.borrow().in_flight() > 0 {
            return Some(self.handle.clock().now());
        }
        [self.reactor.next_due(), device.next_due()].into_iter().flatten().min()
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
