//! The scrub: reads everything that is live on the disk, compares it with its checksums and copies, and says what it
//! found. It goes on where it stopped, a bounded piece at a time; whoever calls it sets the pace.
//!
//! What is live, and what it is compared with:
//! - both superblocks and both copies of the keys: each must validate;
//! - both header pages of every slot: the newest must be the one that memory has;
//! - a sealed extent: the page checksums of its footer over every byte of data; trailer, checksums and record table of
//!   the footer by their own;
//! - an open or fenced extent: the checksums of its batches below the tail.
//!
//! Invariants:
//! - A bad copy of metadata is written again from what is known to be right: the other copy, or for a footer the data, if
//!   that has its digest. Data is never written: another replica has it, and only the volume manager knows where.
//! - What changes while it is looked at is not called damaged: a finding counts only when the slot is still the same.
//! - Foreground work goes first: one small read at a time.

use holdfast_libs_types::{MAX_BATCH_BYTES, PAGE_BYTES};

use super::scan::Stop;
use super::slot::Live;
use super::{Engine, Slot};
use crate::buffer::AlignedBuf;
use crate::error::EngineError;
use crate::findings::{Finding, Place, ScrubStep};
use crate::geometry::CRC_SPAN_BYTES;
use crate::slot_header::{SlotHeader, SlotState};
use crate::superblock::Superblock;

/// Bytes of one read: whole spans of a page checksum, and small enough to let foreground reads through.
const READ_BYTES: u64 = 4 * CRC_SPAN_BYTES;

/// Most findings that one step reports; the next goes on from there.
const MAX_FINDINGS: usize = 256;

/// Where the scrub stands.
#[derive(Debug, Default)]
pub(super) struct Scrub {
    pub(super) cursor: Cursor,
    /// The extent that is being read, and its page checksums.
    reading: Option<Reading>,
}

/// The part of it that outlives the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Cursor {
    /// The next slot; at 0 the areas before the slots come first.
    pub(super) slot: u32,
    /// Rounds finished.
    pub(super) round: u64,
}

#[derive(Debug)]
struct Reading {
    slot: u32,
    slot_generation: u32,
    next: u64,
    checksums: Vec<u32>,
}

/// Collects what one step does.
struct Step {
    left: u64,
    read_bytes: u64,
    found: Vec<Finding>,
}

impl Step {
    fn read(&mut self, bytes: u64) {
        self.read_bytes += bytes;
        self.left = self.left.saturating_sub(bytes);
    }

    fn is_spent(&self) -> bool {
        self.left == 0 || self.found.len() >= MAX_FINDINGS
    }
}

impl Engine {
    /// See `Disk::scrub_step`.
    pub(crate) async fn scrub_step(&self, max_bytes: u64) -> Result<ScrubStep, EngineError> {
        self.shared.readable()?;
        let _one = self.scrub_lock.lock().await;
        let mut step = Step { left: max_bytes.max(1), read_bytes: 0, found: Vec::new() };
        let mut finished_round = false;
        while !step.is_spent() && !finished_round {
            self.shared.readable()?;
            let slot = self.scrub.borrow().cursor.slot;
            if slot == 0 && self.scrub.borrow().reading.is_none() {
                self.scrub_superblocks(&mut step).await;
                self.scrub_keys(&mut step).await;
            }
            if self.scrub_slot(slot, &mut step).await {
                finished_round = self.advance();
            }
        }
        for finding in &step.found {
            self.shared.counters.damaged();
            tracing::error!(disk = %self.shared.id, place = %finding.place, slot = finding.slot, volume = ?finding.volume,
                offset = finding.offset, repaired = finding.repaired, what = finding.what, "scrub found damage");
        }
        Ok(ScrubStep { read_bytes: step.read_bytes, finished_round, found: step.found })
    }

    /// To the next slot; true at the end of a round.
    fn advance(&self) -> bool {
        let mut scrub = self.scrub.borrow_mut();
        scrub.reading = None;
        scrub.cursor.slot += 1;
        if scrub.cursor.slot < self.geometry().slots {
            return false;
        }
        scrub.cursor = Cursor { slot: 0, round: scrub.cursor.round + 1 };
        true
    }

    async fn scrub_superblocks(&self, step: &mut Step) {
        let _guard = self.superblock_lock.lock().await;
        let expected = self.superblock.borrow().clone();
        let mut found = Vec::new();
        let mut behind = false;
        for area in [expected.geometry.superblock_a, expected.geometry.superblock_b] {
            let read = self.read_pages(area.offset, PAGE_BYTES, AlignedBuf::with_capacity(PAGE_BYTES)).await;
            step.read(PAGE_BYTES as u64);
            let what = match read.map(|page| Superblock::decode(&page)) {
                Ok(Ok(one)) if one == expected => continue,
                // A crash between the writes of the two leaves one behind.
                Ok(Ok(one)) if one.disk == expected.disk && one.generation < expected.generation => {
                    behind = true;
                    continue;
                }
                Ok(Ok(other)) => format!("is of disk {} in cell {}", other.disk, other.cell),
                Ok(Err(error)) => error.to_string(),
                Err(error) => format!("cannot be read: {error}"),
            };
            found.push(Finding::area(Place::Superblock, area.offset, what));
        }
        if !found.is_empty() || behind {
            let repaired = self.shared.writable().is_ok() && self.write_superblock(expected).await.is_ok();
            found.iter_mut().for_each(|finding| finding.repaired = repaired);
        }
        step.found.append(&mut found);
    }

    async fn scrub_keys(&self, step: &mut Step) {
        let _guard = self.keys_lock.lock().await;
        let copies = self.check_keys().await;
        step.read(copies.read_bytes);
        let mut found: Vec<Finding> =
            copies.bad.into_iter().map(|(offset, what)| Finding::area(Place::KeyArea, offset, what)).collect();
        if (!found.is_empty() || copies.behind)
            && self.shared.writable().is_ok()
            && let Some(content) = copies.content
        {
            let repaired = self.write_keys(content).await.is_ok();
            found.iter_mut().for_each(|finding| finding.repaired = repaired);
        }
        step.found.append(&mut found);
    }

    /// Checks one slot, or goes on with it; true when it is done.
    async fn scrub_slot(&self, slot: u32, step: &mut Step) -> bool {
        if self.scrub.borrow().reading.is_none() && !self.scrub_headers(slot, step).await {
            return true;
        }
        let header = self.with_slot(slot, |slot| slot.header());
        match header.state {
            SlotState::Sealed => self.scrub_sealed(slot, &header, step).await,
            SlotState::Open | SlotState::Fenced => {
                self.scrub_batches(slot, &header, step).await;
                true
            }
            // A copy is read back whole before it counts; trash is nobody's data any more.
            SlotState::Free | SlotState::Copying | SlotState::Trashed => true,
        }
    }

    /// Both header pages of a slot; false when the slot must be left alone.
    async fn scrub_headers(&self, slot: u32, step: &mut Step) -> bool {
        if self.with_slot(slot, |slot| slot.is_lost()) {
            return false;
        }
        let lock = self.lock_of(slot);
        let _guard = lock.lock().await;
        let (known, page) = self.with_slot(slot, |slot| (slot.header(), slot.page));
        let mut bad = [None, None];
        for at in [0, 1u8] {
            let read = self
                .read_pages(self.geometry().header_offset(slot, at), PAGE_BYTES, AlignedBuf::with_capacity(PAGE_BYTES))
                .await;
            step.read(PAGE_BYTES as u64);
            let what = match read.map(|page| SlotHeader::decode(&page, self.shared.id, slot)) {
                Ok(Ok(found)) if at == page && found != known => Some("is not the newest header".to_owned()),
                Ok(Ok(found)) if at != page && found.generation >= known.generation => {
                    Some("is newer than the newest header".to_owned())
                }
                Ok(Ok(_)) => None,
                Ok(Err(crate::slot_header::SlotHeaderError::Blank)) if known.generation < 2 => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(error) => Some(format!("cannot be read: {error}")),
            };
            bad[usize::from(at)] = what;
        }
        // Taken or changed in the meantime (by somebody who holds another lock by now): the next round looks again.
        let same = std::rc::Rc::ptr_eq(&lock, &self.lock_of(slot))
            && self.with_slot(slot, |slot| slot.generation == known.generation);
        if !same {
            return false;
        }
        let mut found = Vec::new();
        for (at, what) in bad.iter().enumerate() {
            if let Some(what) = what {
                let volume = (known.state != SlotState::Free).then_some(known.volume);
                found.push(Finding {
                    place: Place::SlotHeader,
                    slot: Some(slot),
                    volume,
                    offset: at as u64 * PAGE_BYTES as u64,
                    what: what.clone(),
                    repaired: false,
                });
            }
        }
        if !found.is_empty() && known.generation > 0 && self.shared.writable().is_ok() {
            let repaired = self.rewrite_headers(slot, &known).await.is_ok();
            found.iter_mut().for_each(|finding| finding.repaired = repaired);
        }
        step.found.append(&mut found);
        true
    }

    /// One piece of a sealed extent; true when it is done.
    async fn scrub_sealed(&self, slot: u32, header: &SlotHeader, step: &mut Step) -> bool {
        let unfinished = self.scrub.borrow_mut().reading.take();
        let same = |reading: &Reading| reading.slot == slot && reading.slot_generation == header.slot_generation;
        let mut reading = match unfinished.filter(same) {
            Some(reading) => reading,
            None => match self.begin_reading(slot, header, step).await {
                Some(reading) => reading,
                None => return true,
            },
        };
        while reading.next < header.length {
            if step.is_spent() {
                self.scrub.borrow_mut().reading = Some(reading);
                return false;
            }
            let len = READ_BYTES.min(header.length - reading.next);
            let at = self.geometry().data_offset(slot) + reading.next;
            let read = self.read_pages(at, len as usize, AlignedBuf::with_capacity(len as usize)).await;
            step.read(len);
            if !self.is_still(slot, header) {
                return true;
            }
            let spans = (reading.next / CRC_SPAN_BYTES) as usize;
            match read {
                Ok(bytes) => {
                    for (n, span) in bytes.chunks(CRC_SPAN_BYTES as usize).enumerate() {
                        if reading.checksums.get(spans + n) != Some(&crc32fast::hash(span)) {
                            let offset = reading.next + n as u64 * CRC_SPAN_BYTES;
                            self.found_in_data(slot, header, offset, "its page checksum does not match", step);
                        }
                    }
                }
                Err(error) => {
                    self.found_in_data(slot, header, reading.next, &format!("cannot be read: {error}"), step);
                }
            }
            reading.next += len;
        }
        true
    }

    /// Reads and checks the footer; `None` when the extent is no longer there, or its footer cannot be believed.
    async fn begin_reading(&self, slot: u32, header: &SlotHeader, step: &mut Step) -> Option<Reading> {
        let read = async {
            let rows = self.read_rows(slot, header).await?;
            let row_bytes = rows.len() as u64 * 48;
            drop(rows);
            Ok((row_bytes, self.read_checksums(slot, header).await?))
        };
        let read: Result<(u64, Vec<u32>), EngineError> = read.await;
        if !self.is_still(slot, header) {
            return None;
        }
        match read {
            Ok((row_bytes, checksums)) => {
                step.read(2 * PAGE_BYTES as u64 + row_bytes + checksums.len() as u64 * 4);
                Some(Reading { slot, slot_generation: header.slot_generation, next: 0, checksums })
            }
            Err(error) => {
                let what = match error {
                    EngineError::Damaged { detail, .. } => detail,
                    other => other.to_string(),
                };
                self.footer_is_bad(slot, header, what, step).await;
                None
            }
        }
    }

    /// What the header knows, the digest, decides: data that has it gives the footer again, and data that has not is
    /// damaged, nobody can tell where.
    async fn footer_is_bad(&self, slot: u32, header: &SlotHeader, what: String, step: &mut Step) {
        let offset = u64::from(header.footer_offset) * PAGE_BYTES as u64;
        let mut finding = Finding::in_extent(Place::Footer, slot, header.volume, offset, what);
        let built = {
            let _alone = self.scan_lock.lock().await;
            self.build_footer(slot, header.volume, header.length).await
        };
        step.read(header.length);
        let lock = self.lock_of(slot);
        let _guard = lock.lock().await;
        if !self.is_still(slot, header) {
            return;
        }
        match built {
            Ok((digest, builder)) if digest == header.digest => {
                let footer = builder.finish();
                let fits = footer.row_count() == header.records;
                finding.repaired =
                    fits && self.shared.writable().is_ok() && self.write_footer(slot, header, &footer).await.is_ok();
                if !finding.repaired {
                    self.mark_damaged(slot, &finding.what);
                }
            }
            Ok(_) => self.found_in_data(slot, header, 0, "the extent does not have its digest", step),
            Err(error) => self.found_in_data(slot, header, 0, &format!("cannot be read: {error}"), step),
        }
        step.found.push(finding);
    }

    /// The batches of an extent that can still grow, below the tail it has now.
    async fn scrub_batches(&self, slot: u32, header: &SlotHeader, step: &mut Step) {
        let (tail, damaged) =
            self.with_slot(slot, |slot| slot.live.as_ref().map_or((0, true), |live| (live.tail, live.damaged)));
        // What is known already is in the listing.
        if damaged || tail == 0 {
            return;
        }
        let scan = {
            let _alone = self.scan_lock.lock().await;
            self.scan_batches(slot, tail, None).await
        };
        step.read(tail.min(scan.tail + MAX_BATCH_BYTES as u64));
        let what = match scan.stop {
            Stop::Limit => return,
            Stop::Blank => "nothing stands there".to_owned(),
            Stop::Spans { end } => format!("a batch claims to end at {end}"),
            Stop::Bad { detail } | Stop::Unreadable { detail } => detail,
        };
        if !self.is_still(slot, header) {
            return;
        }
        self.mark_damaged(slot, &format!("damaged at {}: {what}", scan.tail));
        step.found.push(Finding::in_extent(Place::Data, slot, header.volume, scan.tail, what));
    }

    /// Whether the slot holds the same use of itself, in the same state.
    fn is_still(&self, slot: u32, header: &SlotHeader) -> bool {
        self.with_slot(slot, |at| (at.slot_generation, at.state) == (header.slot_generation, header.state))
    }

    fn found_in_data(&self, slot: u32, header: &SlotHeader, offset: u64, what: &str, step: &mut Step) {
        self.mark_damaged(slot, &format!("damaged at {offset}: {what}"));
        step.found.push(Finding::in_extent(Place::Data, slot, header.volume, offset, what.to_owned()));
    }

    /// Shows the extent as damaged from now on. Its records are served as before: each has checksums of its own.
    fn mark_damaged(&self, slot: u32, note: &str) {
        self.with_slot(slot, |at| at.mark_damaged(note, &self.io));
    }
}

impl Slot {
    fn mark_damaged(&mut self, note: &str, io: &std::rc::Rc<crate::reactor::Io>) {
        let length = self.length;
        let live =
            self.live.get_or_insert_with(|| Box::new(Live { tail: length, readable_end: length, ..Live::empty(io) }));
        live.damaged = true;
        live.no_appends = Some("it is damaged".to_owned());
        live.note.get_or_insert_with(|| note.to_owned());
    }
}
