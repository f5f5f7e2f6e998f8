//! The engine proper, inside of the disk's thread: what each operation may do, and when.
//!
//! Invariants:
//! - Memory follows the disk: a slot's state in memory changes only after it is durable in the table (`table.rs`).
//! - Every change of an extent holds the extent's lock; reads hold none and stay below `readable_end`.
//! - The tail in memory rises only after the batch below it is durable.
//! - After a failed write the extent takes no more appends, and its tail stays where it was.
//! - A slot becomes free only when both of its header pages say so; it becomes used, for the caller, only when both
//!   say so.

mod append;
mod copy;
mod footer;
mod identity;
pub(crate) mod keys;
mod mount;
mod read;
mod rebuild;
mod scan;
mod scrub;
mod seal;
mod slot;
mod slots;
mod space;
mod table;
mod trash;
mod watcher;
mod zones;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use holdfast_libs_types::{VolumeId, WriteEpoch};

pub(crate) use append::AppendBatch;
use scrub::Scrub;
use slot::{Live, Slot};
use slots::Slots;
use table::Table;
use watcher::Warrant;

use crate::buffer::AlignedBuf;
use crate::error::{EngineError, ExtentState};
use crate::geometry::Geometry;
use crate::io_error::{Action, Direction, Failure, Place, Verdict, judge_io_error};
use crate::raw::Work;
use crate::reactor::{Io, TaskLock, TaskLockGuard};
use crate::shared::Shared;
use crate::slot_header::{SlotHeader, SlotState};
use crate::status::{ExtentInfo, SlotCounts};
use crate::superblock::Superblock;

/// Source of random ids and nonces; seeded in simulation.
pub(crate) type Entropy = Box<dyn Fn() -> [u8; 16]>;

/// A disk's engine. See the module's header.
pub(crate) struct Engine {
    shared: Arc<Shared>,
    io: Rc<Io>,
    slots: RefCell<Slots>,
    table: Table,
    free: RefCell<BTreeSet<u32>>,
    /// Slots that hold a partly written disk zone, or may come to.
    open_zones: RefCell<BTreeSet<u32>>,
    /// Slots that cannot be written, or emptied: not offered when they are free.
    out_of_use: RefCell<BTreeSet<u32>>,
    superblock: RefCell<Superblock>,
    /// The copy of the superblock (0 or 1) that is known to be valid and newest.
    superblock_home: Cell<usize>,
    superblock_lock: Rc<TaskLock>,
    keys_lock: Rc<TaskLock>,
    /// The lock of every extent that has none of its own, which are the sealed ones: held for moments only.
    sealed_lock: Rc<TaskLock>,
    /// One long read (seal, verification of a copy) at a time, so that their memory and their load are bounded.
    scan_lock: Rc<TaskLock>,
    scrub: RefCell<Scrub>,
    scrub_lock: Rc<TaskLock>,
    /// What may be erased, slot by slot, while it is.
    warrants: RefCell<HashMap<u32, Warrant>>,
    /// The highest leader term that this disk was ever told.
    highest_term: Cell<u64>,
    entropy: Entropy,
}

impl Engine {
    pub(crate) fn new(
        shared: Arc<Shared>,
        io: Rc<Io>,
        (superblock, home): (Superblock, usize),
        entropy: Entropy,
    ) -> Rc<Self> {
        Rc::new(Self {
            superblock_lock: TaskLock::new(&io),
            keys_lock: TaskLock::new(&io),
            sealed_lock: TaskLock::new(&io),
            table: Table::new(&io),
            scan_lock: TaskLock::new(&io),
            scrub: RefCell::new(Scrub::default()),
            scrub_lock: TaskLock::new(&io),
            shared,
            io,
            slots: RefCell::new(Slots::new()),
            free: RefCell::new(BTreeSet::new()),
            open_zones: RefCell::new(BTreeSet::new()),
            out_of_use: RefCell::new(BTreeSet::new()),
            superblock: RefCell::new(superblock),
            warrants: RefCell::new(HashMap::new()),
            highest_term: Cell::new(0),
            superblock_home: Cell::new(home),
            entropy,
        })
    }

    pub(crate) fn io(&self) -> &Rc<Io> {
        &self.io
    }

    fn geometry(&self) -> &Geometry {
        &self.shared.geometry
    }

    fn find(&self, volume: VolumeId) -> Result<u32, EngineError> {
        let found = self.slots.borrow().find(volume);
        found.ok_or(EngineError::UnknownVolume { disk: self.shared.id, volume })
    }

    /// Looks at a slot, and tells the status at once what became of it. The closure must not start anything that awaits.
    fn with_slot<T>(&self, slot: u32, look: impl FnOnce(&mut Slot) -> T) -> T {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.get_mut(slot);
        let before = slot.shown();
        let seen = look(slot);
        let after = slot.shown();
        if before != after {
            self.shared.recount_slot(before, after);
        }
        seen
    }

    /// Locks what there is of `volume` and answers its slot.
    async fn lock_extent(&self, volume: VolumeId) -> Result<(u32, TaskLockGuard), EngineError> {
        self.lock_found(|| self.find(volume)).await
    }

    /// Locks the extent that `find` finds, and answers its slot. What an earlier change left to be written is written first.
    async fn lock_found(
        &self,
        find: impl Fn() -> Result<u32, EngineError>,
    ) -> Result<(u32, TaskLockGuard), EngineError> {
        let mut lock = self.lock_of(find()?);
        loop {
            let guard = lock.lock().await;
            // It may have been sealed, or freed and created anew, while this task waited.
            let slot = find()?;
            let now = self.lock_of(slot);
            if Rc::ptr_eq(&now, &lock) {
                self.settle_slot(slot).await?;
                // It may have been freed by that.
                if find()? == slot {
                    return Ok((slot, guard));
                }
            }
            lock = self.lock_of(find()?);
        }
    }

    fn lock_of(&self, slot: u32) -> Rc<TaskLock> {
        let own = self.with_slot(slot, |slot| slot.live.as_ref().map(|live| live.lock.clone()));
        own.unwrap_or_else(|| self.sealed_lock.clone())
    }

    /// Creates an open, empty extent.
    pub(crate) async fn create_extent(&self, volume: VolumeId, epoch: WriteEpoch) -> Result<(), EngineError> {
        // Waits for a creation under way, so that the repeat, too, is answered only when it is durable.
        let there = match self.lock_extent(volume).await {
            Err(EngineError::UnknownVolume { .. }) => None,
            locked => Some(locked?),
        };
        if let Some((slot, _guard)) = there {
            let info = self.with_slot(slot, |at| at.info(slot));
            let untouched = info.state == ExtentState::Open && info.epoch == epoch && info.length == 0;
            return if untouched && info.takes_appends {
                Ok(())
            } else {
                Err(EngineError::AlreadyExists { volume, state: info.state })
            };
        }
        let header = SlotHeader { state: SlotState::Open, volume, epoch, append_epoch: epoch, ..SlotHeader::blank() };
        self.occupy(header).await
    }

    /// Takes a free slot and its space, and makes it `header`'s; durable in both header pages when it returns.
    async fn occupy(&self, header: SlotHeader) -> Result<(), EngineError> {
        self.shared.writable()?;
        let slot = self.free.borrow_mut().pop_first().ok_or_else(|| EngineError::NoSpace {
            disk: self.shared.id,
            detail: format!("all {} slots are in use", self.geometry().slots),
        })?;
        let volume = header.volume;
        let live = Live::empty(&self.io);
        let lock = live.lock.clone();
        // Nobody else knows the lock yet, so this does not wait.
        let _guard = lock.lock().await;
        let slot_generation = self.with_slot(slot, |at| {
            at.live = Some(Box::new(live));
            at.volume = volume;
            at.slot_generation + 1
        });
        self.slots.borrow_mut().index(slot);
        self.count_free();
        if let Err(error) = self.take_space(slot).await {
            self.release(slot);
            return Err(error);
        }
        let taken = self.commit_slot(slot, SlotHeader { slot_generation, ..header }).await;
        let undone = taken.is_err() && self.with_slot(slot, |at| at.state == SlotState::Free);
        if undone && self.shared.writable().is_ok() {
            self.forget_open(slot);
            self.release(slot);
        }
        taken
    }

    /// Makes the slot free in memory.
    fn release(&self, slot: u32) {
        self.slots.borrow_mut().unindex(slot);
        self.with_slot(slot, |at| (at.live, at.volume) = (None, VolumeId([0; 16])));
        self.offer(slot);
    }

    /// A free slot can be taken.
    fn offer(&self, slot: u32) {
        if !self.out_of_use.borrow().contains(&slot) {
            self.free.borrow_mut().insert(slot);
        }
        self.count_free();
    }

    /// Tells the status how many slots are in which state; [`Engine::with_slot`] keeps it right from then on.
    fn count_slots(&self) {
        self.shared.count_slots(self.slot_counts());
    }

    fn slot_counts(&self) -> SlotCounts {
        let mut counts = SlotCounts::default();
        self.slots.borrow().list().iter().for_each(|slot| *slot.shown().place(&mut counts) += 1);
        counts
    }

    fn count_free(&self) {
        self.shared.free_slots.store(self.free.borrow().len() as u32, Ordering::Relaxed);
    }

    /// A buffer with `bytes`, from the pool if it has one: small writes must not fail for lack of it.
    fn page_buffer(&self, bytes: &[u8]) -> AlignedBuf {
        let mut buffer = self.shared.pool.take(bytes.len()).unwrap_or_else(|| AlignedBuf::with_capacity(bytes.len()));
        match buffer.extend_from_slice(bytes) {
            Ok(()) => buffer,
            Err(_) => AlignedBuf::copy_of(bytes),
        }
    }

    /// Writes all of `buffer`, durably, trying again what may pass. After an error the disk may hold any part of it.
    async fn write(&self, what: &'static str, offset: u64, mut buffer: AlignedBuf) -> Result<AlignedBuf, EngineError> {
        for attempt in 1.. {
            let len = buffer.len();
            let (result, back) = self.io.start(offset, Work::Write { buffer }).await;
            let error = match result {
                Ok(put) if put == len => {
                    self.shared.counters.wrote(len);
                    return back.ok_or_else(|| self.lost_buffer());
                }
                Ok(put) => std::io::Error::new(std::io::ErrorKind::WriteZero, format!("wrote {put} of {len} bytes")),
                Err(error) => error,
            };
            let place = if self.geometry().is_in_areas(offset) { Place::Area } else { Place::Slot };
            match back {
                Some(back) if self.judge_write(&error, place, attempt).action == Action::Retry => buffer = back,
                _ => return Err(self.write_failed_at(place, error, what, attempt)),
            }
        }
        Err(self.lost_buffer())
    }

    /// Counts what failed for good and was no write to an area.
    fn write_failed(&self, error: std::io::Error, what: &'static str, attempt: u32) -> EngineError {
        self.write_failed_at(Place::Slot, error, what, attempt)
    }

    /// Counts a write that failed for good, draws the consequences for the disk, and names it.
    fn write_failed_at(&self, place: Place, error: std::io::Error, what: &'static str, attempt: u32) -> EngineError {
        let verdict = self.judge_write(&error, place, attempt);
        self.shared.counters.write_error(verdict.kind, place);
        self.consequences(verdict, &error, what);
        let Verdict { action, reason, .. } = verdict;
        tracing::warn!(disk = %self.shared.id, path = %self.shared.path.display(), %error, what, ?action, reason, "write failed");
        EngineError::Io { disk: self.shared.id, what, source: error }
    }

    fn judge_write(&self, error: &std::io::Error, place: Place, attempt: u32) -> Verdict {
        let (earlier_writes, earlier_area_writes) = self.shared.counters.failed_writes();
        let direction = Direction::Write;
        judge_io_error(error, Failure { direction, place, attempt, earlier_writes, earlier_area_writes })
    }

    fn consequences(&self, verdict: Verdict, error: &std::io::Error, what: &'static str) {
        let reason = || format!("{what}: {error}: {}", verdict.reason);
        match verdict.action {
            Action::Retry | Action::Extent => {}
            Action::DiskReadOnly => self.shared.set_read_only(&reason()),
            Action::DiskFailed => self.shared.set_failed(&reason()),
        }
    }

    /// Reads `len` bytes at a page of the disk into `buffer`, trying again what may pass.
    async fn read_pages(&self, offset: u64, len: usize, mut buffer: AlignedBuf) -> std::io::Result<AlignedBuf> {
        for attempt in 1.. {
            buffer.clear();
            let (result, back) = self.io.start(offset, Work::Read { buffer, len }).await;
            let error = match result {
                Ok(got) if got == len => {
                    self.shared.counters.read(len);
                    return back.ok_or_else(|| std::io::Error::other("the buffer was lost"));
                }
                Ok(got) => std::io::Error::new(std::io::ErrorKind::UnexpectedEof, format!("read {got} of {len} bytes")),
                Err(error) => error,
            };
            let (direction, place) = (Direction::Read, Place::Slot);
            let failure = Failure { direction, place, attempt, earlier_writes: 0, earlier_area_writes: 0 };
            let verdict = judge_io_error(&error, failure);
            match back {
                Some(back) if verdict.action == Action::Retry => buffer = back,
                _ => {
                    self.shared.counters.read_error(verdict.kind);
                    self.consequences(verdict, &error, "reading");
                    return Err(error);
                }
            }
        }
        Err(std::io::Error::other("the buffer was lost"))
    }

    fn lost_buffer(&self) -> EngineError {
        EngineError::Io {
            disk: self.shared.id,
            what: "getting a buffer back",
            source: std::io::Error::other("the I/O layer kept it"),
        }
    }

    /// Bytes that do not validate.
    fn damaged(&self, slot: u32, volume: VolumeId, offset: u64, detail: impl Into<String>) -> EngineError {
        self.shared.counters.damaged();
        EngineError::Damaged { disk: self.shared.id, slot, volume, offset, detail: detail.into() }
    }

    /// Bytes that the disk does not give; the error was counted where it came from.
    fn unreadable(&self, slot: u32, volume: VolumeId, offset: u64, error: impl std::fmt::Display) -> EngineError {
        let detail = format!("cannot be read: {error}");
        EngineError::Damaged { disk: self.shared.id, slot, volume, offset, detail }
    }

    /// Every extent, by slot.
    pub(crate) fn extents(&self) -> Vec<ExtentInfo> {
        debug_assert_eq!(self.shared.slot_counts(), self.slot_counts(), "a slot changed and the status was not told");
        let slots = self.slots.borrow();
        let used = slots.list().iter().enumerate().filter(|(_, slot)| slot.state != SlotState::Free && !slot.is_lost());
        used.map(|(n, slot)| slot.info(n as u32)).collect()
    }

    /// What there is of one volume, by slot.
    pub(crate) fn extents_of(&self, volume: VolumeId) -> Vec<ExtentInfo> {
        let slots = self.slots.borrow();
        let list = slots.list();
        let used = slots.of(volume).filter(|slot| list[*slot as usize].state != SlotState::Free);
        let mut all: Vec<ExtentInfo> = used.map(|slot| list[slot as usize].info(slot)).collect();
        all.sort_unstable_by_key(|extent| extent.slot);
        all
    }

    /// What stands of one volume, else a copy under way, else what is in the trash.
    pub(crate) fn extent(&self, volume: VolumeId) -> Result<ExtentInfo, EngineError> {
        let slot = self.find(volume)?;
        let info = self.with_slot(slot, |at| (at.state != SlotState::Free).then(|| at.info(slot)));
        // One that is being created is not there yet.
        info.ok_or(EngineError::UnknownVolume { disk: self.shared.id, volume })
    }
}
