//! The engine on the crash disk of `libs/sim`: same engine, same handle, no thread. Whoever holds the
//! [`SimulatedDisk`] turns its loop by hand, one I/O completion at a time, and may stop between any two.

mod filled;

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use holdfast_libs_sim::disk::{SimAnswer, SimDisk, SimOp};
use holdfast_libs_sim::streams::SimRng;
use holdfast_libs_sim::zones::{ZoneHealth, ZoneState};
use holdfast_libs_types::{CellId, DiskId, PAGE_BYTES};

use crate::buffer::{AlignedBuf, BufferPool};
use crate::clock::{Clock, SimulatedClock};
use crate::disk::Disk;
use crate::error::OpenError;
use crate::format::fresh_superblock;
use crate::geometry::zoned::ZoneShape;
use crate::geometry::{Geometry, SLOT_HEADER_BYTES};
use crate::mailbox::{Mailbox, Wake};
use crate::raw::zones::{Condition, Zone, encode_report, report_bytes};
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
    /// Reports of zones under way: from which byte on, and bytes of the report.
    reports: HashMap<u64, (u64, usize)>,
    depth: usize,
    clock: Arc<dyn Clock>,
    wake: Wake,
}

impl SimDevice {
    /// As the kernel would write it.
    fn report(&self, offset: u64, len: usize) -> Vec<u8> {
        let disk = self.disk.borrow();
        let Some(layout) = disk.zone_layout() else { return vec![0; len] };
        let most = (0..).find(|zones| report_bytes(zones + 1) > len).unwrap_or(0);
        let from = disk.zone_report().iter().skip((offset / layout.zone_bytes) as usize);
        let zones: Vec<Zone> = from
            .take(most)
            .map(|zone| Zone {
                start: zone.start,
                len: layout.zone_bytes,
                capacity: zone.capacity,
                written: zone.write_pointer - zone.start,
                condition: condition(zone),
            })
            .collect();
        let mut bytes = encode_report(&zones);
        bytes.resize(len, 0);
        bytes
    }
}

fn condition(zone: &ZoneState) -> Condition {
    match zone.health {
        ZoneHealth::ReadOnly => Condition::ReadOnly,
        ZoneHealth::Offline => Condition::Offline,
        ZoneHealth::Good if !zone.sequential => Condition::Conventional,
        ZoneHealth::Good if zone.is_open() => Condition::Partial,
        ZoneHealth::Good if zone.write_pointer == zone.start => Condition::Empty,
        ZoneHealth::Good => Condition::Full,
    }
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
            Work::ResetZones { len } => (SimOp::ResetZones { offset, len }, None),
            Work::FinishZones { len } => (SimOp::FinishZones { offset, len }, None),
            Work::ReportZones { buffer, len } => {
                self.reports.insert(id, (offset, len));
                (SimOp::Read { offset: 0, len: 0 }, Some(buffer))
            }
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
        let report = self.reports.remove(&id).map(|(offset, len)| self.report(offset, len));
        let result = match answer {
            SimAnswer::Read(bytes) => {
                let bytes = report.unwrap_or(bytes);
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
        self.wake.clone()
    }
}

/// How a disk is laid out, plain or zoned.
fn geometry_of(disk: &SimDisk, slot_bytes: u64) -> Geometry {
    let planned = match disk.zone_layout() {
        None => Geometry::plan(disk.size(), slot_bytes),
        Some(layout) => {
            let conventional = layout.conventional;
            let shape = ZoneShape {
                zone_bytes: layout.zone_bytes,
                capacity_bytes: layout.capacity_bytes,
                conventional,
                sequential: (disk.size() / layout.zone_bytes) as u32 - conventional,
                limit: layout.max_open,
            };
            Geometry::plan_zoned(shape, slot_bytes)
        }
    };
    planned.expect("the test chooses sizes that fit")
}

/// Formats a simulated disk, zoned or not; ids come from `rng`.
///
/// # Panics
/// When the disk is too small for one slot: the test's numbers are wrong then.
pub fn format(disk: &SharedSimDisk, cell: CellId, slot_bytes: u64, rng: &mut SimRng) -> DiskId {
    let geometry = geometry_of(&disk.borrow(), slot_bytes);
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
    areas(&Geometry::plan(disk_bytes, slot_bytes).expect("the test chooses sizes that fit"))
}

/// The areas of the extent table of this disk, zoned or not.
///
/// # Panics
/// As [`format`].
pub fn table_areas_on(disk: &SharedSimDisk, slot_bytes: u64) -> TableAreas {
    areas(&geometry_of(&disk.borrow(), slot_bytes))
}

fn areas(geometry: &Geometry) -> TableAreas {
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
    mounted: Rc<RefCell<Option<Result<(), String>>>>,
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
        rng: SimRng,
    ) -> Result<Self, OpenError> {
        Self::begin_mount_awake(disk, options, clock, Arc::new(|| {}), rng)
    }

    /// As [`SimulatedDisk::begin_mount_with`]; once [`SimulatedDisk::rest`] was told that the loop may rest, `wake` is called
    /// when an operation is sent to it.
    ///
    /// # Errors
    /// As `Disk::open`.
    pub fn begin_mount_awake(
        disk: &SharedSimDisk,
        options: &OpenOptions,
        clock: Arc<dyn Clock>,
        wake: Arc<dyn Fn() + Send + Sync>,
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
        let (buffers, reports) = (HashMap::new(), HashMap::new());
        let device = SimDevice { disk: disk.clone(), buffers, reports, depth, clock, wake };
        let geometry = parts.superblock.0.geometry.clone();
        let nonces = RefCell::new(move || rng.bytes());
        let entropy = Box::new(move || (nonces.borrow_mut())());
        let mounted = Rc::new(RefCell::new(None));
        let when_mounted = mounted.clone();
        let reactor = begin_mount(device, &shared, parts.superblock, entropy, move |result| {
            when_mounted.replace(Some(result.map_err(|error| error.to_string())));
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
    /// When the simulated queue broke, which does not happen.
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

    /// How the mount ended; `None` while it goes on.
    pub fn mounted(&self) -> Option<Result<(), String>> {
        self.mounted.borrow().clone()
    }

    /// Whether the mount is done.
    ///
    /// # Panics
    /// When it failed, which it does not on a disk that was formatted and has no faults.
    pub fn is_mounted(&self) -> bool {
        match self.mounted() {
            Some(result) => result.map(|()| true).expect("a simulated disk that was formatted can be mounted"),
            None => false,
        }
    }

    /// Tells the loop that nobody turns it until [`SimulatedDisk::next_due`] or the next operation; false when there is
    /// something to do at once.
    pub fn rest(&self) -> bool {
        !self.reactor.has_work() && self.reactor.may_rest()
    }

    /// Whether nobody else holds a handle any more.
    pub fn is_let_go(&self) -> bool {
        self.handle.is_last()
    }

    /// Whether nothing runs.
    pub fn is_idle(&self) -> bool {
        self.reactor.is_idle()
    }

    /// Where byte `offset` of a slot's data stands on the disk.
    pub fn data_at(&self, slot: u32, offset: u64) -> u64 {
        self.geometry.data_run(slot, offset).at
    }

    /// Byte range on the disk of a slot's data; on a zoned disk, what stands of it in the slot's first zone.
    pub fn data_range(&self, slot: u32) -> std::ops::Range<u64> {
        let run = self.geometry.data_run(slot, 0);
        run.at..run.at + run.len.min(self.geometry.data_bytes)
    }

    /// Byte range on the disk of a slot's two header pages.
    pub fn header_range(&self, slot: u32) -> std::ops::Range<u64> {
        let start = self.geometry.header_offset(slot, 0);
        start..start + SLOT_HEADER_BYTES
    }
}

impl Drop for SimulatedDisk {
    fn drop(&mut self) {
        // Messages that were never taken hold their senders' permits, and those the mailbox itself.
        self.handle.abandon();
    }
}
