//! Writing the extent table: the one door through which a slot changes, the log with group commit, and checkpoints.
//! What is written, and how it is read again, is in `crate::table`.
//!
//! Invariants:
//! - A change goes: log block durable, then header page(s) durable, then memory, then the answer. It is answered only
//!   when both are durable; so a slot that became used or free says so on both header pages.
//! - A header is written only after its log entry is durable, so the table is never behind a header.
//! - Log blocks go one after the other, each sent only when the one before is durable. What waits goes into one block.
//! - A log write that failed leaves its outcome unknown: a checkpoint without the change is written before anything
//!   else changes. If that fails too, the disk becomes read-only.
//! - A header write that failed, its log entry durable: the change is decided, in memory and table. The caller gets
//!   the error, the slot is "behind", and whatever is asked of it next writes the header first. Checkpoints keep that.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use holdfast_libs_types::PAGE_BYTES;

use super::Engine;
use crate::buffer::AlignedBuf;
use crate::error::EngineError;
use crate::planted::planted;
use crate::reactor::{Io, TaskLock};
use crate::slot_header::{SlotHeader, SlotState};
use crate::table::checkpoint::{CheckpointHeader, Pages};
use crate::table::entry::Entry;
use crate::table::log::{LogBlock, MAX_BLOCK_ENTRIES};
use crate::table::replay::Place;
use crate::table::{Facts, TableFault};

const PAGE: u64 = PAGE_BYTES as u64;

/// A log with this many entries ends: it bounds the header pages that a mount looks at.
const MAX_LOG_ENTRIES: u64 = 512;

/// Pages of a checkpoint written (or read) at once: the table is never in memory a second time.
pub(super) const CHUNK_PAGES: usize = 64;

/// Uptime that a crash may cost, seconds: it only keeps trash longer.
const REMEMBER_S: u64 = 300;

/// Attempts at a checkpoint before the disk is read-only.
const CHECKPOINT_ATTEMPTS: u32 = 2;

/// Where the log is, and what waits for it.
pub(super) struct Table {
    /// Held while a block or a checkpoint is written.
    pub(super) lock: Rc<TaskLock>,
    waiting: RefCell<VecDeque<Waiting>>,
    pub(super) place: Cell<Place>,
    /// A checkpoint must be written before the next block.
    pub(super) forced: Cell<bool>,
    /// Changes that are durable in the log, while their headers are being written.
    decided: RefCell<HashMap<u32, Entry>>,
    /// The newest that are durable.
    pub(super) facts: Cell<Facts>,
}

type Outcome = Rc<RefCell<Option<Result<(), EngineError>>>>;

struct Waiting {
    change: Option<(u32, Entry)>,
    outcome: Outcome,
}

impl Table {
    pub(super) fn new(io: &Rc<Io>) -> Self {
        Self {
            lock: TaskLock::new(io),
            waiting: RefCell::new(VecDeque::new()),
            place: Cell::new(Place { generation: 0, sequence: 1, blocks: 0, entries: 0 }),
            forced: Cell::new(true),
            decided: RefCell::new(HashMap::new()),
            facts: Cell::new(Facts::default()),
        }
    }
}

impl Engine {
    /// The one door through which a slot changes: `header` is durable when this returns, and memory shows it. The
    /// caller holds the extent's lock; the generation is filled in here. A slot that becomes free leaves the index.
    ///
    /// After an error the change is either not done, or decided and behind; the slot's state in memory tells. Either
    /// way the extent takes no more appends.
    pub(super) async fn commit_slot(&self, slot: u32, header: SlotHeader) -> Result<(), EngineError> {
        self.settle_slot(slot).await?;
        let (before, entry) = self.with_slot(slot, |at| {
            let header = SlotHeader { generation: at.generation + 1, ..header };
            (at.state, Entry { header, page: 1 - at.page, behind: false, lost: false })
        });
        let frees = entry.header.state == SlotState::Free;
        // Of what goes into the trash no page may be left that says that it stands: a copy of it may stand instead by then.
        let both = frees != (before == SlotState::Free) || entry.header.state == SlotState::Trashed;
        let logged = self.log_change(Some((slot, entry.clone()))).await;
        let written = match logged {
            Ok(()) => self.write_headers(slot, &entry, both).await,
            // Refused before anything was written.
            Err(error @ EngineError::EraseRefused { .. }) => return Err(error),
            Err(error) => {
                self.refuse_appends(slot, &error);
                return Err(error);
            }
        };
        self.with_slot(slot, |at| {
            let volume = at.volume;
            at.set_header(&entry.header, entry.page, &self.io);
            // The index finds a slot by its volume for as long as it is in there.
            at.volume = volume;
            at.set_behind(written.is_err());
        });
        self.table.decided.borrow_mut().remove(&slot);
        if let Err(error) = written {
            self.refuse_appends(slot, &error);
            return Err(error);
        }
        if frees {
            self.release(slot);
        }
        Ok(())
    }

    fn refuse_appends(&self, slot: u32, error: &EngineError) {
        self.with_slot(slot, |slot| {
            if let Some(live) = slot.live.as_mut() {
                live.no_appends = Some(format!("its state could not be written: {error}"));
            }
        });
    }

    /// Writes the headers of a slot whose change was decided and did not get into both of them.
    pub(super) async fn settle_slot(&self, slot: u32) -> Result<(), EngineError> {
        if !self.with_slot(slot, |slot| slot.is_behind()) {
            return Ok(());
        }
        self.shared.writable()?;
        let entry = self.entry_of(slot);
        self.write_headers(slot, &entry, true).await?;
        let state = self.with_slot(slot, |at| {
            at.set_behind(false);
            at.state
        });
        if state == SlotState::Free {
            self.release(slot);
        }
        Ok(())
    }

    /// Writes the home page, and then, with `both`, the other.
    async fn write_headers(&self, slot: u32, entry: &Entry, both: bool) -> Result<(), EngineError> {
        self.write_header(slot, entry, entry.page).await?;
        if both { self.write_header(slot, entry, 1 - entry.page).await } else { Ok(()) }
    }

    pub(super) async fn write_header(&self, slot: u32, entry: &Entry, page: u8) -> Result<(), EngineError> {
        self.watch_change(slot, &entry.header)?;
        let bytes = entry.header.encode(self.shared.id, slot);
        let buffer = self.page_buffer(&bytes[..]);
        self.write("writing a slot header", self.geometry().header_offset(slot, page), buffer).await?;
        Ok(())
    }

    /// What the table says of a slot.
    pub(super) fn entry_of(&self, slot: u32) -> Entry {
        match self.table.decided.borrow().get(&slot) {
            Some(decided) => Entry { behind: true, ..decided.clone() },
            None => self.with_slot(slot, |at| at.entry()),
        }
    }

    /// Makes durable how long the disk was mounted and where the scrub is, with whatever else waits for the log: every
    /// [`REMEMBER_S`], and `now`.
    pub(super) async fn remember_facts(&self, now: bool) -> Result<(), EngineError> {
        let durable = self.table.facts.get();
        if !now && self.shared.uptime_s().saturating_sub(durable.uptime_s) < REMEMBER_S {
            return Ok(());
        }
        self.log_change(None).await
    }

    /// What goes along with the next block or checkpoint.
    fn current_facts(&self) -> Facts {
        let (uptime_s, term) = (self.shared.uptime_s(), self.highest_term.get());
        Facts { uptime_s, term, scrub: self.scrub.borrow().cursor }
    }

    /// Makes a change durable in the log. Whoever holds the log writes what all who wait want, so that they need one
    /// write together.
    async fn log_change(&self, change: Option<(u32, Entry)>) -> Result<(), EngineError> {
        if let Some((slot, entry)) = &change {
            self.watch_change(*slot, &entry.header)?;
        }
        let outcome = Outcome::default();
        self.table.waiting.borrow_mut().push_back(Waiting { change, outcome: outcome.clone() });
        let _guard = self.table.lock.lock().await;
        loop {
            if let Some(done) = outcome.take() {
                return done;
            }
            let batch: Vec<Waiting> = {
                let mut waiting = self.table.waiting.borrow_mut();
                let most = waiting.len().min(MAX_BLOCK_ENTRIES);
                waiting.drain(..most).collect()
            };
            let logged = self.log_batch(&batch).await;
            for waiting in batch {
                *waiting.outcome.borrow_mut() = Some(logged.as_ref().map_err(|error| error.again()).copied());
            }
        }
    }

    async fn log_batch(&self, batch: &[Waiting]) -> Result<(), EngineError> {
        self.shared.writable()?;
        let half_blocks = self.geometry().log.len / 2 / PAGE;
        let place = self.table.place.get();
        if self.table.forced.get() || place.blocks >= half_blocks || place.entries >= MAX_LOG_ENTRIES {
            self.checkpoint().await?;
        }
        let place = self.table.place.get();
        let entries: Vec<(u32, Entry)> = batch.iter().filter_map(|waiting| waiting.change.clone()).collect();
        let count = entries.len() as u64;
        let facts = self.current_facts();
        let block = LogBlock { generation: place.generation, sequence: place.sequence, facts, entries };
        let buffer = self.page_buffer(&block.encode(self.shared.id)[..]);
        let offset = self.geometry().log_half(place.generation).offset + place.blocks * PAGE;
        if let Err(error) = self.write("writing the table's log", offset, buffer).await {
            // It may stand there all the same. The next block has its sequence, in the log of a checkpoint that does
            // not have the change: so this one is never replayed once something came after it.
            self.table.forced.set(true);
            // Its failure makes the disk read-only; the caller is told of the first.
            let _ = self.checkpoint().await;
            return Err(error);
        }
        self.table.place.set(Place {
            sequence: place.sequence + 1,
            blocks: place.blocks + u64::from(!planted!(RewriteLogBlock)),
            entries: place.entries + count,
            ..place
        });
        self.table.facts.set(facts);
        self.table.decided.borrow_mut().extend(block.entries);
        Ok(())
    }

    /// Writes the next checkpoint, from which the log goes on. The caller holds the log.
    pub(super) async fn checkpoint(&self) -> Result<(), EngineError> {
        for attempt in 1.. {
            let error = match self.try_checkpoint().await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if attempt >= CHECKPOINT_ATTEMPTS || self.shared.writable().is_err() {
                self.shared.set_read_only(&format!("its extent table could not be written: {error}"));
                return Err(error);
            }
        }
        Ok(())
    }

    /// Writes the checkpoint that a mount needs before anything may change.
    pub(super) async fn checkpoint_after_mount(&self) {
        let _guard = self.table.lock.lock().await;
        if self.table.forced.get() && self.shared.writable().is_ok() {
            // A failure has made the disk read-only, and was logged.
            let _ = self.checkpoint().await;
        }
    }

    async fn try_checkpoint(&self) -> Result<(), EngineError> {
        let place = self.table.place.get();
        let (disk, slots, generation) = (self.shared.id, self.geometry().slots, place.generation + 1);
        let copy = self.geometry().table_copy(generation).offset;
        let mut pages = Pages::new(disk, generation, slots);
        let mut offset = copy + PAGE;
        while !pages.is_done() {
            let bytes = CHUNK_PAGES * PAGE_BYTES;
            let mut chunk = self.shared.pool.take(bytes).unwrap_or_else(|| AlignedBuf::with_capacity(bytes));
            while !pages.is_done() && chunk.len() < bytes {
                let page = pages.encode_next(|slot| self.entry_of(slot));
                chunk.extend_from_slice(&page[..]).map_err(|error| EngineError::Io {
                    disk,
                    what: "building a checkpoint",
                    source: std::io::Error::other(error),
                })?;
            }
            let len = chunk.len() as u64;
            self.write("writing the extent table", offset, chunk).await?;
            offset += len;
        }
        let facts = self.current_facts();
        let header =
            CheckpointHeader { generation, first_sequence: place.sequence, slots, pages_crc: pages.crc(), facts };
        let buffer = self.page_buffer(&header.encode(disk)[..]);
        if !planted!(ReuseLogTooEarly) {
            self.write("writing the extent table's header", copy, buffer).await?;
        }
        self.table.facts.set(facts);
        self.table.place.set(Place { generation, sequence: place.sequence, blocks: 0, entries: 0 });
        self.table.forced.set(false);
        Ok(())
    }

    /// Reads the entries of a checkpoint into memory, chunk by chunk.
    pub(super) async fn read_checkpoint(&self, header: &CheckpointHeader) -> Result<(), TableFault> {
        self.read_entries(header).await.map_err(|(offset, fault)| {
            self.tell_bad_page(offset, &fault);
            fault
        })
    }

    /// As [`Engine::read_checkpoint`]; the fault comes with its place on the disk.
    async fn read_entries(&self, header: &CheckpointHeader) -> Result<(), (u64, TableFault)> {
        let geometry = self.geometry();
        self.slots.borrow_mut().reset(geometry.slots);
        let mut pages = Pages::new(self.shared.id, header.generation, geometry.slots);
        let start = geometry.table_copy(header.generation).offset;
        let mut offset = start + PAGE;
        let mut left = crate::geometry::table_pages(geometry.slots) as usize * PAGE_BYTES;
        while left > 0 {
            let len = left.min(CHUNK_PAGES * PAGE_BYTES);
            let chunk = self
                .read_pages(offset, len, AlignedBuf::with_capacity(len))
                .await
                .map_err(|error| (offset, TableFault::Unreadable(error.to_string())))?;
            for page in chunk.chunks(PAGE_BYTES) {
                let mut beyond = None;
                let mut slots = self.slots.borrow_mut();
                let decoded = pages.decode_next(page, |slot, entry| {
                    beyond = beyond.or(entry.is_beyond(geometry).then_some(slot));
                    slots.push(super::Slot::of_entry(&entry, &self.io));
                });
                decoded.map_err(|fault| (offset, fault))?;
                if let Some(slot) = beyond {
                    let what = format!("a page with a state that slot {slot} cannot hold");
                    return Err((offset, TableFault::Impossible(what)));
                }
                offset += PAGE;
            }
            left -= len;
        }
        if pages.crc() == header.pages_crc { Ok(()) } else { Err((start, TableFault::Damaged)) }
    }
}
